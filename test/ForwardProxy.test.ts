import { describe, expect, it } from "@effect/vitest"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Scope from "effect/Scope"
import * as ForwardProxy from "../src/ForwardProxy.js"
import * as EventTracker from "../src/EventTracker.js"
import * as HttpFront from "../src/HttpFront.js"
import { ListenError, SessionExists } from "../src/ProxyError.js"
import * as Sessions from "../src/Sessions.js"
import * as SessionStore from "../src/SessionStore.js"
import * as UpstreamPool from "../src/UpstreamPool.js"
import { openStream } from "./fixtures/events.js"
import { startFront } from "./fixtures/Front.js"
import { makePlainServer } from "./fixtures/PlainServer.js"
import { initialize, messages, post, request, stream } from "./fixtures/RawClient.js"
import { ERROR, expectError, NO_SESSION } from "./fixtures/RpcError.js"

const list = request(7, "tools/list")

/** A proxy over a store of the test, composed of layers as in the documentation. */
const composed = (upstream: { readonly url: string }, store: SessionStore.SessionStore["Type"]) =>
  HttpFront.layer({ port: 0, shutdownTimeout: 0 }).pipe(
    Layer.provideMerge(Sessions.layer()),
    Layer.provideMerge(UpstreamPool.layerHttp({ url: new URL(upstream.url) })),
    Layer.provide(EventTracker.layerMemory()),
    Layer.provide(Layer.succeed(SessionStore.SessionStore, store))
  )

/** Builds a layer without logs, and returns the URL of its endpoint. */
const build = <R, E>(layer: Layer.Layer<HttpFront.HttpFront | R, E>) =>
  Layer.build(layer).pipe(
    Effect.map((services) => Context.get(services, HttpFront.HttpFront).url.href),
    Logger.withMinimumLogLevel(LogLevel.None)
  )

describe("ForwardProxy", () => {
  it.scopedLive("stores its sessions in the given store", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const memory = yield* SessionStore.makeMemory
      const touched: Array<string> = []
      const store = SessionStore.SessionStore.of({
        ...memory,
        touch: (id, at) => {
          touched.push(id)
          memory.touch(id, at)
        }
      })
      const scope = yield* Scope.make()
      const url = yield* Scope.extend(build(composed(server, store)), scope)
      const one = yield* initialize(url, { clientInfo: { name: "one", version: "1" } })
      const two = yield* initialize(url, { headers: { authorization: "Bearer secret" } })
      const records = yield* store.list
      expect(records).toMatchObject([
        {
          id: one.sessionId,
          upstream: server.url,
          upstreamSessionId: "up-1",
          protocolVersion: "2025-11-25",
          client: "127.0.0.1",
          initialize: expect.stringContaining(`"clientInfo":{"name":"one","version":"1"}`)
        },
        { id: two.sessionId, upstreamSessionId: "up-2" }
      ])
      expect(JSON.stringify(records)).not.toContain("secret")
      touched.length = 0
      yield* post(url, list, one.session)
      expect(new Set(touched)).toEqual(new Set([one.sessionId]))

      yield* Scope.close(scope, Exit.void)
      expect((yield* store.list).length).toBe(0)
    })
  )

  it.scopedLive("releases everything, here and at the upstream, when its scope closes", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        GET: ({ response }) => openStream(response)
      })
      const scope = yield* Scope.make()
      const front = yield* Scope.extend(startFront(server), scope)
      const opened = yield* Effect.forEach([0, 1, 2], (id) => initialize(front.url, { id }))
      const streams = yield* Effect.forEach(opened, ({ session }) => stream(front.url, { headers: session }))
      const calls = yield* Effect.forEach(opened, ({ session }, id) =>
        Effect.fork(post(front.url, request(id, "hang"), session))
      )
      yield* server.until(() => server.held.length === 3)

      yield* Scope.close(scope, Exit.void)
      for (const [id, call] of calls.entries()) {
        expectError(yield* Fiber.join(call), { status: 503, code: ERROR, id, message: /shutting down/ })
      }
      for (const listening of streams) expect(yield* listening.end).toBe("ended")
      const ended = server.requests.filter(({ method }) => method === "DELETE")
      expect(ended.map(({ headers }) => headers["mcp-session-id"]).toSorted()).toEqual([
        "up-1",
        "up-2",
        "up-3"
      ])
      yield* server.until(() => server.connections() === 0)
      expect((yield* Effect.flip(initialize(front.url))).message).toContain("ECONNREFUSED")

      // The port is free again.
      const again = yield* startFront(server, { front: { port: front.port } })
      expect(again.port).toBe(front.port)
      expect((yield* initialize(again.url)).answer.status).toBe(200)
    })
  )

  it.scopedLive("is independent of another proxy in the same process", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const other = yield* makePlainServer()
      const scope = yield* Scope.make()
      const options = { sessions: { maxSessions: 1, maxExchanges: 1 } }
      const one = yield* Scope.extend(startFront(server, options), scope)
      const two = yield* startFront(other, options)
      const inOne = yield* initialize(one.url)
      const inTwo = yield* initialize(two.url)
      expect([inOne.answer.status, inTwo.answer.status]).toEqual([200, 200])

      // Neither proxy knows the sessions of the other or counts its calls.
      expectError(yield* post(two.url, list, inOne.session), { status: 404, code: NO_SESSION, id: 7 })
      const call = yield* Effect.fork(post(one.url, request(1, "hang"), inOne.session))
      yield* server.until(() => server.held.length === 1)
      expect((yield* post(one.url, list, inOne.session)).status).toBe(429)
      expect((yield* post(two.url, list, inTwo.session)).status).toBe(200)
      expect(yield* two.health).toMatchObject({ sessions: 1, connections: 1, bufferedBytes: 0 })

      const held = yield* Effect.fork(post(two.url, request(2, "hang"), inTwo.session))
      yield* other.until(() => other.held.length === 1)
      yield* Scope.close(scope, Exit.void)
      expect((yield* Fiber.join(call)).status).toBe(503)
      other.held[0]?.result({ still: "here" })
      expect(messages(yield* Fiber.join(held))).toEqual([
        { jsonrpc: "2.0", id: 2, result: { still: "here" } }
      ])
      expect(other.count("DELETE")).toBe(0)
    })
  )

  it.scopedLive("has its own services when one layer contains two proxies", () =>
    Effect.gen(function* () {
      const servers = [yield* makePlainServer(), yield* makePlainServer()] as const
      class Second extends Context.Tag("test/Second")<Second, { readonly url: URL }>() {}
      const proxy = (url: string) =>
        ForwardProxy.layerHttp({
          upstream: { url: new URL(url) },
          front: { port: 0, shutdownTimeout: 0 },
          sessions: { maxSessions: 1 }
        })
      const second = Layer.effect(Second, HttpFront.HttpFront).pipe(Layer.provide(proxy(servers[1].url)))
      const services = yield* Layer.build(Layer.merge(proxy(servers[0].url), second)).pipe(
        Logger.withMinimumLogLevel(LogLevel.None)
      )
      for (const { url } of [Context.get(services, HttpFront.HttpFront), Context.get(services, Second)]) {
        expect((yield* initialize(url.href)).answer.status).toBe(200)
        expect((yield* initialize(url.href)).answer.status).toBe(503)
      }
      for (const server of servers) expect(server.count("initialize")).toBe(1)
    })
  )

  it.scopedLive("fails with ListenError if the port is in use", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const error = yield* Effect.flip(startFront(server, { front: { port: server.port } }))
      expect(error).toBeInstanceOf(ListenError)
      expect(error).toMatchObject({ host: "127.0.0.1", port: server.port })
      expect(error.message).toContain("--port")
    })
  )

  it.scopedLive("fails with ListenError if this machine does not have the address", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        startFront({ url: "http://127.0.0.1:1" }, { front: { host: "192.0.2.1" } })
      )
      expect(error).toBeInstanceOf(ListenError)
      expect(error.message).toContain("--host")
    })
  )

  it.scopedLive("reads its options from a Config", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const url = Config.mapAttempt(Config.string("UPSTREAM"), (text) => new URL(text))
      const proxy = HttpFront.layerConfig({
        port: Config.port("PORT").pipe(Config.withDefault(0)),
        path: Config.string("ENDPOINT")
      }).pipe(
        Layer.provideMerge(Sessions.layerConfig({ maxSessions: Config.integer("SESSIONS") })),
        Layer.provideMerge(UpstreamPool.layerHttpConfig({ url })),
        Layer.provide(EventTracker.layerMemory()),
        Layer.provide(SessionStore.layerMemory)
      )
      const configured = (values: Readonly<Record<string, string>>) =>
        build(
          Layer.provide(
            proxy,
            Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(values))))
          )
        )
      const address = yield* configured({ UPSTREAM: server.url, ENDPOINT: "/configured", SESSIONS: "1" })
      expect(new URL(address).pathname).toBe("/configured")
      expect((yield* initialize(address)).answer.status).toBe(200)
      expect((yield* initialize(address)).answer.status).toBe(503)
      const error = yield* Effect.flip(configured({ ENDPOINT: "/configured", SESSIONS: "1" }))
      expect(String(error)).toContain("UPSTREAM")
    })
  )

  it.scopedLive(
    "responds with an error and ends the session when the store fails, and continues to serve",
    () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer()
        const memory = yield* SessionStore.makeMemory
        let fails = true
        const store = SessionStore.SessionStore.of({
          ...memory,
          create: (record) => (fails ? new SessionExists() : memory.create(record))
        })
        const url = yield* build(composed(server, store))
        const failed = yield* initialize(url, { id: "i" })
        expect(failed.answer.status).toBe(500)
        expect(messages(failed.answer)).toMatchObject([{ jsonrpc: "2.0", id: "i", error: {} }])
        expect(failed.sessionId).toBeUndefined()
        yield* server.until(() => server.count("DELETE") === 1)
        fails = false
        expect((yield* initialize(url)).answer.status).toBe(200)
      })
  )
})
