import { describe, expect, it, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Changes } from "../fixtures/Changes.js"
import { makeFaults } from "../fixtures/Faults.js"
import { startFront } from "../fixtures/Front.js"
import { type LegacyServer, makeLegacyServer } from "../fixtures/LegacyServer.js"
import { makeModernServer } from "../fixtures/ModernServer.js"
import { type Proxy, startProxy } from "../fixtures/Proxy.js"
import {
  callTool,
  get,
  type Headers,
  initialize,
  initialized,
  type InitializeOverrides,
  post,
  type RawStream,
  request,
  stream
} from "../fixtures/RawClient.js"
import { expectError, INVALID } from "../fixtures/RpcError.js"
import { silent, Telemetry } from "../../src/Telemetry.js"

// The ids of events, and clients that resume a stream with them.

class Rig extends Context.Tag("test/Rig")<Rig, { readonly server: LegacyServer; readonly proxy: Proxy }>() {}

const open = (url: string, overrides: InitializeOverrides = {}) =>
  Effect.gen(function* () {
    const { session } = yield* initialize(url, overrides)
    yield* post(url, initialized, session)
    return session
  })

const call = (url: string, session: Headers, body: object) =>
  stream(url, { method: "POST", headers: session, body })

const resume = (url: string, session: Headers, id: string) =>
  stream(url, { headers: { ...session, "last-event-id": id } })

/** The id of the n-th event received, counted from 0, or from the end if negative. */
const idAt = ({ events }: RawStream, n: number): string => events.at(n)?.id ?? "none"

const callProgress = (id: number, steps: number, until?: string) =>
  request(id, "tools/call", {
    name: "progress",
    arguments: { steps, until },
    _meta: { progressToken: id }
  })

const listChanged = { method: "notifications/tools/list_changed" }

layer(
  Layer.scoped(
    Rig,
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      return { server, proxy: yield* startProxy(server) }
    })
  ),
  { excludeTestServices: true }
)("a client that resumes a stream", (it) => {
  it.scoped("gets 400 for an id that its session never issued, and keeps its session", () =>
    Effect.gen(function* () {
      const { proxy } = yield* Rig
      const session = yield* open(proxy.url)
      const other = yield* open(proxy.url)
      const foreign = yield* call(proxy.url, other, callTool(1, "echo", { text: "hi" }))
      yield* foreign.end
      const own = yield* call(proxy.url, session, callTool(1, "echo", { text: "hi" }))
      yield* own.end
      const [, epoch = ""] = /^([^.]+\.[^.]+)\./.exec(idAt(own, 0)) ?? []
      for (const id of [
        idAt(foreign, 0),
        idAt(foreign, 1),
        "",
        "1",
        "e0",
        "..",
        `${epoch}.1`,
        `${epoch}.1.01`,
        `${epoch}.1.-1`,
        `${epoch}.zz.1`,
        `${epoch}.2.99`,
        "x".repeat(5_000)
      ]) {
        const refused = yield* get(proxy.url, { ...session, "last-event-id": id })
        expectError(refused, { status: 400, code: INVALID, message: /event/i })
      }
      expect((yield* post(proxy.url, request(2, "ping"), session)).status).toBe(200)
    })
  )

  it.scoped("gets 405 after the last event of a complete stream", () =>
    Effect.gen(function* () {
      const { proxy } = yield* Rig
      const session = yield* open(proxy.url)
      const answer = yield* call(proxy.url, session, callTool(1, "echo", { text: "hi" }))
      expect(yield* answer.end).toBe("ended")
      const again = yield* get(proxy.url, { ...session, "last-event-id": idAt(answer, -1) })
      expect(again.status).toBe(405)
    })
  )

  it.scoped("gets the missed events of a stream that has ended, each time that it resumes", () =>
    Effect.gen(function* () {
      const { proxy } = yield* Rig
      const session = yield* open(proxy.url)
      const answer = yield* call(proxy.url, session, callProgress(1, 3))
      yield* answer.end
      const missed = answer.events.slice(2)
      expect(missed).toHaveLength(3)
      for (const _ of [1, 2]) {
        const again = yield* resume(proxy.url, session, idAt(answer, 1))
        expect(again.status).toBe(200)
        expect(yield* again.end).toBe("ended")
        expect(again.events).toEqual(missed)
      }
    })
  )

  it.scoped("gets the response that arrived while it was disconnected", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Rig
      const session = yield* open(proxy.url)
      const answer = yield* call(proxy.url, session, callTool(1, "wait", { until: "away" }))
      yield* answer.event(0)
      yield* answer.drop
      yield* server.release("away")
      yield* server.until(() => server.counts.posts === 0)
      const back = yield* resume(proxy.url, session, idAt(answer, 0))
      expect(yield* back.end).toBe("ended")
      expect(back.messages()).toMatchObject([{ id: 1, result: { content: [{ text: "released away" }] } }])
    })
  )

  it.scoped("replaces its earlier connection, also one that is dead", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Rig
      const faults = yield* makeFaults(proxy)
      const session = yield* open(proxy.url)
      const answer = yield* call(faults.url, session, callProgress(1, 3, "taken"))
      yield* answer.event(3)
      yield* faults.swallow
      const back = yield* resume(proxy.url, session, idAt(answer, 1))
      yield* back.event(1)
      const newest = yield* resume(proxy.url, session, idAt(answer, 2))
      expect(yield* back.end).toBe("ended")
      yield* server.release("taken")
      expect(yield* newest.end).toBe("ended")
      expect(back.messages()).toMatchObject([{ params: { progress: 2 } }, { params: { progress: 3 } }])
      expect(newest.messages()).toMatchObject([{ params: { progress: 3 } }, { id: 1 }])
      expect(answer.messages()).toHaveLength(3)
    })
  )

  it.scoped("gets the missed and the later messages of its standalone stream", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Rig
      const session = yield* open(proxy.url)
      const listening = yield* stream(proxy.url, { headers: session })
      yield* listening.event(0)
      yield* listening.drop
      yield* post(proxy.url, callTool(1, "bump"), session)
      yield* post(proxy.url, callTool(2, "bump"), session)
      const back = yield* resume(proxy.url, session, idAt(listening, 0))
      yield* back.event(1)
      yield* post(proxy.url, callTool(3, "bump"), session)
      yield* back.event(2)
      const once = yield* resume(proxy.url, session, idAt(back, 1))
      yield* once.event(0)
      expect(once.events).toEqual(back.events.slice(2))
      expect(back.messages()).toMatchObject([listChanged, listChanged, listChanged])
      expect(new Set(back.events.map(({ id }) => id)).size).toBe(3)
      expect(server.errors).toEqual([])
    })
  )

  it.scoped("gets no event of another stream", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Rig
      const session = yield* open(proxy.url)
      const listening = yield* stream(proxy.url, { headers: session })
      const one = yield* call(proxy.url, session, callProgress(1, 2, "apart"))
      const two = yield* call(proxy.url, session, callProgress(2, 2, "apart"))
      for (const answer of [one, two]) yield* answer.event(2)
      yield* listening.event(0)
      for (const each of [one, two, listening]) yield* each.drop
      yield* post(proxy.url, callTool(3, "bump"), session)
      yield* server.release("apart")
      const received: Array<ReadonlyArray<unknown>> = []
      for (const each of [one, two]) {
        const back = yield* resume(proxy.url, session, idAt(each, 1))
        yield* back.end
        received.push(back.messages())
      }
      expect(received).toMatchObject([
        [{ params: { progressToken: 1, progress: 2 } }, { id: 1 }],
        [{ params: { progressToken: 2, progress: 2 } }, { id: 2 }]
      ])
      const back = yield* resume(proxy.url, session, idAt(listening, 0))
      yield* back.event(0)
      expect(back.messages()).toMatchObject([listChanged])
    })
  )
})

describe("several standalone streams", () => {
  it.scopedLive("are open at once, and only the newest gets a message", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server)
      const session = yield* open(proxy.url)
      const streams: Array<RawStream> = []
      for (const _ of [1, 2, 3]) {
        const listening = yield* stream(proxy.url, { headers: session })
        yield* listening.event(0)
        streams.push(listening)
      }
      const bump = (id: number) => post(proxy.url, callTool(id, "bump"), session)
      yield* bump(1)
      const [oldest, middle, newest] = streams
      if (oldest === undefined || middle === undefined || newest === undefined) throw new Error("no streams")
      yield* newest.event(1)
      yield* newest.drop
      yield* proxy.untilHealth(({ connections }) => connections === 3)
      yield* bump(2)
      yield* middle.event(1)
      expect(streams.map((each) => each.messages().length)).toEqual([0, 1, 1])
      expect(server.counts.getStreams).toBe(1)
    })
  )
})

describe("event ids", () => {
  it.scopedLive.each(["2025-03-26", "2025-06-18", "2025-11-25"])(
    "come first on a stream, with the retry time, from 2025-11-25 on: %s",
    (protocolVersion) =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer()
        const front = yield* startFront(server)
        const session = yield* open(front.url, { protocolVersion })
        const answer = yield* call(front.url, session, callTool(1, "log", { text: "note" }))
        yield* answer.end
        const isPrimed = protocolVersion === "2025-11-25"
        expect(answer.events.map(({ data, retry }) => [data === "", retry])).toEqual([
          ...(isPrimed ? [[true, "3000"]] : []),
          [false, undefined],
          [false, undefined]
        ])
        const ids = answer.events.map(({ id }) => id)
        expect(ids.every((id) => id !== undefined && id !== "")).toBe(true)
        expect(new Set(ids).size).toBe(ids.length)
        const listening = yield* stream(front.url, { headers: session })
        yield* post(front.url, callTool(2, "bump"), session)
        yield* listening.until(() => listening.messages().length === 1)
        expect(listening.events).toHaveLength(isPrimed ? 2 : 1)
        // Older clients can resume too.
        const back = yield* resume(front.url, session, idAt(answer, -2))
        yield* back.end
        expect(back.messages()).toMatchObject([{ id: 1 }])
      })
  )

  it.scopedLive("are those of the upstream if no events are stored", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ eventStore: true, retry: 70 })
      const front = yield* startFront(server, { events: { maxEvents: 0 } })
      const texts: Array<string> = []
      for (const url of [server.url, front.url]) {
        const session = yield* open(url)
        const answer = yield* call(url, session, callProgress(1, 3))
        yield* answer.end
        texts.push(answer.text().replaceAll(/[0-9a-f-]{36}/g, ""))
      }
      expect(texts[1]).toBe(texts[0])
      expect(texts[1]).toContain("retry: 70")
    })
  )

  it.scopedLive("are not sent without a session", () =>
    Effect.gen(function* () {
      const server = yield* makeModernServer()
      const front = yield* startFront(server)
      const meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { name: "raw-client", version: "1.0.0" },
        "io.modelcontextprotocol/clientCapabilities": {},
        progressToken: 1
      }
      const body = request(1, "tools/call", { name: "progress", arguments: { steps: 3 }, _meta: meta })
      const headers = {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "progress"
      }
      const answer = yield* call(front.url, headers, body)
      yield* answer.end
      expect(answer.messages()).toHaveLength(4)
      expect(answer.events.map(({ id, retry }) => [id, retry])).toEqual(
        answer.events.map(() => [undefined, undefined])
      )
    })
  )
})

describe("a stream with evicted events", () => {
  it.scopedLive("ends with an error once, and then gets 405", () =>
    Effect.gen(function* () {
      const changes = new Changes()
      let evicted = 0
      const telemetry = {
        ...silent,
        eventsEvicted: (events: number) => {
          evicted += events
          changes.notify()
        }
      }
      const server = yield* makeLegacyServer()
      const front = yield* Effect.provideService(
        startFront(server, { events: { maxEvents: 5 } }),
        Telemetry,
        telemetry
      )
      const session = yield* open(front.url)
      const answer = yield* call(front.url, session, callTool(1, "wait", { until: "begun" }))
      yield* answer.event(0)
      yield* answer.drop
      const other = yield* call(front.url, session, callProgress(2, 20))
      expect(yield* other.end).toBe("ended")
      yield* server.release("begun")
      const many = yield* call(front.url, session, callProgress(3, 20))
      yield* many.end
      yield* changes.until(
        () => evicted >= 30,
        () => String(evicted)
      )
      const back = yield* resume(front.url, session, idAt(answer, 0))
      expect(back.status).toBe(200)
      expect(yield* back.end).toBe("ended")
      expect(back.messages()).toMatchObject([{ id: 1, error: { message: expect.stringMatching(/./) } }])
      const again = yield* get(front.url, { ...session, "last-event-id": idAt(answer, 0) })
      expect(again.status).toBe(405)
      expect((yield* post(front.url, request(4, "ping"), session)).status).toBe(200)
    })
  )
})

describe("a silent stream", () => {
  it.scopedLive("gets keep-alive comments: a standalone stream, a call, and a resumed call", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const front = yield* startFront(server, { sessions: { keepAlive: "50 millis" } })
      const session = yield* open(front.url)
      const listening = yield* stream(front.url, { headers: session })
      const answer = yield* call(front.url, session, callTool(1, "wait", { until: "silent" }))
      for (const each of [listening, answer]) yield* each.until(() => each.comments.length >= 2)
      yield* answer.drop
      const back = yield* resume(front.url, session, idAt(answer, 0))
      yield* back.until(() => back.comments.length >= 2)
      expect(back.messages()).toEqual([])
      yield* server.release("silent")
      yield* back.end
      expect(back.messages()).toMatchObject([{ id: 1 }])
    })
  )
})

describe("a client that vanishes", () => {
  it.scopedLive("is detected by keep-alive comments, and its session times out", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const front = yield* startFront(server, {
        sessions: { keepAlive: "50 millis", sessionTimeout: "1 second", cleanupInterval: "100 millis" }
      })
      const faults = yield* makeFaults(front)
      const session = yield* open(front.url)
      const listening = yield* stream(faults.url, { headers: session })
      yield* listening.event(0)
      yield* faults.vanish
      yield* faults.until(() => faults.open() === 0)
      yield* server.until(() => server.sessions().length === 0)
    })
  )
})

describe("a cancelled call", () => {
  it.scopedLive("ends within five seconds, with its client connected or not", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const front = yield* startFront(server)
      const session = yield* open(front.url)
      const cancel = (requestId: number) =>
        post(front.url, { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId } }, session)
      const connected = yield* call(front.url, session, callTool(1, "hang"))
      const disconnected = yield* call(front.url, session, callTool(2, "hang"))
      for (const each of [connected, disconnected]) yield* each.event(0)
      yield* disconnected.drop
      yield* server.until(() => server.pending().length === 2)
      const before = performance.now()
      expect((yield* cancel(1)).status).toBe(202)
      expect((yield* cancel(2)).status).toBe(202)
      yield* server.until(() => server.cancellations.length === 2)
      expect(yield* connected.end).toBe("ended")
      yield* server.until(() => server.counts.posts === 0)
      // The proxy checks once a second.
      expect(performance.now() - before).toBeLessThan(6_500)
      const back = yield* get(front.url, { ...session, "last-event-id": idAt(disconnected, 0) })
      expect(back.status).toBe(405)
      expect(connected.messages()).toEqual([])
    })
  )
})

describe("a response that arrives after its client has vanished", () => {
  it.scopedLive("is stored until the client resumes the stream", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const front = yield* startFront(server)
      const faults = yield* makeFaults(front)
      const session = yield* open(front.url)
      const answer = yield* call(faults.url, session, callTool(1, "wait", { until: "gone" }))
      yield* answer.event(0)
      yield* faults.swallow
      yield* server.release("gone")
      yield* faults.until(() => faults.swallowed().includes("released gone"))
      const back = yield* resume(front.url, session, idAt(answer, 0))
      yield* back.end
      expect(back.messages()).toMatchObject([{ id: 1, result: { content: [{ text: "released gone" }] } }])
    })
  )
})
