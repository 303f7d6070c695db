import { describe, expect, it, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { officialClients } from "../fixtures/Clients.js"
import { eventOf, openStream, toolResult } from "../fixtures/events.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import { type Call, makePlainServer, type Script } from "../fixtures/PlainServer.js"
import { type Proxy, startProxy } from "../fixtures/Proxy.js"
import {
  callTool,
  type Headers,
  initialize,
  initializeRequest,
  post,
  request,
  stream
} from "../fixtures/RawClient.js"
import { ERROR, expectError } from "../fixtures/RpcError.js"

// Upstreams that break off, die or stall: each call gets an answer, and no other session is affected.

class Rig extends Context.Tag("test/Rig")<Rig, { readonly proxy: Proxy; readonly session: Headers }>() {}

const script: Script = {
  "test/events": ({ params, response }) => {
    openStream(response)
    const before = eventOf(
      { jsonrpc: "2.0", method: "notifications/x" },
      params["ids"] === true ? `before ${String(params["how"])}` : undefined
    )
    if (params["how"] === "destroy") response.write(before, () => response.destroy())
    else response.end(before)
  },
  "test/json": ({ response }) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": "1000" })
    response.write(`{"jsonrpc":`, () => response.destroy())
  },
  "test/destroy": ({ response }) => response.destroy()
}

layer(
  Layer.scoped(
    Rig,
    Effect.gen(function* () {
      const server = yield* makePlainServer(script)
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      return { proxy, session }
    })
  ),
  { excludeTestServices: true }
)("an upstream that", (it) => {
  it.scoped("breaks off a stream without event ids makes the proxy answer with an error", () =>
    Effect.gen(function* () {
      const { proxy, session } = yield* Rig
      for (const how of ["destroy", "end"]) {
        const options = { method: "POST", headers: session, body: request("b", "test/events", { how }) }
        const broken = yield* stream(proxy.url, options)
        expect(yield* broken.end).toBe("ended")
        expect(broken.messages()).toMatchObject([
          { method: "notifications/x" },
          { id: "b", error: { code: -32000, message: expect.stringContaining("closed the connection") } }
        ])
      }
      expect((yield* post(proxy.url, request(2, "ping"), session)).status).toBe(200)
    })
  )

  it.scoped(
    "breaks off a stream with event ids and cannot resume it makes the proxy answer with an error",
    () =>
      Effect.gen(function* () {
        const { proxy, session } = yield* Rig
        for (const how of ["destroy", "end"]) {
          const body = request("b", "test/events", { how, ids: true })
          const broken = yield* stream(proxy.url, { method: "POST", headers: session, body })
          expect(yield* broken.end).toBe("ended")
          expect(broken.messages()).toMatchObject([
            { method: "notifications/x" },
            { id: "b", error: { code: -32000, message: expect.stringContaining("closed the connection") } }
          ])
        }
      })
  )

  it.scoped("breaks off a stream with event ids leaves resuming to the client, if no events are stored", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer(script)
      const proxy = yield* startProxy(server, ["--multi-session", "--max-events", "0"])
      const { session } = yield* initialize(proxy.url)
      for (const how of ["destroy", "end"]) {
        const body = request("b", "test/events", { how, ids: true })
        const broken = yield* stream(proxy.url, { method: "POST", headers: session, body })
        expect(yield* broken.end).toBe("ended")
        expect(broken.events).toMatchObject([{ id: `before ${how}` }])
      }
    })
  )

  it.scoped("breaks off another response never looks like one that answered", () =>
    Effect.gen(function* () {
      const { proxy, session } = yield* Rig
      const silent = yield* post(proxy.url, request("d", "test/destroy"), session)
      expectError(silent, { status: 502, code: ERROR, id: "d", message: /closed the connection/ })
      const options = { method: "POST", headers: session, body: request("j", "test/json") }
      const halved = yield* Effect.either(Effect.flatMap(stream(proxy.url, options), ({ end }) => end))
      // The connection may close before or after the response head was sent.
      expect(halved).not.toEqual({ _tag: "Right", right: "ended" })
      expect((yield* post(proxy.url, request(2, "ping"), session)).status).toBe(200)
    })
  )
})

describe("an upstream that breaks off in the middle of an event", () => {
  it.scopedLive("has that event dropped, so that the client can parse the error after it", () =>
    Effect.gen(function* () {
      const calls: Array<Call> = []
      const server = yield* makePlainServer({
        "test/half": (call) => {
          openStream(call.response)
          call.response.write(eventOf({ jsonrpc: "2.0", method: "notifications/x" }))
          calls.push(call)
        }
      })
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      const options = { method: "POST", headers: session, body: request("h", "test/half") }
      const broken = yield* stream(proxy.url, options)
      yield* broken.event(0)
      const [call] = calls
      call?.response.write(`event: message\ndata: {"jsonrpc":"2.0","id":"h",`, () => call.response.destroy())
      expect(yield* broken.end).toBe("ended")
      expect(broken.messages()).toMatchObject([
        { method: "notifications/x" },
        { id: "h", error: { code: -32000 } }
      ])
    })
  )
})

describe("an upstream that", () => {
  it.scopedLive("ends only the calls in flight, each with an error", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server, ["--multi-session", "--recover", "false"])
      const hanging = []
      for (const [, connect] of officialClients) {
        const client = yield* connect(proxy.url)
        hanging.push(yield* Effect.fork(Effect.flip(client.call("hang"))))
      }
      yield* server.until(() => server.pending().length === 2)
      const { session } = yield* initialize(proxy.url)
      yield* server.kill
      for (const call of hanging) {
        expect((yield* Fiber.join(call)).message).toMatch(/closed the connection/)
      }
      expectError(yield* post(proxy.url, request("x", "ping"), session), {
        status: 502,
        code: ERROR,
        id: "x",
        message: /cannot be reached.*ECONNREFUSED/
      })
      expectError((yield* initialize(proxy.url)).answer, {
        status: 502,
        code: ERROR,
        id: 0,
        message: /cannot be reached/
      })
      // A new server on the port does not know the session, so the client has to open a new one.
      yield* makeLegacyServer({ port: server.port })
      expect((yield* post(proxy.url, request("x", "ping"), session)).status).toBe(404)
      expect((yield* initialize(proxy.url)).answer.status).toBe(200)
    })
  )

  it.scopedLive("closes the connection of one call does not affect the calls of other sessions", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server)
      const call = Effect.gen(function* () {
        const { session } = yield* initialize(proxy.url)
        const before = server.held.length
        const calling = yield* Effect.fork(post(proxy.url, request("h", "hang"), session))
        yield* server.until(() => server.held.length > before)
        return calling
      })
      const [broken, fine] = [yield* call, yield* call]
      server.held[0]?.response.destroy()
      expectError(yield* Fiber.join(broken), {
        status: 502,
        code: ERROR,
        id: "h",
        message: /closed the connection/
      })
      server.held[1]?.result()
      expect((yield* Fiber.join(fine)).status).toBe(200)
    })
  )

  it.scopedLive("drops its connections has its streams resumed, if its events have ids", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ eventStore: true, retry: 20 })
      const proxy = yield* startProxy(server)
      for (const [line, connect] of officialClients) {
        const resumptions = () =>
          server.requests.filter(({ headers }) => headers["last-event-id"] !== undefined)
        const before = resumptions().length
        const client = yield* connect(proxy.url)
        // With an event of the upstream, the proxy has an id to resume after.
        const begun = yield* Deferred.make<void>()
        const onProgress = () => Deferred.unsafeDone(begun, Effect.void)
        const call = yield* Effect.fork(client.call("progress", { steps: 1, until: line }, { onProgress }))
        yield* server.until(() => server.pending().length === 1)
        yield* Deferred.await(begun)
        yield* server.drop
        yield* server.until(() => resumptions().length > before)
        yield* server.release(line)
        expect(yield* Fiber.join(call)).toBe("1 steps")
      }
    })
  )
})

describe("an upstream that does not begin to answer", () => {
  it.scopedLive("gets a cancellation after --request-timeout, except for `initialize`", () =>
    Effect.gen(function* () {
      const args = ["--multi-session", "--request-timeout", "1s"]
      const streaming = yield* makeLegacyServer()
      const patient = yield* startProxy(streaming, args)
      const open = yield* initialize(patient.url)
      // The timeout ends with the response head: after that a stream may be silent.
      const options = { method: "POST", headers: open.session, body: callTool(1, "wait", { until: "later" }) }
      const call = yield* stream(patient.url, options)
      const standalone = yield* stream(patient.url, { headers: open.session })

      const [stalled] = yield* Effect.all(
        [
          Effect.gen(function* () {
            const server = yield* makeLegacyServer({ json: true })
            const proxy = yield* startProxy(server, args)
            const { session } = yield* initialize(proxy.url)
            const answer = yield* post(proxy.url, callTool("s", "hang"), session)
            yield* server.until(() => server.cancellations.length === 1)
            expect(server.cancellations).toMatchObject([{ requestId: "s", by: "notification" }])
            expect((yield* post(proxy.url, callTool(2, "echo", { text: "hi" }), session)).status).toBe(200)
            return answer
          }),
          Effect.gen(function* () {
            const server = yield* makePlainServer({ initialize: () => undefined })
            const proxy = yield* startProxy(server, args)
            const answer = yield* post(proxy.url, initializeRequest({ id: "i" }))
            expectError(answer, { status: 504, code: ERROR, id: "i", message: /--request-timeout/ })
            expect(yield* proxy.health).toMatchObject({ sessions: 0 })
            // After this request, all earlier messages of the proxy have arrived.
            yield* post(proxy.url, request(2, "server/discover"), { "mcp-protocol-version": "2026-07-28" })
            expect(server.requests.map(({ body }) => body)).toEqual([
              expect.stringContaining(`"initialize"`),
              expect.stringContaining(`"server/discover"`)
            ])
            expect(server.requests[0]).toMatchObject({ end: "dropped" })
          })
        ],
        { concurrency: "unbounded" }
      )
      expectError(stalled, { status: 504, code: ERROR, id: "s", message: /--request-timeout/ })

      yield* streaming.release("later")
      expect(yield* call.end).toBe("ended")
      expect(call.messages()).toMatchObject([toolResult(1, "released later")])
      yield* post(patient.url, callTool(2, "bump"), open.session)
      yield* standalone.event(0)
    })
  )
})
