/** The HTTP front: a server of Streamable HTTP, and its graceful shutdown. */
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
import { MAX_BODY, SHUTDOWN_TIMEOUT } from "./internal/frontDefaults.js"
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
  /** The maximum number of client connections. Default: 10,000. */
  readonly maxConnections: number
  /** The maximum size of a request body, in bytes. Default: 4 MiB. */
  readonly maxBody: number
  /** The maximum size of all request bodies in memory, in bytes. Default: 256 MiB. */
  readonly maxBuffered: number
  /** The maximum time without progress of a client that sends a request or reads a response. Default: 60 s. */
  readonly stallTimeout: Duration.DurationInput
  /** The maximum time that a shutdown waits for calls in flight. Default: 10 s. */
  readonly shutdownTimeout: Duration.DurationInput
  /** The allowed hosts in addition to localhost and `host`; `*` allows all. Default: none. */
  readonly allowHosts: ReadonlyArray<string>
  /** The allowed origins in addition to those of localhost and `host`; `*` allows all. Default: none. */
  readonly allowOrigins: ReadonlyArray<string>
}

export const defaults: HttpFrontOptions = {
  host: "127.0.0.1",
  port: 8080,
  path: "/mcp",
  maxConnections: 10_000,
  maxBody: MAX_BODY,
  maxBuffered: 256 * 1024 * 1024,
  stallTimeout: Duration.seconds(60),
  shutdownTimeout: SHUTDOWN_TIMEOUT,
  allowHosts: [],
  allowOrigins: []
}

export class HttpFront extends Context.Tag("shadowcat/HttpFront")<
  HttpFront,
  {
    /** The URL of the MCP endpoint, with the actual port. */
    readonly url: URL
    /** Returns the current values and limits that `/health` shows. */
    readonly health: () => Health
  }
>() {}

/** The document at `/health`, without the status. */
export interface Health extends SessionsSize {
  readonly version: string
  readonly uptimeSeconds: number
  readonly connections: number
  /** The number of child processes; absent if the upstream is not a command. */
  readonly children?: number | undefined
  /** The bytes of request bodies in memory. */
  readonly bufferedBytes: number
  /** The number of retained events, and their size in bytes. */
  readonly events: number
  readonly eventBytes: number
  /** The limits of these and other values. An absent limit is not set. */
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

/** The services that an HTTP front needs. */
type HttpFrontDeps = Sessions | UpstreamPool | EventTracker

/** The maximum time that a shutdown waits for the last responses to be sent. */
const FLUSH_TIMEOUT = Duration.seconds(1)

/** The idle time of a connection before the first TCP keep-alive probe, in milliseconds. */
const KEEP_ALIVE_DELAY = 60_000

/** The maximum time until a request has arrived completely, as a multiple of the stall timeout. */
const REQUEST_TIMEOUT_FACTOR = 5

/**
 * Listens until the scope closes. Then it rejects new requests, waits for calls in flight, closes all sessions, and
 * then all connections. Fails if the address is not available.
 */
export const make = (
  options: HttpFrontOptions
): Effect.Effect<HttpFront["Type"], ListenError, HttpFrontDeps | Scope.Scope> =>
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
        // TCP keep-alive detects a client that has disappeared during a silent stream.
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_DELAY,
        headersTimeout: stallTimeout,
        requestTimeout: REQUEST_TIMEOUT_FACTOR * stallTimeout,
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
    const fail = (cause: Error) => resume(new ListenError({ host, port, cause }))
    server.once("error", fail)
    server.listen({ host, port }, () => {
      server.off("error", fail)
      const address = server.address()
      resume(
        typeof address === "object" && address !== null
          ? Effect.succeed(address)
          : new ListenError({ host, port, cause: new Error("it is not a network address") })
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

/** Provides the HTTP front. Omitted options have their defaults. */
export const layer = (
  options?: Partial<HttpFrontOptions>
): Layer.Layer<HttpFront, ListenError, HttpFrontDeps> =>
  Layer.scoped(HttpFront, make({ ...defaults, ...options }))

/** Provides the HTTP front, with options from a `Config`. */
export const layerConfig = (
  options: Config.Config.Wrap<Partial<HttpFrontOptions>>
): Layer.Layer<HttpFront, ListenError | ConfigError, HttpFrontDeps> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
