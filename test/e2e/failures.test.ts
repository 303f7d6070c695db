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

// Upstreams that break off, die or stall: no call goes unanswered, and no session suffers for another.

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
  it.scoped("breaks off a stream without event ids leaves no call unanswered", () =>
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

  it.scoped("breaks off a stream with event ids, and does not go on with it, leaves no call unanswered", () =>
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

  it.scoped("breaks off a stream with event ids leaves it to the client to resume, if none is kept", () =>
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

  it.scoped("breaks off anything else cannot be mistaken for one that answered", () =>
    Effect.gen(function* () {
      const { proxy, session } = yield* Rig
      const silent = yield* post(proxy.url, request("d", "test/destroy"), session)
      expectError(silent, { status: 502, code: ERROR, id: "d", message: /closed the connection/ })
      const options = { method: "POST", headers: session, body: request("j", "test/json") }
      const halved = yield* Effect.either(Effect.flatMap(stream(proxy.url, options), ({ end }) => end))
      // Whether or not the head has gone out before the connection is closed.
      expect(halved).not.toEqual({ _tag: "Right", right: "ended" })
      expect((yield* post(proxy.url, request(2, "ping"), session)).status).toBe(200)
    })
  )
})

describe("an upstream that breaks off in the middle of an event", () => {
  it.scopedLive("has it left out, so that the error behind it can be read", () =>
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

describe("an upstream that is killed", () => {
  it.scopedLive("takes the calls in flight with it, each with an error, and nothing else", () =>
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
      // Back on its port, it knows nothing of the sessions, and the client starts anew.
      yield* makeLegacyServer({ port: server.port })
      expect((yield* post(proxy.url, request("x", "ping"), session)).status).toBe(404)
      expect((yield* initialize(proxy.url)).answer.status).toBe(200)
    })
  )

  it.scopedLive("in one call does not disturb those of other sessions", () =>
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

  it.scopedLive("and comes back is resumed by the clients, if its events have ids", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ eventStore: true, retry: 20 })
      const proxy = yield* startProxy(server)
      for (const [line, connect] of officialClients) {
        const resumptions = () =>
          server.requests.filter(({ headers }) => headers["last-event-id"] !== undefined)
        const before = resumptions().length
        const client = yield* connect(proxy.url)
        // Without the priming event the client has nothing to resume from.
        const primed = yield* Deferred.make<string>()
        const onResumable = (id: string) => Deferred.unsafeDone(primed, Effect.succeed(id))
        const call = yield* Effect.fork(client.call("wait", { until: line }, { onResumable }))
        yield* server.until(() => server.pending().length === 1)
        yield* Deferred.await(primed)
        yield* server.drop
        yield* server.until(() => resumptions().length > before)
        yield* server.release(line)
        expect(yield* Fiber.join(call)).toBe(`released ${line}`)
      }
    })
  )
})

describe("an upstream that does not begin to answer", () => {
  it.scopedLive("is given up after --request-timeout, and told so unless it is `initialize`", () =>
    Effect.gen(function* () {
      const args = ["--multi-session", "--request-timeout", "1s"]
      const streaming = yield* makeLegacyServer()
      const patient = yield* startProxy(streaming, args)
      const open = yield* initialize(patient.url)
      // With its head a stream has begun: it may stay silent for as long as it likes.
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
            // By when this has come and gone, all that was sent before has arrived.
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
