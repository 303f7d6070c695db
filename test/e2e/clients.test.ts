import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { officialClients } from "../fixtures/Clients.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import { connectMcpRemote } from "../fixtures/McpRemote.js"
import { type Call, initializeResult, makePlainServer } from "../fixtures/PlainServer.js"
import { startProxy } from "../fixtures/Proxy.js"
import {
  callTool,
  get,
  initialize,
  initialized,
  initializeRequest,
  messages,
  post,
  request,
  stream
} from "../fixtures/RawClient.js"
import { connect as connectSocket, requestBytes } from "../fixtures/RawSocket.js"

// What clients do besides asking: they try a server out, drop their connections, come back.

/** mcp-remote takes long to start where the machine is busy. */
const slow = 20_000

describe("mcp-remote", () => {
  it.scopedLive(
    "works through the proxy, its trial session beside the one that it uses",
    () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer()
        const proxy = yield* startProxy(server)
        const client = yield* connectMcpRemote(proxy.url, { sample: (prompt) => `sampled ${prompt}` })
        expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
        expect(yield* client.call("sample", { prompt: "p" })).toBe("sampled p")
        expect(server.counts.initialize).toBe(2)
        expect(yield* proxy.health).toMatchObject({ sessions: 2 })
      }),
    slow
  )

  it.scopedLive(
    "works in single-session mode: the session that it uses takes the place of its trial session",
    () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer()
        const proxy = yield* startProxy(server, [])
        const client = yield* connectMcpRemote(proxy.url, { sample: (prompt) => `sampled ${prompt}` })
        expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
        expect(yield* client.call("sample", { prompt: "p" })).toBe("sampled p")
        expect(server.counts).toMatchObject({ initialize: 2, delete: 1 })
        expect(server.sessions()).toHaveLength(1)
        expect(yield* proxy.health).toMatchObject({ sessions: 1 })
        // It is in use now, and mcp-remote never ends it: nobody else gets its place.
        expect((yield* initialize(proxy.url)).answer).toMatchObject({
          status: 503,
          text: expect.stringContaining("--multi-session")
        })
      }),
    slow
  )
})

/** Streams are passed on as they are. */
const untracked = ["--multi-session", "--max-events", "0"]

describe("a client that drops its GET stream", () => {
  for (const options of [{ eventStore: false }, { eventStore: true }]) {
    const ids = options.eventStore ? "with" : "without"
    it.scopedLive(`leaves the upstream's as it is, and goes on where it was, ${ids} event ids there`, () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer(options)
        const proxy = yield* startProxy(server)
        const { session } = yield* initialize(proxy.url)
        yield* post(proxy.url, initialized, session)
        let last: string | undefined
        for (let round = 1; round <= 3; round++) {
          const listening = yield* stream(proxy.url, { headers: { ...session, "last-event-id": last } })
          expect(listening.status).toBe(200)
          yield* server.until(() => server.counts.getStreams === 1)
          yield* post(proxy.url, callTool(2 * round, "bump"), session)
          // What came live, behind what came while nobody was there.
          const expected = round === 1 ? 1 : 2
          yield* listening.until(() => listening.messages().length === expected)
          last = listening.events.at(-1)?.id
          yield* listening.drop
          yield* proxy.untilHealth(({ streams }) => streams === 0)
          yield* post(proxy.url, callTool(2 * round + 1, "bump"), session)
          expect(listening.messages()).toHaveLength(expected)
          expect(server.counts.getStreams).toBe(1)
        }
        expect(server.sessions()).toHaveLength(1)
      })
    )
  }

  it.scopedLive(
    "may have several, though the server has one for a session: the newest gets each message",
    () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer()
        const proxy = yield* startProxy(server)
        const { session } = yield* initialize(proxy.url)
        yield* post(proxy.url, initialized, session)
        const older = yield* stream(proxy.url, { headers: session })
        const newer = yield* stream(proxy.url, { headers: session })
        expect([older.status, newer.status]).toEqual([200, 200])
        yield* post(proxy.url, callTool(1, "bump"), session)
        yield* newer.until(() => newer.messages().length === 1)
        yield* newer.drop
        yield* proxy.untilHealth(({ streams }) => streams === 1)
        yield* post(proxy.url, callTool(2, "bump"), session)
        yield* older.until(() => older.messages().length === 1)
        expect(newer.messages()).toHaveLength(1)
        expect(server.counts.getStreams).toBe(1)
      })
  )
})

describe("a client that drops its GET stream where none is kept", () => {
  for (const options of [{ eventStore: false }, { eventStore: true }]) {
    it.scopedLive(
      `frees the upstream's, and opens a new one, ${options.eventStore ? "with" : "without"} event ids`,
      () =>
        Effect.gen(function* () {
          const server = yield* makeLegacyServer(options)
          const proxy = yield* startProxy(server, untracked)
          const { session } = yield* initialize(proxy.url)
          yield* post(proxy.url, initialized, session)
          for (let round = 1; round <= 3; round++) {
            const listening = yield* stream(proxy.url, { headers: session })
            expect(listening.status).toBe(200)
            yield* server.until(() => server.counts.getStreams === 1)
            // The server has one standalone stream for a session, and says so itself.
            expect((yield* get(proxy.url, session)).status).toBe(409)
            yield* post(proxy.url, callTool(round, "bump"), session)
            yield* listening.until(() => listening.messages().length === 1)
            yield* listening.drop
            yield* server.until(() => server.counts.getStreams === 0)
          }
          expect(server.sessions()).toHaveLength(1)
        })
    )
  }

  it.scopedLive("reads on behind the last event that it has seen, if events have ids", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ eventStore: true })
      const proxy = yield* startProxy(server, untracked)
      const { session } = yield* initialize(proxy.url)
      yield* post(proxy.url, initialized, session)
      const listening = yield* stream(proxy.url, { headers: session })
      yield* server.until(() => server.counts.getStreams === 1)
      yield* post(proxy.url, callTool(1, "bump"), session)
      yield* listening.until(() => listening.messages().length === 1)
      const last = listening.events.at(-1)?.id
      yield* listening.drop
      yield* server.until(() => server.counts.getStreams === 0)
      yield* post(proxy.url, callTool(2, "bump"), session)
      const again = yield* stream(proxy.url, { headers: { ...session, "last-event-id": last } })
      yield* again.until(() => again.messages().length === 1)
      expect(again.messages()).toMatchObject([{ method: "notifications/tools/list_changed" }])
    })
  )
})

/** Completes when a number has stood still for a while: there is no event for what does not happen. */
const stalled = (bytes: () => number) =>
  Effect.async<void>((resume) => {
    let before = -1
    const timer = setInterval(() => {
      const now = bytes()
      if (now === before) {
        clearInterval(timer)
        resume(Effect.void)
      }
      before = now
    }, 250)
    return Effect.sync(() => clearInterval(timer))
  })

describe("a client that drops a call", () => {
  for (const options of [{ eventStore: false }, { eventStore: true }]) {
    const ids = options.eventStore ? "with" : "without"
    it.scopedLive(`has it finished upstream, and gets the answer at its return, ${ids} event ids there`, () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer(options)
        const proxy = yield* startProxy(server)
        const { session } = yield* initialize(proxy.url)
        yield* post(proxy.url, initialized, session)
        const body = callTool(1, "wait", { until: "go" })
        const call = yield* stream(proxy.url, { method: "POST", headers: session, body })
        const { id } = yield* call.event(0)
        yield* server.until(() => server.pending().length === 1)
        yield* call.drop
        yield* proxy.untilHealth(({ connections }) => connections === 1)
        yield* server.release("go")
        yield* server.until(() => server.counts.posts === 0)
        const upstream = server.requests.find((sent) => sent.body.includes(`"wait"`))
        expect(upstream).toMatchObject({ status: 200, end: "answered" })
        const resumed = yield* stream(proxy.url, { headers: { ...session, "last-event-id": id } })
        expect(yield* resumed.end).toBe("ended")
        expect(resumed.messages()).toMatchObject([{ id: 1, result: { content: [{ text: "released go" }] } }])
        expect(server.cancellations).toEqual([])
      })
    )
  }

  it.scopedLive(
    "with event ids is given up upstream, where it resumes the call, if no streams are kept",
    () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer({ eventStore: true })
        const proxy = yield* startProxy(server, untracked)
        const { session } = yield* initialize(proxy.url)
        yield* post(proxy.url, initialized, session)
        const body = callTool(1, "wait", { until: "go" })
        const call = yield* stream(proxy.url, { method: "POST", headers: session, body })
        const { id } = yield* call.event(0)
        yield* server.until(() => server.pending().length === 1)
        yield* call.drop
        yield* server.until(() => server.counts.posts === 0)
        expect(server.requests.find((sent) => sent.body.includes(`"wait"`))).toMatchObject({ end: "dropped" })
        // A dropped connection is not a cancel.
        expect(server.pending()).toHaveLength(1)
        yield* server.release("go")
        const resumed = yield* stream(proxy.url, { headers: { ...session, "last-event-id": id } })
        yield* resumed.until(() => resumed.messages().length === 1)
        expect(resumed.messages()).toMatchObject([{ id: 1, result: { content: [{ text: "released go" }] } }])
        expect(server.cancellations).toEqual([])
      })
  )

  for (const options of [{ json: false }, { json: true }]) {
    it.scopedLive(
      `without event ids has it finished upstream, and not cancelled, be it ${options.json ? "JSON" : "a stream"}`,
      () =>
        Effect.gen(function* () {
          const server = yield* makeLegacyServer(options)
          const proxy = yield* startProxy(server, ["--multi-session", "--max-exchanges", "1"])
          const { session } = yield* initialize(proxy.url)
          yield* post(proxy.url, initialized, session)
          const call = yield* Effect.fork(post(proxy.url, callTool(1, "wait", { until: "go" }), session))
          yield* server.until(() => server.pending().length === 1)
          yield* Fiber.interrupt(call)
          // The one that asks is the only connection left: by now the proxy knows.
          yield* proxy.untilHealth(({ connections }) => connections === 1)
          // Nobody waits for the call any more, but it still runs, and keeps its place.
          expect((yield* post(proxy.url, callTool(2, "echo", { text: "hi" }), session)).status).toBe(429)
          yield* server.release("go")
          const upstream = server.requests.find((sent) => sent.body.includes(`"wait"`))
          yield* server.until(() => upstream?.end !== undefined)
          expect(upstream).toMatchObject({ status: 200, end: "answered" })
          expect(server.cancellations).toEqual([])
          const next = yield* post(proxy.url, callTool(3, "echo", { text: "hi" }), session)
          expect(messages(next)).toMatchObject([{ id: 3, result: { content: [{ text: "hi" }] } }])
        })
    )
  }

  for (const [line, connect] of officialClients) {
    it.scopedLive(`by closing itself (SDK ${line}) leaves its session as it is`, () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer()
        const proxy = yield* startProxy(server)
        const client = yield* connect(proxy.url, { terminate: false })
        yield* server.until(() => server.counts.getStreams === 1)
        const session = { "mcp-session-id": client.sessionId() }
        const call = yield* Effect.fork(Effect.exit(client.call("wait", { until: "go" })))
        yield* server.until(() => server.pending().length === 1)
        yield* client.close
        yield* Fiber.join(call)
        yield* proxy.untilHealth(({ streams }) => streams === 0)
        yield* server.release("go")
        yield* server.until(() => server.counts.posts === 0)
        const upstream = server.requests.find((sent) => sent.body.includes(`"wait"`))
        expect(upstream).toMatchObject({ end: "answered" })
        expect(server.cancellations).toEqual([])
        expect((yield* post(proxy.url, request(99, "ping"), session)).status).toBe(200)
      })
    )
  }

  it.scopedLive("while it does not read has it finished upstream, too", () =>
    Effect.gen(function* () {
      const calls: Array<Call> = []
      const text = "x".repeat(32 * 1024 * 1024)
      const server = yield* makePlainServer({
        "test/long": (call) => {
          calls.push(call)
          call.result({ text })
        }
      })
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      yield* server.clearRequests
      yield* Effect.scoped(
        Effect.gen(function* () {
          const socket = yield* connectSocket(proxy.port)
          yield* socket.pause
          yield* socket.write(requestBytes("POST", session, request(1, "test/long")))
          yield* server.request(0)
          yield* stalled(() => calls[0]?.request.socket.bytesWritten ?? 0)
          expect(server.requests[0]?.end).toBeUndefined()
        })
      )
      yield* server.until(() => server.requests[0]?.end !== undefined)
      expect(server.requests[0]).toMatchObject({ end: "answered" })
    })
  )
})

describe("a client that goes before its session is open", () => {
  it.scopedLive("leaves no session behind, here or upstream", () =>
    Effect.gen(function* () {
      const opening: Array<Call> = []
      const server = yield* makePlainServer({ initialize: (call) => opening.push(call) })
      const proxy = yield* startProxy(server)
      const leaving = yield* Effect.fork(post(proxy.url, initializeRequest()))
      yield* server.until(() => opening.length === 1)
      yield* Fiber.interrupt(leaving)
      yield* proxy.untilHealth(({ connections }) => connections === 1)
      // `initialize` is never cancelled: what it brings is ended in an orderly way.
      expect(server.requests).toHaveLength(1)
      expect(server.requests[0]?.end).toBeUndefined()
      opening[0]?.result(initializeResult, { "mcp-session-id": "late" })
      yield* server.until(() => server.requests.length === 2)
      expect(server.requests[1]).toMatchObject({ method: "DELETE", headers: { "mcp-session-id": "late" } })
      expect(yield* proxy.untilHealth(({ sessions }) => sessions === 0)).toMatchObject({ status: "ok" })
    })
  )
})
