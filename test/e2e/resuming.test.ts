import { describe, expect, it, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Changes } from "../fixtures/Changes.js"
import { type AnyConnection, officialClients } from "../fixtures/Clients.js"
import { type Faults, makeFaults } from "../fixtures/Faults.js"
import { eventually } from "../fixtures/eventually.js"
import { type LegacyServer, makeLegacyServer } from "../fixtures/LegacyServer.js"
import { startProxy, type Upstream } from "../fixtures/Proxy.js"
import { callTool, post } from "../fixtures/RawClient.js"
import { makeStdioServer } from "../fixtures/StdioServer.js"
import type { ToolServer } from "../fixtures/ToolServer.js"

// The official clients resume broken streams. They miss no message when a connection on either side breaks.

const cuts = 10
const steps = 500

/** Less than a tenth of the bytes of a call's events, so that its connections can be cut ten times. */
const piece = 6_000

const makeResumable = makeLegacyServer({ eventStore: true, retry: 50 })

const servers: ReadonlyArray<readonly [string, Effect.Effect<ToolServer, never, Scope.Scope>]> = [
  ["a server with an EventStore", makeResumable],
  ["a server without one", makeLegacyServer()],
  ["a command", makeStdioServer]
]

/** Starts a proxy with a short retry time, and a faulty network between it and its clients. */
const startBroken = (upstream: Upstream, args: ReadonlyArray<string> = []) =>
  Effect.gen(function* () {
    const proxy = yield* startProxy(upstream, ["--multi-session", "--retry", "50ms", ...args])
    return { proxy, faults: yield* makeFaults(proxy) }
  })

/** Calls a tool that sends many progress notifications, and completes it after all of them have arrived. */
const callLong = (client: AnyConnection, server: ToolServer) =>
  Effect.gen(function* () {
    const changes = new Changes()
    const received: Array<number> = []
    const onProgress = ({ progress }: { readonly progress: number }) => {
      received.push(progress)
      changes.notify()
    }
    const call = yield* Effect.fork(client.call("progress", { steps, until: "received" }, { onProgress }))
    yield* changes.until(
      () => received.length >= steps,
      () => JSON.stringify({ received: received.length, errors: client.errors.map(String) }),
      60_000
    )
    expect(server.pending()).toHaveLength(1)
    yield* server.release("received")
    expect(yield* Fiber.join(call)).toBe(`${steps} steps`)
    expect(received).toEqual(Array.from({ length: steps }, (_, index) => index + 1))
    expectNothingTwice(client)
  })

/** Expects no duplicate response: the clients report responses without a pending request. */
const expectNothingTwice = ({ errors }: AnyConnection) => {
  expect(errors.map(String).filter((error) => /unknown/i.test(error))).toEqual([])
}

const countCalls = (server: ToolServer): number =>
  "url" in server
    ? server.requests.filter(({ body }) => body.includes('"tools/call"')).length
    : server.pending().length

describe.each(officialClients)("client %s", (_, connect) => {
  it.scopedLive.each(servers)(
    "misses no message of %s when its connection is cut ten times during a call",
    ([, make]) =>
      Effect.gen(function* () {
        const server = yield* make
        const { faults } = yield* startBroken(server)
        const client = yield* connect(faults.url)
        yield* faults.cutAfter(piece, cuts)
        yield* callLong(client, server)
        expect(faults.cuts()).toBe(cuts)
        expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
      })
  )

  it.scopedLive("does not notice that the upstream connection is cut ten times during a call", () =>
    Effect.gen(function* () {
      const server = yield* makeResumable
      const behind = yield* makeFaults(server)
      const { faults } = yield* startBroken(behind)
      const client = yield* connect(faults.url)
      yield* behind.cutAfter(piece, cuts)
      yield* callLong(client, server)
      expect(behind.cuts()).toBe(cuts)
      expect(faults.cuts()).toBe(0)
      expect(countCalls(server)).toBe(1)
      expect(client.errors).toEqual([])
    })
  )

  it.scopedLive("misses no message when both connections are cut ten times during a call", () =>
    Effect.gen(function* () {
      const server = yield* makeResumable
      const behind = yield* makeFaults(server)
      const { faults } = yield* startBroken(behind)
      const client = yield* connect(faults.url)
      yield* behind.cutAfter(piece, cuts)
      yield* faults.cutAfter(piece, cuts)
      yield* callLong(client, server)
      expect([behind.cuts(), faults.cuts()]).toEqual([cuts, cuts])
      expect(countCalls(server)).toBe(1)
    })
  )

  it.scopedLive("gets an error for a call that cannot be resumed, and the call is not sent again", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const behind = yield* makeFaults(server)
      const { faults } = yield* startBroken(behind)
      const client = yield* connect(faults.url)
      yield* behind.cutAfter(piece)
      const call = client.call("progress", { steps, until: "received" }, { onProgress: () => {} })
      const error = yield* Effect.flip(call)
      expect(error.message).toContain("closed the connection")
      expect(countCalls(server)).toBe(1)
      expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
      expectNothingTwice(client)
    })
  )

  it.scopedLive("gets each message when both connections deliver one byte at a time", () =>
    Effect.gen(function* () {
      const server = yield* makeResumable
      const behind = yield* makeFaults(server)
      const { faults } = yield* startBroken(behind)
      yield* behind.trickle(true)
      yield* faults.trickle(true)
      const notes: Array<unknown> = []
      const client = yield* connect(faults.url, { onNotification: ({ params }) => notes.push(params) })
      expect(yield* client.call("echo", { text })).toBe(text)
      expect(yield* client.call("log", { text })).toBe("logged")
      expect(notes).toEqual([{ level: "info", data: text }])
    })
  )

  it.scopedLive("gets a message that arrived while it was disconnected when it reconnects, once", () =>
    Effect.gen(function* () {
      const server = yield* makeResumable
      const behind = yield* makeFaults(server)
      const { faults, proxy } = yield* startBroken(behind)
      const client = yield* connect(faults.url)
      yield* server.until(() => server.counts.getStreams === 1)
      // The calls are sent directly to the proxy, because the connections of the client are cut.
      const headers = { "mcp-session-id": client.sessionId() ?? "none" }
      const bump = eventually(post(proxy.url, callTool("b", "bump"), headers), ({ status }) => status === 200)
      yield* bump
      yield* client.until(() => client.notifications.length === 1)
      for (const _ of [1, 2, 3]) {
        yield* faults.cut
        yield* behind.cut
        yield* bump
        yield* client.until(() => client.notifications.length >= bumps(server))
      }
      expect(bumps(server)).toBeGreaterThan(3)
      yield* client.call("echo", { text: "hi" })
      expect(client.notifications).toHaveLength(bumps(server))
    })
  )

  it.scopedLive("waits while its upstream refuses connections", () =>
    Effect.gen(function* () {
      const server = yield* makeResumable
      const behind = yield* makeFaults(server)
      const { faults } = yield* startBroken(behind)
      const client = yield* connect(faults.url)
      const begun = yield* Deferred.make<void>()
      const onProgress = () => Deferred.unsafeDone(begun, Effect.void)
      const call = yield* Effect.fork(client.call("progress", { steps: 1, until: "back" }, { onProgress }))
      yield* Deferred.await(begun)
      yield* behind.refuse(true)
      yield* behind.cut
      const before = behind.accepted()
      yield* behind.until(() => behind.accepted() >= before + 4)
      yield* server.release("back")
      yield* behind.refuse(false)
      expect(yield* Fiber.join(call)).toBe("1 steps")
      expect(countCalls(server)).toBe(1)
      expect(faults.cuts()).toBe(0)
      expectNothingTwice(client)
    })
  )
})

const text = "snow ☃, 雪, 😀"

const bumps = ({ requests }: LegacyServer): number =>
  requests.filter(({ body }) => body.includes(`"bump"`)).length

// The places at which an event can be cut: a text in it, and the number of its bytes before the cut.
const places: ReadonlyArray<readonly [where: string, text: string, bytes: number]> = [
  ["a character, after one byte", "😀", 1],
  ["a character, after three bytes", "😀", 3],
  ["the name of a field", "event: message", 3],
  ["the value of a field", "event: message", 9],
  ["the data", `"jsonrpc"`, 4],
  ["the empty line after an event", `}\n\n`, 2]
]

/** One proxy and one server serve all of these tests, because each test only cuts new connections. */
class Rig extends Context.Tag("test/Rig")<Rig, { readonly url: string; readonly faults: Faults }>() {}

/** Cuts the connections of the client. */
const clientsCut = Layer.scoped(
  Rig,
  Effect.gen(function* () {
    const { faults } = yield* startBroken(yield* makeLegacyServer())
    return { url: faults.url, faults }
  })
)

/** Cuts the connections of the proxy to its upstream. */
const upstreamCut = Layer.scoped(
  Rig,
  Effect.gen(function* () {
    const faults = yield* makeFaults(yield* makeResumable)
    const { proxy } = yield* startBroken(faults)
    return { url: proxy.url, faults }
  })
)

for (const [line, connect] of officialClients) {
  /** Calls a tool that sends a notification before its result, with a cut inside the notification. */
  const callCut = ([, place, bytes]: (typeof places)[number]) =>
    Effect.gen(function* () {
      const { faults, url } = yield* Rig
      const client = yield* connect(url)
      yield* client.call("echo", { text: "hi" })
      const earlier = faults.cuts()
      yield* faults.cutInside(place, bytes)
      expect(yield* client.call("log", { text })).toBe("logged")
      expect(faults.cuts() - earlier).toBe(1)
      expect(client.notifications).toMatchObject([
        { method: "notifications/message", params: { data: text } }
      ])
      expectNothingTwice(client)
    })

  layer(clientsCut, { excludeTestServices: true })(`client ${line}`, (it) => {
    it.scoped.each([...places, ["the id", ".1.2\nevent", 1] as const])(
      "gets the whole event once when its connection is cut in %s",
      callCut
    )
  })

  layer(upstreamCut, { excludeTestServices: true })(`client ${line}`, (it) => {
    it.scoped.each([...places, ["the id", "message\nid: e", 12] as const])(
      "gets the whole event once when the upstream connection is cut in %s",
      callCut
    )
  })
}
