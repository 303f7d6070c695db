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

// Clients that open a trial session, drop their connections and reconnect.

describe("mcp-remote", () => {
  it.scopedLive("works through the proxy with a trial session besides the session that it uses", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server)
      const client = yield* connectMcpRemote(proxy.url, { sample: (prompt) => `sampled ${prompt}` })
      expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
      expect(yield* client.call("sample", { prompt: "p" })).toBe("sampled p")
      expect(server.counts.initialize).toBe(2)
      expect(yield* proxy.health).toMatchObject({ sessions: 2 })
    })
  )

  it.scopedLive("works in single-session mode: the session that it uses replaces its trial session", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server, [])
      const client = yield* connectMcpRemote(proxy.url, { sample: (prompt) => `sampled ${prompt}` })
      expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
      expect(yield* client.call("sample", { prompt: "p" })).toBe("sampled p")
      expect(server.counts).toMatchObject({ initialize: 2, delete: 1 })
      expect(server.sessions()).toHaveLength(1)
      expect(yield* proxy.health).toMatchObject({ sessions: 1 })
      // The session is in use now, so a new client cannot replace it.
      expect((yield* initialize(proxy.url)).answer).toMatchObject({
        status: 503,
        text: expect.stringContaining("--multi-session")
      })
    })
  )
})

/** With these options, the proxy stores no events and forwards streams unchanged. */
const untracked = ["--multi-session", "--max-events", "0"]

describe("a client that drops its GET stream", () => {
  for (const options of [{ eventStore: false }, { eventStore: true }]) {
    const ids = options.eventStore ? "with" : "without"
    it.scopedLive(
      `keeps the upstream's stream, and resumes after its last event, ${ids} upstream event ids`,
      () =>
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
            // From the second round on, the event that arrived while no stream was open comes first.
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

  it.scopedLive("may open several, and the newest gets each message, while the upstream has one", () =>
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

describe("a client that drops its GET stream, if no events are stored", () => {
  for (const options of [{ eventStore: false }, { eventStore: true }]) {
    it.scopedLive(
      `closes the upstream's stream, and opens a new one, ${options.eventStore ? "with" : "without"} event ids`,
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
            // The server rejects a second standalone stream of a session.
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

  it.scopedLive("resumes after the last event that it received, if events have ids", () =>
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

/** Waits until a number has not changed for 250 ms, because a stall has no event. */
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
    it.scopedLive(`gets the response when it resumes the stream, ${ids} upstream event ids`, () =>
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
    "closes the upstream's stream and resumes it there, if events have ids and none are stored",
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
        // A dropped connection does not cancel the call.
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
      `does not cancel it upstream, if the response is ${options.json ? "JSON" : "a stream without event ids"}`,
      () =>
        Effect.gen(function* () {
          const server = yield* makeLegacyServer(options)
          const proxy = yield* startProxy(server, ["--multi-session", "--max-exchanges", "1"])
          const { session } = yield* initialize(proxy.url)
          yield* post(proxy.url, initialized, session)
          const call = yield* Effect.fork(post(proxy.url, callTool(1, "wait", { until: "go" }), session))
          yield* server.until(() => server.pending().length === 1)
          yield* Fiber.interrupt(call)
          // Only the connection of the health check is left, so the proxy has noticed the disconnect.
          yield* proxy.untilHealth(({ connections }) => connections === 1)
          // The call still runs at the upstream, and counts against the limit.
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
    it.scopedLive(`by closing the client (SDK ${line}) keeps its session`, () =>
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

  it.scopedLive("does not cancel it upstream while it does not read", () =>
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

describe("a client that disconnects before its session is open", () => {
  it.scopedLive("leaves no session behind in the proxy and in the upstream", () =>
    Effect.gen(function* () {
      const opening: Array<Call> = []
      const server = yield* makePlainServer({ initialize: (call) => opening.push(call) })
      const proxy = yield* startProxy(server)
      const leaving = yield* Effect.fork(post(proxy.url, initializeRequest()))
      yield* server.until(() => opening.length === 1)
      yield* Fiber.interrupt(leaving)
      yield* proxy.untilHealth(({ connections }) => connections === 1)
      // `initialize` is never cancelled: the session that it opens is ended with a DELETE.
      expect(server.requests).toHaveLength(1)
      expect(server.requests[0]?.end).toBeUndefined()
      opening[0]?.result(initializeResult, { "mcp-session-id": "late" })
      yield* server.until(() => server.requests.length === 2)
      expect(server.requests[1]).toMatchObject({ method: "DELETE", headers: { "mcp-session-id": "late" } })
      expect(yield* proxy.untilHealth(({ sessions }) => sessions === 0)).toMatchObject({ status: "ok" })
    })
  )
})
