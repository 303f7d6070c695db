import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { type Front, type FrontOptions, startFront } from "../fixtures/Front.js"
import { type Call, makePlainServer, type PlainServer, type Script } from "../fixtures/PlainServer.js"
import { del, type Initialized, initialize, messages, post, request, stream } from "../fixtures/RawClient.js"
import { connect, type RawSocket, requestBytes } from "../fixtures/RawSocket.js"
import type { ObservedResponse } from "../fixtures/RawServer.js"
import { expectError, INVALID } from "../fixtures/RpcError.js"
import { silent, Telemetry } from "../../src/Telemetry.js"

// The timeout under test, and the time in which a busy machine notices that it has passed.
const stallTimeout = "1 seconds"
const timeout = 25_000

/** The head has the timeout; a complete request has five times as much. */
const headTimeout = 4500

const MiB = 2 ** 20
const piece = Buffer.alloc(65_536, "x")

/** The capacity of the buffers of two connections, in the system and in the processes. */
const inBuffers = 32 * MiB

const modern = { "mcp-protocol-version": "2026-07-28" }
const list = request(7, "tools/list")

interface Setting {
  readonly server: PlainServer
  readonly front: Front
  readonly opened: Initialized
}

/** A proxy with a session, and another client that it serves until the end of the test. */
const setting = (script: Script = {}, options: FrontOptions = {}) =>
  Effect.gen(function* () {
    const server = yield* makePlainServer(script)
    const front = yield* startFront(server, { ...options, front: { stallTimeout, ...options.front } })
    const opened = yield* initialize(front.url)
    return { server, front, opened }
  })

/** Runs an effect while another client makes calls, all of which are answered. */
const undisturbed = <A, E, R>({ front }: Setting, slow: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const other = yield* initialize(front.url)
    let calls = 0
    const work = yield* Effect.fork(
      Effect.forever(
        Effect.gen(function* () {
          const answer = yield* post(front.url, request(calls, "tools/list"), other.session)
          expect(messages(answer)).toEqual([{ jsonrpc: "2.0", id: calls, result: {} }])
          calls++
          yield* Effect.sleep(20)
        })
      )
    )
    const result = yield* Effect.raceFirst(slow, Fiber.join(work))
    yield* Fiber.interrupt(work)
    expect(calls).toBeGreaterThan(0)
    return result
  })

describe.concurrent("a client that does not send its request", () => {
  const unfinished: ReadonlyArray<readonly [name: string, bytes: string]> = [
    ["that says nothing at all", ""],
    ["that stops in the request line", "POST /mc"],
    ["that stops in the head", "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-"]
  ]
  for (const [name, bytes] of unfinished) {
    it.scopedLive(`is disconnected: one ${name}`, () =>
      Effect.gen(function* () {
        const all = yield* setting()
        const socket = yield* connect(all.front.port)
        if (bytes !== "") yield* socket.write(bytes)
        yield* undisturbed(all, socket.closed(headTimeout))
        for (const { status } of socket.answers()) expect(status).toBe(408)
      })
    )
  }

  it.scopedLive("is disconnected: one that stops in the head of its second request", () =>
    Effect.gen(function* () {
      const { front, opened } = yield* setting()
      const socket = yield* connect(front.port)
      yield* socket.write(requestBytes("POST", opened.session, list))
      expect((yield* socket.answer(0)).status).toBe(200)
      yield* socket.write("POST /mcp HTTP/1.1\r\nHost: 127")
      yield* socket.closed(headTimeout)
      for (const { status } of socket.answers().slice(1)) expect(status).toBe(408)
    })
  )

  /** Writes single bytes without end, at intervals below the timeout. */
  const trickle = (socket: RawSocket, byte: string) =>
    Effect.repeat(Effect.delay(socket.write(byte), 200), { until: () => socket.isClosed() })

  it.scopedLive("is disconnected: one whose head never ends, a byte at a time", () =>
    Effect.gen(function* () {
      const all = yield* setting()
      const socket = yield* connect(all.front.port)
      yield* socket.write("POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
      const writing = yield* Effect.fork(trickle(socket, "x"))
      yield* undisturbed(all, socket.closed(headTimeout))
      yield* Fiber.join(writing)
    })
  )

  for (const [name, headers, bytes] of [
    ["none of its body comes", { "content-length": "100" }, ""],
    ["its body stops", { "content-length": "100" }, `{"jsonrpc":"2.0","id":7`],
    ["its chunks stop", { "transfer-encoding": "chunked" }, "5\r\nhello\r\n"]
  ] as const) {
    it.scopedLive(`gets 408, and then is disconnected: ${name}`, () =>
      Effect.gen(function* () {
        const all = yield* setting()
        const { front, opened, server } = all
        const socket = yield* connect(front.port)
        yield* socket.write(requestBytes("POST", { ...opened.session, ...headers }) + bytes)
        const answer = yield* undisturbed(all, socket.answer(0, timeout))
        expectError(answer, { status: 408, code: INVALID })
        expect(answer.headers["connection"]).toBe("close")
        yield* socket.closed(timeout)
        yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes === 0)
        expect(server.requests.filter(({ body }) => !body.includes("tools/list"))).toHaveLength(2)
      })
    )
  }

  it.scopedLive("is disconnected: one whose body never ends, a byte at a time", () =>
    Effect.gen(function* () {
      const { front, opened } = yield* setting()
      const socket = yield* connect(front.port)
      yield* socket.write(requestBytes("POST", { ...opened.session, "content-length": "100000" }))
      const writing = yield* Effect.fork(trickle(socket, "x"))
      yield* socket.closed(timeout)
      yield* Fiber.join(writing)
      yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes === 0)
    })
  )

  it.scopedLive("is disconnected: one that never stops sending a rejected body", () =>
    Effect.gen(function* () {
      // With this timeout only the time to stop sending can end the connection.
      const all = yield* setting({}, { front: { maxBody: 1000, stallTimeout: "30 seconds" } })
      const socket = yield* connect(all.front.port)
      yield* socket.write(requestBytes("POST", { "transfer-encoding": "chunked" }))
      const chunk = Buffer.concat([Buffer.from("10000\r\n"), piece, Buffer.from("\r\n")])
      const writing = yield* Effect.fork(
        Effect.repeat(Effect.delay(socket.write(chunk), 10), { until: () => socket.isClosed() })
      )
      expectError(yield* socket.answer(0), { status: 413, code: INVALID })
      yield* undisturbed(all, socket.closed(timeout))
      yield* Fiber.join(writing)
      yield* all.front.untilHealth(({ bufferedBytes }) => bufferedBytes === 0)
    })
  )

  it.scopedLive("is served if it is slow but does not stop", () =>
    Effect.gen(function* () {
      const { front, opened } = yield* setting()
      const socket = yield* connect(front.port)
      const bytes = requestBytes("POST", opened.session, list)
      // The head comes at once. The body takes longer than the timeout, but no part of it does.
      const head = bytes.indexOf("\r\n\r\n") + 4
      yield* socket.write(bytes.slice(0, head))
      const part = Math.ceil((bytes.length - head) / 8)
      for (let at = head; at < bytes.length; at += part) {
        yield* Effect.sleep(350)
        yield* socket.write(bytes.slice(at, at + part))
      }
      expect((yield* socket.answer(0)).status).toBe(200)
    })
  )
})

/** Writes as much as the proxy reads, and records the first long pause. */
class Source {
  written = 0
  /** The bytes written before the first pause of half a second or more. */
  stalledAt: number | undefined

  constructor(
    private readonly piece: Uint8Array,
    private readonly total: number = Number.POSITIVE_INFINITY
  ) {}

  readonly pour = (response: ObservedResponse): void => {
    const breath = this.written + MiB
    while (this.written < this.total) {
      if (response.destroyed) return
      // All of these tests share one process: a source that never pauses would block the others.
      if (this.written >= breath) return void setTimeout(this.pour, 5, response)
      this.written += this.piece.length
      if (response.write(this.piece)) continue
      const since = performance.now()
      const note = () => {
        if (performance.now() - since > 500) this.stalledAt ??= this.written
      }
      response.once("close", note)
      response.once("drain", () => {
        response.off("close", note)
        note()
        setImmediate(this.pour, response)
      })
      return
    }
    response.end()
  }
}

/** A timeout in which a source is seen to wait even on a busy machine. */
const patient = { front: { stallTimeout: "3 seconds" } } as const

/** Events of 64 KiB. */
const events = (fields: string): Buffer => Buffer.from(`${fields}data: ${"x".repeat(65_000)}\n\n`)

const streaming =
  (source: Source) =>
  ({ response }: Call): void => {
    response.writeHead(200, { "content-type": "text/event-stream" })
    source.pour(response)
  }

/** Sends a request, reads the head of the response, and stops reading. */
const askAndIgnore = (front: Front, bytes: string) =>
  Effect.gen(function* () {
    const socket = yield* connect(front.port)
    yield* socket.write(bytes)
    yield* socket.until(() => socket.received() > 0)
    yield* socket.pause
    return socket
  })

describe.concurrent("a client that does not read its response", () => {
  it.scopedLive("is disconnected, and the proxy reads a long JSON response to its end", () =>
    Effect.gen(function* () {
      const source = new Source(piece, 64 * MiB)
      const script: Script = {
        large: ({ response }) => {
          response.writeHead(200, { "content-type": "application/json", "content-length": String(64 * MiB) })
          source.pour(response)
        }
      }
      const all = yield* setting(script, patient)
      const { front, opened, server } = all
      yield* askAndIgnore(front, requestBytes("POST", opened.session, request(1, "large")))
      const call = yield* server.request(1)
      yield* undisturbed(
        all,
        server.until(() => call.end !== undefined, timeout)
      )
      expect(call.end).toBe("answered")
      // Until then the upstream could only fill the buffers on the way.
      expect(source.stalledAt).toBeLessThan(inBuffers)
      yield* front.untilHealth(({ connections }) => connections === 1)
      expect((yield* post(front.url, list, opened.session)).status).toBe(200)
    })
  )

  for (const [name, bytes, frames] of [
    ["an endless standalone stream", (session: Session) => requestBytes("GET", session), events("")],
    [
      "an endless response that can be resumed",
      (session: Session) => requestBytes("POST", session, request(1, "endless")),
      events("id: 1\n")
    ],
    ["an endless modern response", () => requestBytes("POST", modern, request(1, "endless")), events("")]
  ] as const) {
    it.scopedLive(`is disconnected, and so is the upstream: ${name}`, () =>
      Effect.gen(function* () {
        const source = new Source(frames)
        const all = yield* setting(
          { GET: streaming(source), endless: streaming(source) },
          { events: { maxEvents: 0 } }
        )
        const { front, opened, server } = all
        yield* askAndIgnore(front, bytes(opened.session))
        const dropped = yield* undisturbed(all, server.closed(1))
        expect(dropped.end).toBe("dropped")
        expect(source.written).toBeLessThan(inBuffers)
        yield* front.untilHealth((health) => health.connections === 1 && health.stateless === 0)
        expect((yield* post(front.url, list, opened.session)).status).toBe(200)
      })
    )
  }

  for (const [name, bytes, frames] of [
    ["an endless standalone stream", (session: Session) => requestBytes("GET", session), events("")],
    [
      "an endless response that can be resumed",
      (session: Session) => requestBytes("POST", session, request(1, "endless")),
      events("")
    ]
  ] as const) {
    it.scopedLive(
      `is disconnected, and the proxy keeps reading and storing events up to the limit: ${name}`,
      () =>
        Effect.gen(function* () {
          const source = new Source(frames)
          const all = yield* setting({ GET: streaming(source), endless: streaming(source) }, patient)
          const { front, opened, server } = all
          yield* askAndIgnore(front, bytes(opened.session))
          yield* undisturbed(
            all,
            server.until(() => source.written > 2 * inBuffers, timeout)
          )
          expect(source.stalledAt).toBeLessThan(inBuffers)
          yield* front.untilHealth(
            ({ connections, eventBytes, limits }) =>
              connections === 1 && eventBytes > 0 && eventBytes <= limits.maxEventBytes
          )
          yield* del(front.url, opened.session)
          expect((yield* server.closed(1)).end).toBe("dropped")
          yield* front.untilHealth(({ eventBytes, events }) => eventBytes === 0 && events === 0)
        })
    )
  }

  for (const [name, source] of [
    [
      "events larger than the limit of stored events",
      new Source(Buffer.from(`data: ${"x".repeat(2 * MiB)}\n\n`))
    ],
    ["an event that never ends", new Source(Buffer.from(`data: ${"x".repeat(65_000)}\n`))]
  ] as const) {
    it.scopedLive(`is disconnected, and the upstream is paused until then: ${name}`, () =>
      Effect.gen(function* () {
        const all = yield* setting({ endless: streaming(source) }, patient)
        const { front, opened, server } = all
        yield* askAndIgnore(front, requestBytes("POST", opened.session, request(1, "endless")))
        yield* undisturbed(
          all,
          server.until(() => source.stalledAt !== undefined, timeout)
        )
        expect(source.stalledAt).toBeLessThan(inBuffers)
        yield* del(front.url, opened.session)
        expect((yield* server.closed(1)).end).toBe("dropped")
        yield* front.untilHealth(({ eventBytes, events }) => eventBytes === 0 && events === 0)
      })
    )
  }

  it.scopedLive("is disconnected, and the proxy reads an endless response as long as the session lasts", () =>
    Effect.gen(function* () {
      const source = new Source(events(""))
      const all = yield* setting({ endless: streaming(source) }, patient)
      const { front, opened, server } = all
      yield* askAndIgnore(front, requestBytes("POST", opened.session, request(1, "endless")))
      yield* undisturbed(
        all,
        server.until(() => source.written > 2 * inBuffers, timeout)
      )
      expect(source.stalledAt).toBeLessThan(inBuffers)
      yield* front.untilHealth(({ connections }) => connections === 1)
      yield* del(front.url, opened.session)
      expect((yield* server.closed(1)).end).toBe("dropped")
    })
  )

  it.scopedLive(
    "is disconnected, and the proxy reads an endless response for --session-timeout at most",
    () =>
      Effect.gen(function* () {
        const source = new Source(events(""))
        const all = yield* setting(
          { endless: streaming(source) },
          { sessions: { sessionTimeout: "1 seconds" } }
        )
        const { front, opened, server } = all
        yield* askAndIgnore(front, requestBytes("POST", opened.session, request(1, "endless")))
        expect((yield* undisturbed(all, server.closed(1))).end).toBe("dropped")
      })
  )

  it.scopedLive("is disconnected if it does not read a resumed stream, of which little is written", () =>
    Effect.gen(function* () {
      let sent = 0
      const telemetry = { ...silent, bytesSent: (bytes: number) => void (sent += bytes) }
      const source = new Source(events(""), 2 * inBuffers)
      const server = yield* makePlainServer({ much: streaming(source) })
      const retention = { maxEvents: 10_000, maxEventBytes: 4 * inBuffers }
      const front = yield* Effect.provideService(
        startFront(server, { front: { stallTimeout }, events: retention }),
        Telemetry,
        telemetry
      )
      const { session } = yield* initialize(front.url)
      const asking = yield* stream(front.url, {
        method: "POST",
        headers: session,
        body: request(1, "much")
      })
      yield* asking.event(0)
      yield* asking.drop
      const call = yield* server.request(1)
      yield* server.until(() => call.end !== undefined, timeout)
      yield* front.untilHealth(({ connections }) => connections === 1)
      const before = sent
      const back = { ...session, "last-event-id": asking.events[0]?.id ?? "" }
      yield* askAndIgnore(front, requestBytes("GET", back))
      yield* front.untilHealth(({ connections }) => connections === 1)
      expect(sent - before).toBeLessThan(inBuffers)
    })
  )

  it.scopedLive("is disconnected even if the upstream sends nothing more", () =>
    Effect.gen(function* () {
      // More than the buffers of the system hold, and then silence.
      const first = new Source(events(""), 24 * MiB)
      const all = yield* setting(
        {
          GET: ({ response }) => {
            response.writeHead(200, { "content-type": "text/event-stream" })
            response.end = () => response
            first.pour(response)
          }
        },
        { events: { maxEvents: 0 } }
      )
      const { front, opened, server } = all
      yield* askAndIgnore(front, requestBytes("GET", opened.session))
      expect((yield* undisturbed(all, server.closed(1))).end).toBe("dropped")
    })
  )

  it.scopedLive("is served if it is slow but does not stop", () =>
    Effect.gen(function* () {
      const source = new Source(piece, 32 * MiB)
      const { front, opened, server } = yield* setting({
        large: ({ response }) => {
          response.writeHead(200, { "content-type": "application/json" })
          source.pour(response)
        }
      })
      const since = performance.now()
      const socket = yield* connect(front.port)
      yield* socket.write(requestBytes("POST", opened.session, request(1, "large")))
      // The system announces reads in steps of its buffers, so the client reads a mebibyte at a time.
      for (let n = 1; n <= 32; n++) {
        yield* socket.resume
        yield* socket.until(() => socket.received() >= n * MiB)
        yield* socket.pause
        yield* Effect.sleep(100)
      }
      yield* socket.resume
      yield* server.until(() => server.requests[1]?.end !== undefined)
      expect(performance.now() - since).toBeGreaterThan(3000)
      yield* socket.until(() => socket.received() > 32 * MiB)
      expect(socket.isClosed()).toBe(false)
    })
  )

  it.scopedLive("is not the cause if the upstream is silent", () =>
    Effect.gen(function* () {
      const calls: Array<Call> = []
      const quiet = (call: Call) => {
        call.response.writeHead(200, { "content-type": "text/event-stream" })
        call.response.flushHeaders()
        calls.push(call)
      }
      const { front, opened, server } = yield* setting({ GET: quiet, quiet })
      const listening = yield* stream(front.url, { headers: opened.session })
      const asking = yield* stream(front.url, {
        method: "POST",
        headers: opened.session,
        body: request(1, "quiet")
      })
      const waiting = yield* Effect.fork(post(front.url, request(2, "hang"), opened.session))
      yield* server.until(() => calls.length === 2 && server.held.length === 1)
      // Three times the timeout.
      yield* Effect.sleep(3000)
      for (const { response } of calls) response.write("data: {}\n\n")
      server.held[0]?.result()
      yield* listening.event(0)
      yield* asking.event(0)
      expect((yield* Fiber.join(waiting)).status).toBe(200)
    })
  )

  it.scopedLive("is not the cause if its response is queued on the connection", () =>
    Effect.gen(function* () {
      const { front, opened, server } = yield* setting()
      const socket = yield* connect(front.port)
      yield* socket.write(requestBytes("POST", opened.session, request(1, "hang")))
      yield* socket.write(requestBytes("POST", opened.session, list))
      yield* socket.write(requestBytes("POST", opened.session, "{"))
      yield* server.until(() => server.held.length === 1 && server.count("tools/list") === 1)
      // Three times the timeout.
      yield* Effect.sleep(3000)
      server.held[0]?.result()
      yield* socket.until(() => socket.answers().length === 3 || socket.isClosed())
      expect(socket.answers().map(({ status }) => status)).toEqual([200, 200, 400])
    })
  )
})

describe.concurrent("a shutdown", () => {
  it.scopedLive("does not wait for clients that do not send or do not read", () =>
    Effect.gen(function* () {
      const source = new Source(events(""))
      const server = yield* makePlainServer({ endless: streaming(source), GET: streaming(source) })
      const scope = yield* Scope.make()
      const front = yield* Scope.extend(
        startFront(server, { front: { shutdownTimeout: "500 millis" } }),
        scope
      )
      const { session } = yield* initialize(front.url)
      const silent = yield* connect(front.port)
      const inHead = yield* connect(front.port)
      yield* inHead.write("POST /mcp HTTP/1.1\r\nHost: 127")
      const inBody = yield* connect(front.port)
      yield* inBody.write(requestBytes("POST", { ...session, "content-length": "100" }))
      yield* askAndIgnore(front, requestBytes("POST", session, request(1, "endless")))
      yield* askAndIgnore(front, requestBytes("GET", session))
      const since = performance.now()
      yield* Scope.close(scope, Exit.void)
      // The time for the calls, a second for the last responses, and a margin for a busy machine.
      expect(performance.now() - since).toBeLessThan(5000)
      for (const socket of [silent, inHead, inBody]) yield* socket.closed()
      yield* server.until(() => server.connections() === 0)
    })
  )
})

/** The headers of a client in its session. */
type Session = Initialized["session"]
