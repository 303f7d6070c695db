/** Serves the admin API of a running proxy, to this machine alone. */
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
  /** The port to listen on, of 127.0.0.1; 0 picks a free one. */
  readonly port: number
}

/** Whoever may ask can close sessions, so nobody else's machine may. */
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

const gatekeeper = new OriginPolicy({ host: HOST, allowHosts: [], allowOrigins: [] })

/** A page in a browser of this machine must not reach the API through a name that it rebinds. */
const guarded = <E, R>(
  app: HttpApp.Default<E, R>
): HttpApp.Default<E, R | HttpServerRequest.HttpServerRequest> =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) =>
    gatekeeper.check(headers) === undefined
      ? app
      : Effect.succeed(HttpServerResponse.text("This API is for programs of this machine", { status: 403 }))
  )

/** Whoever started this has to learn the port, however little else is to be logged. */
const announced = HttpServer.addressFormattedWith((address) =>
  Logger.withMinimumLogLevel(Effect.logInfo(`admin API on ${address}`), LogLevel.All)
)

/** The admin API, until the layer's scope closes. Fails when the port cannot be had. */
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
