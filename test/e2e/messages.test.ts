import { describe, expect, it, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { officialClients } from "../fixtures/Clients.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import { type Proxy, startProxy } from "../fixtures/Proxy.js"
import { callTool, initialize, initialized, messages, post, stream } from "../fixtures/RawClient.js"
import { makeStdioServer } from "../fixtures/StdioServer.js"
import { streamsOpened, type ToolServer } from "../fixtures/ToolServer.js"

// The messages between the official clients and servers, for each way in which a server answers.

interface UpstreamKind {
  readonly name: string
  readonly make: Effect.Effect<ToolServer, never, Scope.Scope>
  /** True if responses are JSON, so that progress is sent on the GET stream. */
  readonly json?: boolean
}

const upstreamKinds: ReadonlyArray<UpstreamKind> = [
  { name: "an upstream that answers with streams", make: makeLegacyServer() },
  { name: "an upstream whose events have ids", make: makeLegacyServer({ eventStore: true }) },
  { name: "an upstream that answers with JSON", make: makeLegacyServer({ json: true }), json: true },
  { name: "an upstream that is a command", make: makeStdioServer }
]

class Rig extends Context.Tag("test/Rig")<Rig, { readonly server: ToolServer; readonly proxy: Proxy }>() {}

for (const { json, make, name } of upstreamKinds) {
  const rig = Layer.scoped(
    Rig,
    Effect.gen(function* () {
      const server = yield* make
      return { server, proxy: yield* startProxy(server) }
    })
  )

  /** Connects a client and waits for its standalone stream, because the server drops messages before it is open. */
  const listening = <A, E, R>(connecting: Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const { server } = yield* Rig
      const before = streamsOpened(server)
      const client = yield* connecting
      // The proxy stores the messages of a command until the stream is open.
      if (before !== undefined) yield* server.until(() => streamsOpened(server) !== before)
      return client
    })

  layer(rig, { excludeTestServices: true })(name, (it) => {
    for (const [line, connect] of officialClients) {
      it.scoped(`client ${line} answers sampling, elicitation and roots`, () =>
        Effect.gen(function* () {
          const { proxy } = yield* Rig
          const client = yield* listening(
            connect(proxy.url, {
              sample: (prompt) => `sampled ${prompt}`,
              elicit: (message) => (message === "refuse" ? undefined : { answer: `elicited ${message}` }),
              roots: ["file:///a", "file:///b"]
            })
          )
          expect(yield* client.call("sample", { prompt: "p" })).toBe("sampled p")
          expect(JSON.parse(yield* client.call("elicit", { message: "m" }))).toEqual({
            action: "accept",
            content: { answer: "elicited m" }
          })
          expect(JSON.parse(yield* client.call("elicit", { message: "refuse" }))).toMatchObject({
            action: "decline"
          })
          expect(yield* client.call("roots")).toBe(`["file:///a","file:///b"]`)
          // A client without the capability answers with an error, which is relayed like a result.
          const unable = yield* listening(connect(proxy.url))
          expect((yield* Effect.flip(unable.call("sample", { prompt: "p" }))).message).toContain(
            "Method not found"
          )
        })
      )

      it.scoped(`client ${line} receives list changes and logs once`, () =>
        Effect.gen(function* () {
          const { proxy } = yield* Rig
          const client = yield* listening(connect(proxy.url))
          yield* client.call("bump")
          yield* client.until(() => client.notifications.length === 1)
          yield* client.call("log", { text: "note" })
          yield* client.until(() => client.notifications.length === 2)
          expect(client.notifications).toMatchObject([
            { method: "notifications/tools/list_changed" },
            { method: "notifications/message", params: { level: "info", data: "note" } }
          ])
          expect(client.errors).toEqual([])
        })
      )

      it.scoped(`client ${line} cancels a call at the server`, () =>
        Effect.gen(function* () {
          const { proxy, server } = yield* Rig
          const before = server.cancellations.length
          const client = yield* connect(proxy.url)
          const call = yield* Effect.fork(client.call("hang"))
          yield* server.until(() => server.pending().length === 1)
          const [held] = server.pending()
          yield* Fiber.interrupt(call)
          yield* server.until(() => server.cancellations.length === before + 1)
          expect(server.cancellations[before]).toMatchObject({
            requestId: held?.requestId,
            sessionId: held?.sessionId,
            by: "notification"
          })
          expect(yield* client.call("echo", { text: "still there" })).toBe("still there")
        })
      )

      it.scoped(`client ${line} reads resources and prompts, and receives errors`, () =>
        Effect.gen(function* () {
          const { proxy } = yield* Rig
          const { call, client } = yield* connect(proxy.url)
          const resource = yield* Effect.promise(() => client.readResource({ uri: "fixture://greeting" }))
          expect(resource.contents).toMatchObject([{ text: "hello" }])
          const prompt = yield* Effect.promise(() =>
            client.getPrompt({ name: "question", arguments: { about: "x" } })
          )
          expect(prompt.messages).toMatchObject([{ content: { text: "What is x?" } }])
          const missing = yield* Effect.flip(
            Effect.tryPromise(() => client.readResource({ uri: "fixture://no" }))
          )
          expect(String(missing.cause)).toContain("fixture://no")
          expect((yield* Effect.flip(call("no-such-tool"))).message).toContain("no-such-tool")
        })
      )

      it.scoped(
        `client ${line} answers sampling while a hundred calls hang in its session and in another one`,
        () =>
          Effect.gen(function* () {
            const { proxy, server } = yield* Rig
            const until = `${name} ${line}`
            const busy = yield* listening(connect(proxy.url, { sample: (prompt) => `sampled ${prompt}` }))
            const other = yield* connect(proxy.url)
            const hanging = yield* Effect.forEach(
              Array.from({ length: 200 }, (_, index) => (index % 2 === 0 ? busy : other)),
              (client) => Effect.fork(client.call("wait", { until }))
            )
            yield* server.until(() => server.pending().length === 200, 60_000)
            expect(yield* busy.call("sample", { prompt: "during" })).toBe("sampled during")
            expect(server.pending()).toHaveLength(200)
            yield* server.release(until)
            expect(new Set(yield* Effect.forEach(hanging, Fiber.join))).toEqual(
              new Set([`released ${until}`])
            )
          })
      )
    }

    it.scoped("progress arrives in order", () =>
      Effect.gen(function* () {
        const { proxy } = yield* Rig
        const steps = Array.from({ length: 20 }, (_, index) => index + 1)
        if (json !== true) {
          for (const [, connect] of officialClients) {
            const client = yield* connect(proxy.url)
            const seen: Array<number> = []
            yield* client.call("progress", { steps: 20 }, { onProgress: (p) => seen.push(p.progress) })
            expect(seen).toEqual(steps)
          }
          return
        }
        // The progress is on the GET stream, and the official clients ignore progress after the response.
        const { session } = yield* initialize(proxy.url)
        yield* post(proxy.url, initialized, session)
        const standalone = yield* listening(stream(proxy.url, { headers: session }))
        const call = { name: "progress", arguments: { steps: 20 }, _meta: { progressToken: "token" } }
        yield* post(proxy.url, { jsonrpc: "2.0", id: 1, method: "tools/call", params: call }, session)
        yield* standalone.event(19)
        expect(standalone.messages()).toMatchObject(
          steps.map((progress) => ({ params: { progressToken: "token", progress, total: 20 } }))
        )
      })
    )

    it.scoped('the ids 1 and "1" are different requests, and each response has the right id', () =>
      Effect.gen(function* () {
        const { proxy, server } = yield* Rig
        const { session, message } = yield* initialize(proxy.url, { id: "init" })
        expect(message).toMatchObject({ id: "init" })
        yield* post(proxy.url, initialized, session)
        const call = (id: string | number) =>
          Effect.fork(
            Effect.map(
              post(proxy.url, callTool(id, "wait", { until: `${name} ${typeof id}` }), session),
              messages
            )
          )
        const numbered = yield* call(1)
        const named = yield* call("1")
        yield* server.until(() => server.pending().length === 2)
        expect(new Set(server.pending().map(({ requestId }) => requestId))).toEqual(new Set([1, "1"]))
        yield* server.release(`${name} string`)
        expect(yield* Fiber.join(named)).toMatchObject([
          { id: "1", result: { content: [{ text: `released ${name} string` }] } }
        ])
        yield* server.release(`${name} number`)
        expect(yield* Fiber.join(numbered)).toMatchObject([
          { id: 1, result: { content: [{ text: `released ${name} number` }] } }
        ])
      })
    )
  })
}

const cancelled = (requestId: string | number) => ({
  jsonrpc: "2.0",
  method: "notifications/cancelled",
  params: { requestId, reason: "enough" }
})

describe("a cancelled call", () => {
  // All kinds at the same time, because each waits for the grace period of five seconds.
  it.scopedLive(
    "ends without a response after its grace period, frees its slot, and aborts at the upstream",
    () =>
      Effect.forEach(
        upstreamKinds,
        ({ make }) =>
          Effect.gen(function* () {
            const server = yield* make
            const proxy = yield* startProxy(server, ["--multi-session", "--max-exchanges", "2"])
            const { session } = yield* initialize(proxy.url)
            yield* post(proxy.url, initialized, session)
            const call = (id: string | number, tool: string, args: object = {}) =>
              Effect.fork(
                stream(proxy.url, { method: "POST", headers: session, body: callTool(id, tool, args) })
              )
            const cancelling = yield* call("1", "hang")
            yield* server.until(() => server.pending().length === 1)
            const staying = yield* call(1, "wait", { until: "go" })
            yield* server.until(() => server.pending().length === 2)
            const echo = (id: number) => post(proxy.url, callTool(id, "echo", { text: "hi" }), session)
            expect((yield* echo(2)).status).toBe(429)

            const before = performance.now()
            expect((yield* post(proxy.url, cancelled("1"), session)).status).toBe(202)
            yield* server.until(() => server.cancellations.length === 1)
            expect(server.cancellations).toMatchObject([
              { requestId: "1", by: "notification", reason: "enough" }
            ])
            const ended = yield* Fiber.join(cancelling)
            expect(yield* ended.endWithin(30_000)).toBe("ended")
            expect(performance.now() - before).toBeGreaterThan(4500)
            expect(ended).toMatchObject({ status: 200, headers: { "content-type": "text/event-stream" } })
            expect(ended.messages()).toEqual([])
            if ("url" in server) {
              const upstream = server.requests.find(({ body }) => body.includes(`"hang"`))
              yield* server.until(() => upstream?.end === "dropped")
            }
            expect((yield* echo(3)).status).toBe(200)

            yield* server.release("go")
            const answered = yield* Fiber.join(staying)
            expect(yield* answered.end).toBe("ended")
            expect(messages({ headers: answered.headers, text: answered.text() })).toMatchObject([{ id: 1 }])
          }),
        { concurrency: "unbounded", discard: true }
      )
  )
})

describe("a session with its maximum of requests in flight", () => {
  for (const { make, name } of upstreamKinds.filter(({ json }) => json !== true)) {
    it.scopedLive(`still relays the responses that ${name} waits for`, () =>
      Effect.gen(function* () {
        const server = yield* make
        // The GET stream counts as one of the four requests.
        const proxy = yield* startProxy(server, ["--multi-session", "--max-exchanges", "4"])
        for (const [, connect] of officialClients) {
          const asked = yield* Deferred.make<void>()
          let questions = 0
          const client = yield* connect(proxy.url, {
            sample: (prompt) => {
              if (++questions === 3) Deferred.unsafeDone(asked, Effect.void)
              return Effect.runPromise(Effect.as(Deferred.await(asked), `sampled ${prompt}`))
            }
          })
          const samples = yield* Effect.forEach(
            ["a", "b", "c"],
            (prompt) => client.call("sample", { prompt }),
            { concurrency: "unbounded" }
          )
          expect(samples).toEqual(["sampled a", "sampled b", "sampled c"])
        }
      })
    )
  }
})
