import { describe, expect, it } from "@effect/vitest"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import { hasProperty, isString } from "effect/Predicate"
import * as Scope from "effect/Scope"
import { createServer } from "node:http"
import {
  EventTracker,
  ForwardProxy,
  HttpFront,
  Interceptor,
  type Protocol,
  ProxyError,
  Sessions,
  SessionStore,
  Upstream,
  UpstreamPool
} from "../src/index.js"
import { officialClients } from "./fixtures/Clients.js"
import { makeLegacyServer } from "./fixtures/LegacyServer.js"
import { get } from "./fixtures/RawClient.js"

/** A session store of the application, in a Map. */
const makeTable = (table: Map<string, SessionStore.SessionRecord>): SessionStore.SessionStore["Type"] => {
  const alive = (id: string) =>
    Option.filter(Option.fromNullable(table.get(id)), (record) => record.expiresAt > Date.now())
  const all = () => Array.from(table.values()).filter(({ id }) => Option.isSome(alive(id)))
  const change = (id: string, fields: Partial<SessionStore.SessionRecord>) =>
    Option.isSome(
      Option.map(alive(id), (record) =>
        table.set(id, new SessionStore.SessionRecord({ ...record, ...fields }))
      )
    )
  return {
    isDurable: false,
    create: (record) =>
      Effect.suspend(() => {
        if (Option.isSome(alive(record.id))) return new ProxyError.SessionExists()
        table.set(record.id, record)
        return Effect.void
      }),
    get: (id) => Effect.sync(() => alive(id)),
    touch: (id, lastActiveAt) => void change(id, { lastActiveAt }),
    update: (id, fields) => Effect.sync(() => change(id, fields)),
    remove: (id) => Effect.sync(() => table.delete(id)),
    list: Effect.sync(all),
    findByUpstream: (upstream, id) =>
      Effect.sync(() =>
        Option.fromNullable(
          all().find((record) => record.upstream === upstream && record.upstreamSessionId === id)
        )
      ),
    removeExpired: Effect.sync(() => {
      const expired = Array.from(table.values()).filter(({ id }) => Option.isNone(alive(id)))
      for (const { id } of expired) table.delete(id)
      return expired
    })
  }
}

/** The result of a request to the application's own MCP server. */
const resultOf = (method: string | undefined): object =>
  method === "initialize"
    ? {
        protocolVersion: "2025-11-25",
        capabilities: { tools: {} },
        serverInfo: { name: "in-process", version: "1" }
      }
    : { content: [{ type: "text", text: "from the application" }] }

/** An upstream in the application's own process. */
class InProcess implements Upstream.Lease {
  readonly name = "in-process"
  exchange({ body }: Upstream.Request, sink: Upstream.Sink): Upstream.Abort {
    const message = body?.messages[0]
    if (message?.id === undefined) sink.head(message === undefined ? 405 : 202, {}, Upstream.noFlow)
    else {
      sink.head(200, { "content-type": "application/json" }, Upstream.noFlow)
      sink.data(
        Buffer.from(JSON.stringify({ jsonrpc: "2.0", id: message.id, result: resultOf(message.method) }))
      )
    }
    sink.end()
    return () => {}
  }
  sessionId() {
    return undefined
  }
}

describe("an application that uses the library", () => {
  it.scopedLive(
    "composes the proxy with its own API, store and upstream, and closes all of them with one scope",
    () =>
      Effect.gen(function* () {
        const table = new Map<string, SessionStore.SessionRecord>()
        let leases = 0
        const upstream = Layer.succeed(
          UpstreamPool.UpstreamPool,
          UpstreamPool.make([
            {
              name: "in-process",
              keepsSessions: false,
              stateless: new InProcess(),
              lease: () =>
                Effect.acquireRelease(
                  Effect.sync(() => {
                    leases++
                    return new InProcess()
                  }),
                  () => Effect.sync(() => leases--)
                )
            }
          ])
        )
        const api = HttpRouter.empty.pipe(
          HttpRouter.get(
            "/clients",
            Effect.map(Sessions.Sessions, (sessions) =>
              HttpServerResponse.text(`${sessions.list().length} clients`)
            )
          ),
          HttpServer.serve(),
          Layer.provideMerge(NodeHttpServer.layer(() => createServer(), { port: 0, host: "127.0.0.1" }))
        )
        const application = api.pipe(
          Layer.provideMerge(HttpFront.layer({ port: 0, shutdownTimeout: 0 })),
          Layer.provideMerge(Sessions.layer({ maxSessions: 3 })),
          Layer.provide(EventTracker.layerMemory()),
          Layer.provide(upstream),
          Layer.provide(Layer.succeed(SessionStore.SessionStore, makeTable(table)))
        )

        const scope = yield* Scope.make()
        const services = yield* Layer.buildWithScope(application, scope).pipe(
          Logger.withMinimumLogLevel(LogLevel.None)
        )
        const { url } = Context.get(services, HttpFront.HttpFront)
        const { address } = Context.get(services, HttpServer.HttpServer)
        const clients =
          address._tag === "TcpAddress"
            ? `http://127.0.0.1:${address.port}/clients`
            : "the API has no TCP address"
        for (const [, connect] of officialClients) {
          const client = yield* connect(url.href, { terminate: false })
          expect(yield* client.call("any", {})).toBe("from the application")
        }
        expect((yield* get(clients)).text).toBe(`${officialClients.length} clients`)
        expect(table.size).toBe(officialClients.length)
        expect(leases).toBe(officialClients.length)

        yield* Scope.close(scope, Exit.void)
        expect(leases).toBe(0)
        expect(table.size).toBe(0)
        expect(Exit.isFailure(yield* Effect.exit(get(url.href)))).toBe(true)
        expect(Exit.isFailure(yield* Effect.exit(get(clients)))).toBe(true)
      })
  )

  it.scopedLive("adds an interceptor, which counts calls by tool and answers one tool itself", () =>
    Effect.gen(function* () {
      const calls = new Map<string, number>()
      const interceptor: Interceptor.Interceptor = (next) => ({
        name: next.name,
        exchange: (request, sink) => {
          const [message] = request.body?.messages ?? []
          const tool = message === undefined ? undefined : toolOf(message)
          if (tool === undefined) return next.exchange(request, sink)
          calls.set(tool, (calls.get(tool) ?? 0) + 1)
          if (tool !== "version") return next.exchange(request, sink)
          const result = { content: [{ type: "text", text: "from the interceptor" }] }
          Upstream.respond(sink, 200, JSON.stringify({ jsonrpc: "2.0", id: message?.id, result }))
          return Upstream.nothingToAbort
        }
      })
      const server = yield* makeLegacyServer()
      const proxy = ForwardProxy.layerHttp({
        upstream: { url: new URL(server.url) },
        front: { port: 0, shutdownTimeout: 0 }
      }).pipe(Layer.provide(Interceptor.layer(interceptor)))
      const services = yield* Layer.build(proxy).pipe(Logger.withMinimumLogLevel(LogLevel.None))
      const { url } = Context.get(services, HttpFront.HttpFront)
      for (const [, connect] of officialClients) {
        const client = yield* connect(url.href)
        expect(yield* client.call("echo", { text: "hello" })).toBe("hello")
        expect(yield* client.call("version", {})).toBe("from the interceptor")
      }
      const { length } = officialClients
      expect(Array.from(calls)).toEqual([
        ["echo", length],
        ["version", length]
      ])
    })
  )
})

/** The tool that a message calls. */
const toolOf = ({ method, params }: Protocol.Message): string | undefined =>
  method === "tools/call" && hasProperty(params, "name") && isString(params.name) ? params.name : undefined
