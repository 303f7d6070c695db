import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Sessions } from "../../src/Sessions.js"
import { startFront } from "../fixtures/Front.js"
import { heapAfterGc } from "../fixtures/leaks.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import {
  type Answer,
  del,
  get,
  initialize,
  initialized,
  initializeRequest,
  post,
  request,
  stream
} from "../fixtures/RawClient.js"
import { connect, type ReadAnswer, requestBytes } from "../fixtures/RawSocket.js"
import { ERROR, expectError, INVALID, NOT_JSON, type ExpectedError } from "../fixtures/RpcError.js"

const list = request(7, "tools/list")
const modern = { "mcp-protocol-version": "2026-07-28" }

/** Expects an error that names the limit, has `Retry-After`, and has the id of the request. */
const expectLimit = (
  answer: Answer | ReadAnswer,
  limit: string,
  expected: Omit<ExpectedError, "code" | "message">
) => {
  expectError(answer, { ...expected, code: ERROR, message: new RegExp(`--${limit}\\b`) })
  expect(Number(answer.headers["retry-after"])).toBeGreaterThan(0)
}

const unbounded = { concurrency: "unbounded" } as const

describe("--max-sessions", () => {
  it.scopedLive("admits exactly its number of simultaneous initializes", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { maxSessions: 10 } })
      // All connect before the first request, so that the proxy gets all requests at once.
      const sockets = yield* Effect.replicateEffect(connect(front.port), 500, unbounded)
      yield* front.untilHealth(({ connections }) => connections === 501)
      const writes = sockets.map((socket, id) =>
        socket.write(requestBytes("POST", {}, initializeRequest({ id })))
      )
      yield* Effect.all(writes, unbounded)
      const answers = yield* Effect.forEach(sockets, (socket) => socket.answer(0), unbounded)
      expect(answers.filter(({ status }) => status !== 200)).toHaveLength(490)
      for (const [id, answer] of answers.entries()) {
        if (answer.status === 200) expect(answer.headers["mcp-session-id"]).toMatch(/^[\w-]{22}$/)
        else expectLimit(answer, "max-sessions 10", { status: 503, id })
      }
      // The upstream gets nothing of the rejected ones.
      expect(server.requests).toHaveLength(10)
      expect(yield* front.health).toMatchObject({ sessions: 10 })
    })
  )

  it.scopedLive("admits exactly its number of initializes in one packet", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { maxSessions: 10 } })
      const socket = yield* connect(front.port)
      const requests = Array.from({ length: 50 }, (_, id) =>
        requestBytes("POST", {}, initializeRequest({ id }))
      )
      yield* socket.write(requests.join(""))
      yield* socket.answer(requests.length - 1)
      const statuses = socket.answers().map(({ status }) => status)
      expect(statuses.filter((status) => status === 200)).toHaveLength(10)
      expect(statuses.filter((status) => status === 503)).toHaveLength(40)
      expect(server.requests).toHaveLength(10)
    })
  )

  it.scopedLive("admits another session when one has ended, not before", () =>
    Effect.gen(function* () {
      const ending: Array<() => void> = []
      const server = yield* makePlainServer({
        // Only the first is delayed.
        DELETE: ({ answer }) => {
          if (ending.length > 0) answer(200)
          else ending.push(() => answer(200))
        }
      })
      const front = yield* startFront(server, { sessions: { maxSessions: 2 } })
      const one = yield* initialize(front.url)
      yield* initialize(front.url)
      expectLimit((yield* initialize(front.url, { id: "a" })).answer, "max-sessions 2", {
        status: 503,
        id: "a"
      })

      const end = yield* Effect.fork(del(front.url, one.session))
      yield* server.until(() => ending.length === 1)
      // The upstream still delays it.
      expect((yield* initialize(front.url)).answer.status).toBe(503)
      ending[0]?.()
      expect((yield* Fiber.join(end)).status).toBe(200)

      const answers = yield* Effect.all([initialize(front.url), initialize(front.url)], unbounded)
      expect(answers.map(({ answer }) => answer.status).toSorted()).toEqual([200, 503])
      expect(server.count("initialize")).toBe(3)
    })
  )

  it.scopedLive("counts opening sessions, and releases the place of one that fails to open", () =>
    Effect.gen(function* () {
      let refuses = true
      const waiting: Array<() => void> = []
      const server = yield* makePlainServer({
        initialize: (call) =>
          refuses ? void waiting.push(() => call.answer(500)) : call.result({ protocolVersion: "2025-11-25" })
      })
      const front = yield* startFront(server, { sessions: { maxSessions: 2 } })
      const openings = yield* Effect.fork(
        Effect.all([initialize(front.url), initialize(front.url)], unbounded)
      )
      yield* server.until(() => waiting.length === 2)
      expect((yield* initialize(front.url)).answer.status).toBe(503)
      for (const refuse of waiting) refuse()
      yield* Fiber.join(openings)
      yield* front.untilHealth(({ sessions }) => sessions === 0)
      refuses = false
      expect((yield* initialize(front.url)).answer.status).toBe(200)
    })
  )

  it.scopedLive(
    "counts a disconnected client until its initialize, which is never cancelled, is answered",
    () =>
      Effect.gen(function* () {
        const waiting: Array<() => void> = []
        const server = yield* makePlainServer({
          initialize: ({ id, result }) => {
            const answer = () => result({ protocolVersion: "2025-11-25" }, { "mcp-session-id": "up" })
            if (id === "gone") waiting.push(answer)
            else answer()
          }
        })
        const front = yield* startFront(server, { sessions: { maxSessions: 1 } })
        const opening = yield* Effect.fork(initialize(front.url, { id: "gone" }))
        yield* server.until(() => waiting.length === 1)
        yield* Fiber.interrupt(opening)
        yield* front.untilHealth(({ connections }) => connections === 1)
        expect((yield* initialize(front.url)).answer.status).toBe(503)
        for (const answer of waiting) answer()
        yield* front.untilHealth(({ sessions }) => sessions === 0)
        expect(server.requests.map(({ method }) => method)).toEqual(["POST", "DELETE"])
        expect((yield* initialize(front.url)).answer.status).toBe(200)
      })
  )

  it.scopedLive("does not limit modern requests, which have no session", () =>
    Effect.gen(function* () {
      const front = yield* startFront(yield* makePlainServer(), { sessions: { maxSessions: 1 } })
      yield* initialize(front.url)
      expect((yield* post(front.url, list, modern)).status).toBe(200)
    })
  )
})

describe("--max-per-client", () => {
  it.scopedLive("returns 429 to a client until one of its sessions ends", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { maxPerClient: 2, maxSessions: 5 } })
      const opened = yield* Effect.forEach([0, 1, 2, 3], (id) => initialize(front.url, { id }), unbounded)
      const refused = opened.filter(({ answer }) => answer.status !== 200)
      expect(refused).toHaveLength(2)
      for (const [id, { answer }] of opened.entries()) {
        if (answer.status !== 200) expectLimit(answer, "max-per-client 2", { status: 429, id })
      }
      expect(server.requests).toHaveLength(2)
      const first = opened.find(({ answer }) => answer.status === 200)
      yield* del(front.url, first?.session)
      expect((yield* initialize(front.url)).answer.status).toBe(200)
      expect((yield* initialize(front.url)).answer.status).toBe(429)
    })
  )

  it.scopedLive("yields to --max-sessions if both are reached", () =>
    Effect.gen(function* () {
      const front = yield* startFront(yield* makePlainServer(), {
        sessions: { maxPerClient: 1, maxSessions: 1 }
      })
      yield* initialize(front.url)
      expectLimit((yield* initialize(front.url, { id: 1 })).answer, "max-sessions 1", { status: 503, id: 1 })
    })
  )
})

describe("single-session mode", () => {
  it.scopedLive("returns 503 while the session is used, and names the option to set", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { multiSession: false } })
      const { session } = yield* initialize(front.url)
      yield* post(front.url, list, session)
      expectLimit((yield* initialize(front.url, { id: "two" })).answer, "multi-session", {
        status: 503,
        id: "two"
      })
      expect(server.count("initialize")).toBe(1)
      const over = yield* Effect.fork(Context.get(front.services, Sessions).over)
      yield* del(front.url, session)
      expect(yield* Fiber.join(over)).toBe("deleted")
    })
  )

  it.scopedLive("replaces a session that was not used, and ends it at the upstream", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { multiSession: false } })
      const one = yield* initialize(front.url)
      yield* post(front.url, initialized, one.session)
      yield* post(front.url, request(1, "ping"), one.session)
      const two = yield* initialize(front.url)
      expect(two.answer.status).toBe(200)
      expect(server.requests.at(-2)).toMatchObject({
        method: "DELETE",
        headers: { "mcp-session-id": "up-1" }
      })
      expect((yield* post(front.url, list, one.session)).status).toBe(404)
      expect((yield* post(front.url, list, two.session)).status).toBe(200)
      expect((yield* initialize(front.url)).answer.status).toBe(503)
    })
  )

  it.scopedLive("admits one of many simultaneous initializes at a time", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { multiSession: false } })
      const ids = Array.from({ length: 50 }, (_, id) => id)
      const answers = yield* Effect.forEach(ids, (id) => initialize(front.url, { id }), unbounded)
      const statuses = new Set(answers.map(({ answer }) => answer.status))
      expect(statuses).toEqual(new Set([200, 503]))
      expect(yield* front.health).toMatchObject({ sessions: 1 })
      // Each replaced session was ended.
      expect(server.count("initialize") - server.count("DELETE")).toBe(1)
    })
  )
})

describe("--max-exchanges", () => {
  it.scopedLive("returns 429 until another request of the session is answered", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { maxExchanges: 3 } })
      const { session } = yield* initialize(front.url)
      const other = yield* initialize(front.url)
      const calls = yield* Effect.forEach([1, 2, 3], (id) =>
        Effect.fork(post(front.url, request(id, "hang"), session))
      )
      yield* server.until(() => server.held.length === 3)
      const seen = server.requests.length
      for (const id of [7, "7"]) {
        const answer = yield* post(front.url, request(id, "tools/list"), session)
        expectLimit(answer, "max-exchanges 3", { status: 429, id })
      }
      expectLimit(yield* get(front.url, session), "max-exchanges 3", { status: 429 })
      expect(server.requests).toHaveLength(seen)
      // Each session has its own limit.
      expect((yield* post(front.url, list, other.session)).status).toBe(200)

      const released = server.held.find(({ id }) => id === 2)
      released?.result()
      for (const call of calls.slice(1, 2)) expect((yield* Fiber.join(call)).status).toBe(200)
      expect((yield* post(front.url, list, session)).status).toBe(200)
      const next = yield* Effect.fork(post(front.url, request(4, "hang"), session))
      yield* server.until(() => server.held.length === 4)
      expect((yield* post(front.url, list, session)).status).toBe(429)
      for (const { result } of server.held) if (result !== released?.result) result()
      for (const call of [...calls, next]) expect((yield* Fiber.join(call)).status).toBe(200)
    })
  )

  it.scopedLive("does not count responses and notifications, for which the calls may wait", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { maxExchanges: 2 } })
      const { session } = yield* initialize(front.url)
      const calls = yield* Effect.forEach([1, 2], (id) =>
        Effect.fork(post(front.url, request(id, "hang"), session))
      )
      yield* server.until(() => server.held.length === 2)
      expect((yield* post(front.url, list, session)).status).toBe(429)
      const progress = { jsonrpc: "2.0", method: "notifications/progress", params: {} }
      for (const body of [
        initialized,
        progress,
        { jsonrpc: "2.0", id: 0, result: {} },
        [progress, progress]
      ]) {
        expect((yield* post(front.url, body, session)).status).toBe(202)
      }
      expect((yield* post(front.url, [progress, list], session)).status).toBe(429)
      for (const { result } of server.held) result()
      for (const call of calls) yield* Fiber.join(call)
    })
  )

  it.scopedLive("limits notifications at twice the number", () =>
    Effect.gen(function* () {
      const held: Array<() => void> = []
      const server = yield* makePlainServer({
        "notifications/slow": ({ answer }) => void held.push(() => answer(202))
      })
      const front = yield* startFront(server, { sessions: { maxExchanges: 2 } })
      const { session } = yield* initialize(front.url)
      const slow = { jsonrpc: "2.0", method: "notifications/slow" }
      const posts = yield* Effect.forEach([1, 2, 3, 4], () => Effect.fork(post(front.url, slow, session)))
      yield* server.until(() => held.length === 4)
      expectLimit(yield* post(front.url, slow, session), "max-exchanges 2", { status: 429 })
      for (const answer of held) answer()
      for (const posted of posts) expect((yield* Fiber.join(posted)).status).toBe(202)
      expect((yield* post(front.url, list, session)).status).toBe(200)
    })
  )

  it.scopedLive.each([
    { streams: "kept", maxEvents: 1_000 },
    { streams: "passed on as they are", maxEvents: 0 }
  ])("counts an open stream until its client closes it, with streams that are $streams", ({ maxEvents }) =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        GET: ({ response }) => {
          response.writeHead(200, { "content-type": "text/event-stream" })
          response.flushHeaders()
        }
      })
      const front = yield* startFront(server, { sessions: { maxExchanges: 2 }, events: { maxEvents } })
      const { session } = yield* initialize(front.url)
      const first = yield* stream(front.url, { headers: session })
      expect((yield* post(front.url, list, session)).status).toBe(200)
      const second = yield* stream(front.url, { headers: session })
      expect([first.status, second.status]).toEqual([200, 200])
      expect((yield* post(front.url, list, session)).status).toBe(429)
      yield* second.drop
      yield* front.untilHealth(({ streams }) => streams === 1)
      expect((yield* post(front.url, list, session)).status).toBe(200)
    })
  )

  it.scopedLive("counts the calls of disconnected clients, which the upstream still processes", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { maxExchanges: 1 } })
      const { session } = yield* initialize(front.url)
      const call = yield* Effect.fork(post(front.url, request(1, "hang"), session))
      yield* server.until(() => server.held.length === 1)
      yield* Fiber.interrupt(call)
      yield* front.untilHealth(({ connections }) => connections === 1)
      expect((yield* post(front.url, list, session)).status).toBe(429)
      server.held[0]?.result()
      yield* server.until(() => server.requests[1]?.end === "answered")
      // The proxy may read the response shortly after the server wrote it.
      yield* Effect.repeat(post(front.url, list, session), { until: ({ status }) => status === 200 })
    })
  )
})

describe("--max-stateless", () => {
  it.scopedLive("returns 503 until an exchange is answered or its client disconnects", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { maxStateless: 2 } })
      const legacy = yield* initialize(front.url)
      const calls = yield* Effect.forEach([1, 2], (id) =>
        Effect.fork(post(front.url, request(id, "hang"), modern))
      )
      yield* server.until(() => server.held.length === 2)
      const seen = server.requests.length
      expectLimit(yield* post(front.url, list, modern), "max-stateless 2", { status: 503, id: 7 })
      expect(server.requests).toHaveLength(seen)
      expect((yield* post(front.url, list, legacy.session)).status).toBe(200)

      server.held.find(({ id }) => id === 1)?.result()
      for (const call of calls.slice(0, 1)) expect((yield* Fiber.join(call)).status).toBe(200)
      expect((yield* post(front.url, list, modern)).status).toBe(200)
      const third = yield* Effect.fork(post(front.url, request(3, "hang"), modern))
      yield* server.until(() => server.held.length === 3)
      expect((yield* post(front.url, list, modern)).status).toBe(503)

      // In this revision a disconnect cancels, and releases the place at once.
      yield* Fiber.interrupt(third)
      yield* front.untilHealth(({ stateless }) => stateless === 1)
      expect((yield* post(front.url, list, modern)).status).toBe(200)
    })
  )
})

describe("--max-connections", () => {
  it.scopedLive("returns 503 on a connection over it until another is closed", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { front: { maxConnections: 3 } })
      const { session } = yield* initialize(front.url)
      const sockets = yield* Effect.replicateEffect(connect(front.port), 3)
      // Responses show that the proxy has accepted the connections.
      for (const socket of sockets) yield* socket.write(requestBytes("POST", session, list))
      for (const socket of sockets) expect((yield* socket.answer(0)).status).toBe(200)

      const surplus = yield* connect(front.port)
      yield* surplus.write(requestBytes("POST", session, list))
      expectLimit(yield* surplus.answer(0), "max-connections 3", { status: 503 })
      expect(yield* surplus.closed()).toBe("closed")
      // The others still get responses.
      for (const socket of sockets) yield* socket.write(requestBytes("POST", session, list))
      for (const socket of sockets) expect((yield* socket.answer(1)).status).toBe(200)

      for (const socket of sockets.slice(0, 1)) {
        yield* socket.write(requestBytes("POST", { ...session, connection: "close" }, list))
        yield* socket.closed()
      }
      const next = yield* connect(front.port)
      yield* next.write(requestBytes("POST", session, list))
      expect((yield* next.answer(0)).status).toBe(200)
      expect((yield* post(front.url, list, session)).status).toBe(503)
    })
  )

  it.scopedLive("rejects any number of connections, and serves those below the limit", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { front: { maxConnections: 2 } })
      const held = yield* Effect.replicateEffect(connect(front.port), 2)
      for (const socket of held) yield* socket.write(requestBytes("GET", {}, undefined, "/health"))
      for (const socket of held) expect((yield* socket.answer(0)).status).toBe(200)
      const surplus = yield* Effect.replicateEffect(connect(front.port), 200, unbounded)
      for (const socket of surplus) yield* socket.write(requestBytes("POST", {}, initializeRequest()))
      // A few get an error. The others are closed without one.
      for (const socket of surplus) yield* socket.closed()
      const statuses = new Set(surplus.flatMap((socket) => socket.answers().map(({ status }) => status)))
      expect(statuses).toEqual(new Set([503]))
      expect(server.requests).toHaveLength(0)
      for (const socket of held) yield* socket.write(requestBytes("POST", modern, list))
      for (const socket of held) expect((yield* socket.answer(1)).status).toBe(200)
    })
  )
})

describe("--max-body", () => {
  it.scopedLive("limits each body, and rejects at once by Content-Length", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { front: { maxBody: 2000 } })
      const socket = yield* connect(front.port)
      // The proxy does not wait for the body.
      yield* socket.write(requestBytes("POST", { "content-length": "2001" }))
      expectError(yield* socket.answer(0), { status: 413, code: INVALID, message: /--max-body/ })
      expect((yield* initialize(front.url)).answer.status).toBe(200)
      expect(server.requests).toHaveLength(1)
    })
  )
})

describe("--max-buffered", () => {
  const large = (id: number, bytes: number) => request(id, "hang", { pad: "x".repeat(bytes) })

  it.scopedLive("returns 503 while all bodies together have more bytes", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { front: { maxBuffered: 1_000_000 } })
      const { session } = yield* initialize(front.url)
      const call = yield* Effect.fork(post(front.url, large(1, 600_000), session))
      yield* server.until(() => server.held.length === 1)
      const answer = yield* post(front.url, large(2, 600_000), session)
      expectLimit(answer, "max-buffered 1000000", { status: 503 })
      expect(server.held).toHaveLength(1)
      // Requests below the limit are served, and rejected ones hold no bytes.
      expect((yield* post(front.url, list, session)).status).toBe(200)
      const { bufferedBytes } = yield* front.health
      expect(bufferedBytes).toBeGreaterThan(600_000)
      expect(bufferedBytes).toBeLessThan(601_000)

      server.held[0]?.result()
      expect((yield* Fiber.join(call)).status).toBe(200)
      yield* front.untilHealth((health) => health.bufferedBytes === 0)
      const again = yield* Effect.fork(post(front.url, large(3, 600_000), session))
      yield* server.until(() => server.held.length === 2)
      server.held[1]?.result()
      expect((yield* Fiber.join(again)).status).toBe(200)
    })
  )

  it.scopedLive("counts incomplete bodies", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { front: { maxBuffered: 1_000_000 } })
      const half = requestBytes("POST", { "content-length": "280001" }) + "x".repeat(280_000)
      const sockets = yield* Effect.replicateEffect(connect(front.port), 3)
      for (const [n, socket] of sockets.entries()) {
        yield* socket.write(half)
        yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes === (n + 1) * 280_000)
      }
      const fourth = yield* connect(front.port)
      yield* fourth.write(half)
      expectLimit(yield* fourth.answer(0), "max-buffered 1000000", { status: 503 })
      yield* fourth.destroy
      yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes === 840_000)
      // The last part is reserved for small bodies.
      expect((yield* initialize(front.url)).answer.status).toBe(200)
      for (const socket of sockets) yield* socket.destroy
      yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes === 0)
      expect((yield* initialize(front.url)).answer.status).toBe(200)
    })
  )
})

describe("the bytes of a request", () => {
  it.scopedLive("count until the upstream has answered, even if the client disconnects", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const call = yield* Effect.fork(
        post(front.url, request(1, "hang", { pad: "x".repeat(100_000) }), session)
      )
      yield* server.until(() => server.held.length === 1)
      yield* Fiber.interrupt(call)
      yield* front.untilHealth(({ connections }) => connections === 1)
      expect((yield* front.health).bufferedBytes).toBeGreaterThan(100_000)
      server.held[0]?.result()
      yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes === 0)
    })
  )
})

describe("requests within the limits cost the proxy little", () => {
  it.scopedLive("a body in chunks of one byte needs little more memory than its bytes", () =>
    Effect.gen(function* () {
      const front = yield* startFront(yield* makePlainServer())
      const socket = yield* connect(front.port)
      yield* socket.write(requestBytes("POST", { "transfer-encoding": "chunked" }))
      const before = yield* heapAfterGc
      const chunks = Buffer.from("1\r\nx\r\n".repeat(10_000))
      for (let n = 0; n < 20; n++) yield* socket.write(chunks)
      yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes >= 200_000)
      const held = (yield* heapAfterGc) - before
      expect(held).toBeLessThan(10 * 2 ** 20)
    })
  )

  it.scopedLive("a batch has at most 256 messages, because each costs more than its bytes", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      // Requests and their cancellations. Each cancellation searches for its request.
      const batch = (size: number) =>
        Array.from({ length: size }, (_, n) =>
          n < size / 2
            ? request(n, "m")
            : { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: size - n } }
        )
      expect((yield* post(front.url, batch(256), session)).status).toBe(202)
      for (const size of [257, 30_000]) {
        expectError(yield* post(front.url, batch(size), session), {
          status: 400,
          code: INVALID,
          message: /256/
        })
      }
      expect(server.requests).toHaveLength(2)
    })
  )

  it.scopedLive("initialize has at most 64 KiB, because the session keeps it", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const padded = (length: number) => {
        const shortest = JSON.stringify(initializeRequest({ id: "i", clientInfo: { pad: "" } }))
        return initialize(front.url, { id: "i", clientInfo: { pad: "x".repeat(length - shortest.length) } })
      }
      expect((yield* padded(65_536)).answer.status).toBe(200)
      expectError((yield* padded(65_537)).answer, { status: 413, code: INVALID, id: "i", message: /64 KiB/ })
      expect(server.requests).toHaveLength(1)
    })
  )

  it.scopedLive("deeply nested JSON is rejected or relayed without a stack overflow", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const deep = "[".repeat(100_000) + "]".repeat(100_000)
      expectError(yield* post(front.url, "[".repeat(200_000), session), { status: 400, code: NOT_JSON })
      expectError(yield* post(front.url, deep, session), { status: 400, code: INVALID })
      const body = `{"jsonrpc":"2.0","id":7,"method":"m","params":{"a":${deep}}}`
      expect((yield* post(front.url, body, session)).status).toBe(200)
      expect((yield* server.request(1)).body).toBe(body)
    })
  )
})
