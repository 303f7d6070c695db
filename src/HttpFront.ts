/** What clients speak to: a server of Streamable HTTP, and its orderly end. */
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { EventTracker } from "./EventTracker.js"
import { Router } from "./HttpFront/Router.js"
import { Budget } from "./internal/budget.js"
import { Connections } from "./HttpFront/Connections.js"
import * as Deadlines from "./internal/deadlines.js"
import { OriginPolicy } from "./HttpFront/OriginPolicy.js"
import { version } from "./internal/version.js"
import { ListenError } from "./ProxyError.js"
import { Sessions, type SessionsSize } from "./Sessions.js"
import { Telemetry } from "./Telemetry.js"
import { UpstreamPool } from "./UpstreamPool.js"

export interface HttpFrontOptions {
  /** The address to listen on. Default: 127.0.0.1. */
  readonly host: string
  /** The port to listen on; 0 picks a free one. Default: 8080. */
  readonly port: number
  /** The path of the MCP endpoint. Default: /mcp. */
  readonly path: string
  /** How many connections clients may have open. Default: 10,000. */
  readonly maxConnections: number
  /** How many bytes the body of a request may have. Default: 4 MiB. */
  readonly maxBody: number
  /** How many bytes of bodies may be held at once, of all clients. Default: 256 MiB. */
  readonly maxBuffered: number
  /** How long a client may stop sending a request or reading an answer. Default: 60 s. */
  readonly stallTimeout: Duration.DurationInput
  /** How long a shutdown waits for calls in flight. Default: 10 s. */
  readonly shutdownTimeout: Duration.DurationInput
  /** Hosts that clients may use beside localhost and `host`; `*` for all. Default: none. */
  readonly allowHosts: ReadonlyArray<string>
  /** Origins that pages may have beside those of localhost and `host`; `*` for all. Default: none. */
  readonly allowOrigins: ReadonlyArray<string>
}

export const defaults: HttpFrontOptions = {
  host: "127.0.0.1",
  port: 8080,
  path: "/mcp",
  maxConnections: 10_000,
  maxBody: 4 * 1024 * 1024,
  maxBuffered: 256 * 1024 * 1024,
  stallTimeout: Duration.seconds(60),
  shutdownTimeout: Duration.seconds(10),
  allowHosts: [],
  allowOrigins: []
}

export class HttpFront extends Context.Tag("shadowcat/HttpFront")<
  HttpFront,
  {
    /** The MCP endpoint, with the port that is really bound. */
    readonly url: URL
    /** How much there is of everything that is bounded, as `/health` tells it. */
    readonly health: () => Health
  }
>() {}

/** What `/health` says beside the status. */
export interface Health extends SessionsSize {
  readonly version: string
  readonly uptimeSeconds: number
  readonly connections: number
  /** Child processes; absent where the upstream is no command. */
  readonly children?: number | undefined
  /** The bytes of request bodies that are held. */
  readonly bufferedBytes: number
  /** The events of streams that are kept, and their bytes. */
  readonly events: number
  readonly eventBytes: number
  /** The bounds of these and of others; `maxPerClient` is absent where there is none. */
  readonly limits: {
    readonly maxSessions: number
    readonly maxPerClient?: number | undefined
    readonly maxExchanges: number
    readonly maxStateless: number
    readonly maxConnections: number
    readonly maxChildren?: number | undefined
    readonly maxBody: number
    readonly maxBuffered: number
    readonly maxEvents: number
    readonly maxEventBytes: number
    readonly maxTotalEventBytes: number
  }
}

/** What a front needs. */
type Services = Sessions | UpstreamPool | EventTracker

/** How long the last answers may take to reach their clients, when everything else is closed. */
const FLUSH_TIMEOUT = Duration.seconds(1)

/** How long a connection is silent before TCP asks whether the client is still there, in milliseconds. */
const KEEP_ALIVE_DELAY = 60_000

/** A request may arrive slowly, but not for longer than so many times the stall timeout. */
const SLOWEST_REQUEST = 5

/**
 * Listens until the scope closes. Then no new work is taken, calls in flight may finish, all sessions are closed,
 * and last the connections. Fails when the address cannot be had.
 */
export const make = (
  options: HttpFrontOptions
): Effect.Effect<HttpFront["Type"], ListenError, Services | Scope.Scope> =>
  Effect.gen(function* () {
    const sessions = yield* Sessions
    const { children } = yield* UpstreamPool
    const tracker = yield* EventTracker
    const telemetry = yield* Telemetry
    const deadlines = yield* Deadlines.make
    const startedAt = process.hrtime.bigint()
    const connections = new Connections(options.maxConnections)
    const budget = new Budget(options.maxBuffered, options.maxBody)
    const stallTimeout = Duration.toMillis(options.stallTimeout)
    const health = (): Health => ({
      version,
      uptimeSeconds: Number(process.hrtime.bigint() - startedAt) / 1e9,
      ...sessions.size(),
      connections: connections.size,
      children: children?.size(),
      bufferedBytes: budget.used,
      events: tracker.size().events,
      eventBytes: tracker.size().bytes,
      limits: {
        maxSessions: sessions.options.multiSession ? sessions.options.maxSessions : 1,
        maxPerClient: sessions.options.maxPerClient,
        maxExchanges: sessions.options.maxExchanges,
        maxStateless: sessions.options.maxStateless,
        maxConnections: options.maxConnections,
        maxChildren: children?.bound,
        maxBody: options.maxBody,
        maxBuffered: options.maxBuffered,
        maxEvents: tracker.options.maxEvents,
        maxEventBytes: tracker.options.maxEventBytes,
        maxTotalEventBytes: tracker.options.maxTotalEventBytes
      }
    })
    const router = new Router({
      sessions,
      connections,
      originPolicy: new OriginPolicy(options),
      response: { budget, deadlines, telemetry, maxBody: options.maxBody, stallTimeout },
      run: yield* FiberSet.makeRuntime<never>(),
      path: options.path,
      health
    })
    const server = createServer(
      {
        // A client that has vanished, asleep or cut off, is told apart from one whose stream is silent.
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_DELAY,
        headersTimeout: stallTimeout,
        requestTimeout: SLOWEST_REQUEST * stallTimeout,
        connectionsCheckingInterval: Math.min(stallTimeout, 5_000)
      },
      (request, response) => router.handle(request, response)
    )
    connections.watch(server)

    const address = yield* Effect.acquireRelease(listen(server, options), () =>
      Effect.gen(function* () {
        router.isDraining = true
        yield* sessions.idle.pipe(Effect.interruptible, Effect.timeoutOption(options.shutdownTimeout))
        yield* sessions.drain
        yield* close(server, connections)
      })
    )
    return HttpFront.of({ url: urlOf(address, options.path), health })
  })

const listen = (server: Server, { host, port }: HttpFrontOptions): Effect.Effect<AddressInfo, ListenError> =>
  Effect.async((resume) => {
    const failed = (cause: Error) => resume(new ListenError({ host, port, cause }))
    server.once("error", failed)
    server.listen({ host, port }, () => {
      server.off("error", failed)
      const address = server.address()
      resume(
        typeof address === "object" && address !== null
          ? Effect.succeed(address)
          : new ListenError({ host, port, cause: new Error("it is no network address") })
      )
    })
  })

const close = (server: Server, connections: Connections): Effect.Effect<void> =>
  Effect.suspend(() => {
    const closed = Effect.async<void>((resume) => {
      server.close(() => resume(Effect.void))
      server.closeIdleConnections()
      connections.closeUnused()
    })
    return closed.pipe(
      Effect.interruptible,
      Effect.timeoutOption(FLUSH_TIMEOUT),
      Effect.andThen(() => server.closeAllConnections())
    )
  })

const urlOf = ({ address, family, port }: AddressInfo, path: string): URL =>
  new URL(`http://${family === "IPv6" ? `[${address}]` : address}:${port}${path}`)

/** A server of Streamable HTTP for the sessions there are. */
export const layer = (options?: Partial<HttpFrontOptions>): Layer.Layer<HttpFront, ListenError, Services> =>
  Layer.scoped(HttpFront, make({ ...defaults, ...options }))

/** The same, with its options read from a `Config`. */
export const layerConfig = (
  options: Config.Config.Wrap<Partial<HttpFrontOptions>>
): Layer.Layer<HttpFront, ListenError | ConfigError, Services> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
