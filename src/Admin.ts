/** Serves the admin API of a running proxy, on 127.0.0.1 only. */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import { createServer } from "node:http"
import { AdminApi, SessionInfo, SessionPage, UnknownSession } from "./Admin/Api.js"
import { register } from "./Admin/gauges.js"
import { HttpFront } from "./HttpFront.js"
import { OriginPolicy } from "./HttpFront/OriginPolicy.js"
import { ListenError } from "./ProxyError.js"
import type { Session } from "./Sessions/Session.js"
import { Sessions } from "./Sessions.js"
import { Metrics } from "./Telemetry/Prometheus.js"

export interface AdminOptions {
  /** The port to listen on; 0 picks a free one. */
  readonly port: number
}

/** The address of the API. Every client of the API can close sessions, so other machines must not reach it. */
const HOST = "127.0.0.1"

const infoOf = ({
  client,
  createdAt,
  handle,
  lastActiveAt,
  load,
  protocolVersion,
  upstreamSession
}: Session) =>
  new SessionInfo({
    handle,
    client,
    upstream: upstreamSession.name,
    protocolVersion,
    createdAt,
    lastActiveAt,
    ...load
  })

const sessions = HttpApiBuilder.group(AdminApi, "sessions", (handlers) =>
  Effect.gen(function* () {
    const sessions = yield* Sessions
    const find = (handle: string): Effect.Effect<Session, UnknownSession> =>
      Effect.suspend(() => {
        const session = sessions.list().find((session) => session.handle === handle)
        return session === undefined ? new UnknownSession({ handle }) : Effect.succeed(session)
      })
    return handlers
      .handle("list", ({ urlParams: { limit, offset } }) =>
        Effect.sync(() => {
          const all = sessions.list()
          const next = offset + limit
          return new SessionPage({
            sessions: all.slice(offset, next).map(infoOf),
            total: all.length,
            ...(next < all.length && { next })
          })
        })
      )
      .handle("show", ({ path }) => Effect.map(find(path.handle), infoOf))
      .handle("close", ({ path }) =>
        Effect.flatMap(find(path.handle), ({ id }) => Effect.asVoid(sessions.close(id, "closed")))
      )
  })
)

const metrics = HttpApiBuilder.group(AdminApi, "metrics", (handlers) =>
  Effect.gen(function* () {
    const { registry } = yield* Metrics
    register(registry, yield* HttpFront, yield* Sessions)
    return handlers.handle("text", () => Effect.promise(() => registry.metrics()))
  })
)

const originPolicy = new OriginPolicy({ host: HOST, allowHosts: [], allowOrigins: [] })

/** Rejects requests of web pages, which may reach the API through DNS rebinding. */
const guarded = <E, R>(
  app: HttpApp.Default<E, R>
): HttpApp.Default<E, R | HttpServerRequest.HttpServerRequest> =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) =>
    originPolicy.check(headers) === undefined
      ? app
      : Effect.succeed(
          HttpServerResponse.text(
            "The Host or Origin is not allowed: the admin API serves programs of this machine only",
            { status: 403 }
          )
        )
  )

/** Logs the address at every log level, because the port may be chosen by the system. */
const announced = HttpServer.addressFormattedWith((address) =>
  Logger.withMinimumLogLevel(Effect.logInfo(`admin: listening: ${address}`), LogLevel.All)
)

/** Serves the admin API until the layer's scope closes. Fails if the port is not available. */
export const layer = ({
  port
}: AdminOptions): Layer.Layer<never, ListenError, HttpFront | Metrics | Sessions> =>
  HttpApiBuilder.serve(guarded).pipe(
    Layer.provide(HttpApiBuilder.middlewareOpenApi({ path: "/openapi.json" })),
    Layer.provide(Layer.provide(HttpApiBuilder.api(AdminApi), [sessions, metrics])),
    Layer.merge(Layer.effectDiscard(announced)),
    Layer.provide(NodeHttpServer.layer(() => createServer(), { host: HOST, port })),
    Layer.mapError(({ cause }) => new ListenError({ host: HOST, port, option: "admin-port", cause }))
  )
