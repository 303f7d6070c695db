/** The sessions that are live in this process: opens, finds, restores and closes them. */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Runtime from "effect/Runtime"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { ClientResponse, Disconnect } from "./ClientResponse.js"
import { EventTracker } from "./EventTracker.js"
import { Interceptors } from "./Interceptor.js"
import * as Deadlines from "./internal/deadlines.js"
import type { Headers } from "./internal/headers.js"
import { InFlight } from "./internal/inFlight.js"
import { type ProxyError, SessionNotFound, ShuttingDown } from "./ProxyError.js"
import { Admission, type AdmissionOptions } from "./Sessions/Admission.js"
import type { SessionResources } from "./Sessions/lifecycle.js"
import { type OpenedSession, PendingOpen, runOpened } from "./Sessions/open.js"
import { makeAbandonedOpenings, makeSessionFibers } from "./Sessions/SessionFibers.js"
import { PendingRestore, runRestored } from "./Sessions/restore.js"
import {
  type CloseReason,
  handleOf,
  type Report,
  type Session,
  type SessionDeps
} from "./Sessions/Session.js"
import { Stateless } from "./Sessions/Stateless.js"
import { makeSweep, removeLeftRecords } from "./Sessions/Sweeper.js"
import { SessionStore } from "./SessionStore.js"
import { Telemetry } from "./Telemetry.js"
import type { Request } from "./Upstream.js"
import { UpstreamPool } from "./UpstreamPool.js"

export interface SessionsOptions {
  /**
   * True for concurrent sessions, false for one session at a time. In single-session mode, `initialize` replaces a
   * session that has not been used yet. Default: true.
   */
  readonly multiSession: boolean
  /** The maximum number of concurrent sessions. Default: 1000. */
  readonly maxSessions: number
  /** The maximum number of them per client address; `undefined` for no separate limit. Default: undefined. */
  readonly maxPerClient: number | undefined
  /** The maximum number of requests in flight in one session. Default: 256. */
  readonly maxExchanges: number
  /** The maximum number of exchanges in flight without a session (2026-07-28 and later). Default: 1000. */
  readonly maxStateless: number
  /** The maximum idle time of a session: no exchange in flight, no open stream, no message sent. Default: 30 min. */
  readonly sessionTimeout: Duration.DurationInput
  /** The interval between two sweeps for idle sessions. Default: 60 s. */
  readonly cleanupInterval: Duration.DurationInput
  /** The silence on a stream after which a comment is sent. Default: 15 s. */
  readonly keepAlive: Duration.DurationInput
  /** True to replace a lost upstream session by another one, under the same client session id. Default: true. */
  readonly recover: boolean
}

export const defaults: SessionsOptions = {
  multiSession: true,
  maxSessions: 1000,
  maxPerClient: undefined,
  maxExchanges: 256,
  maxStateless: 1000,
  sessionTimeout: Duration.minutes(30),
  cleanupInterval: Duration.seconds(60),
  keepAlive: Duration.seconds(15),
  recover: true
}

/** The current numbers of sessions, exchanges and streams. */
export interface SessionsSize {
  /** The number of sessions that are opening or live. */
  readonly sessions: number
  /** The number of exchanges in flight without a session. */
  readonly stateless: number
  /** The number of streams that clients hold open, in sessions and without one. */
  readonly streams: number
}

export class Sessions extends Context.Tag("shadowcat/Sessions")<
  Sessions,
  {
    readonly options: SessionsOptions

    /**
     * Opens a session: checks the limits, leases the upstream, relays `initialize`, stores the record, and passes on
     * the answer with the new id. Interrupt this effect when the client disconnects. `initialize` cannot be cancelled
     * (2025-11-25, Lifecycle), so the session then ends after the answer, because no client has its id.
     */
    readonly open: (
      request: Request,
      client: string,
      response: ClientResponse
    ) => Effect.Effect<OpenedSession, ProxyError>

    /** Returns the live session with this id. Synchronous, because every exchange calls it. */
    readonly get: (id: string) => Session | undefined

    /** True if the store may hold sessions that can be restored. */
    readonly restores: boolean

    /**
     * Returns the session with this id. Restores it from the store if it is not live; `headers` are those of the
     * request that needs it. Concurrent requests share one restoration. Fails with `SessionNotFound` if there is no
     * such session.
     */
    readonly restore: (id: string, headers: Headers) => Effect.Effect<Session, ProxyError>

    /** Returns all live sessions, oldest first. */
    readonly list: () => ReadonlyArray<Session>

    /** Relays a request without a session, of the client with this address. The response receives every outcome. */
    readonly exchange: (request: Request, client: string, response: ClientResponse) => Disconnect

    /** Closes a session and waits until its resources are released. Returns false if there is no such session. */
    readonly close: (id: string, reason: CloseReason) => Effect.Effect<boolean>

    /** Closes idle sessions. The layer does so regularly. */
    readonly sweep: Effect.Effect<void>

    /** Completes when no client waits for a response. Open streams do not count. */
    readonly idle: Effect.Effect<void>

    /**
     * Ends all exchanges and all sessions, and waits until their resources are released. Stored sessions are suspended,
     * so that the next process can restore them.
     */
    readonly drain: Effect.Effect<void>

    /** Completes in single-session mode when the session has ended and no other one has replaced it. */
    readonly over: Effect.Effect<CloseReason>

    readonly size: () => SessionsSize
  }
>() {}

/** Makes the service. When the scope closes, all sessions are drained. */
export const make = (
  options: SessionsOptions
): Effect.Effect<Sessions["Type"], never, EventTracker | SessionStore | UpstreamPool | Scope.Scope> =>
  Effect.gen(function* () {
    const pool = yield* UpstreamPool
    const store = yield* SessionStore
    const deps = yield* makeDeps(options)
    const resources: SessionResources = {
      admission: new Admission(admissionOptions(options)),
      registry: new Map<string, Session>(),
      deps
    }
    const { admission, registry } = resources
    const [upstream] = pool.upstreams
    const stateless = new Stateless({
      ...deps,
      upstream: upstream.stateless,
      maxStateless: options.maxStateless
    })
    const fibers = yield* makeSessionFibers(options.multiSession, resources)
    const background = yield* FiberSet.makeRuntime<never>()
    /** True if a session can continue in the next process. */
    const outlivesProcess =
      store.isDurable && (options.recover || pool.upstreams.some(({ keepsSessions }) => keepsSessions))
    let isDraining = false

    const abandoned = yield* makeAbandonedOpenings(fibers, deps.inFlight)

    /** Ends an unused session or the abandoned openings, so that another session can open in single-session mode. */
    const replaceUnused = Effect.suspend(() => {
      const unused = Array.from(registry.values()).find((session) => !session.isUsed)
      return unused === undefined ? abandoned.interruptAll : fibers.close(unused.id, "replaced")
    })

    const admitted = Effect.suspend(() => (options.multiSession ? Effect.void : replaceUnused)).pipe(
      Effect.andThen(() => (isDraining ? new ShuttingDown() : Effect.void))
    )

    const open = (request: Request, client: string, response: ClientResponse) =>
      Effect.gen(function* () {
        yield* Effect.onError(admitted, () => Effect.sync(() => response.settled()))
        const opening = new PendingOpen(client, upstream, request, response)
        const opened = opening.opened(() => abandoned.add(opening.id))
        // The fiber starts synchronously. Its first step checks the limits and counts the session.
        fibers.run(opening.id, runOpened(opening, resources))
        return yield* opened
      })

    const restoring = new Map<string, PendingRestore>()

    const restore = (id: string, headers: Headers): Effect.Effect<Session, ProxyError> =>
      Effect.suspend(() => {
        const live = registry.get(id)
        if (live !== undefined) return Effect.succeed(live)
        const inProgress = restoring.get(id)
        if (inProgress !== undefined) return inProgress.restored
        if (!outlivesProcess) return new SessionNotFound()
        if (isDraining) return new ShuttingDown()
        const closing = fibers.get(id)
        if (closing !== undefined) return Effect.andThen(Fiber.await(closing), restore(id, headers))
        const pending = new PendingRestore(id, headers, () => restoring.delete(id))
        restoring.set(id, pending)
        fibers.run(id, runRestored(pending, pool, resources))
        return pending.restored
      })

    const sweep = yield* makeSweep({
      store,
      pool,
      registry,
      isHere: (id) => fibers.get(id) !== undefined,
      upstreamSession: deps,
      fork: background
    })

    const drain = Effect.suspend(() => {
      isDraining = true
      stateless.cut(new ShuttingDown())
      return fibers.endAll(outlivesProcess ? "suspended" : "drained")
    })

    if (store.isDurable && !outlivesProcess) yield* removeLeftRecords({ pool, store })
    yield* sweep.pipe(
      Effect.andThen(Effect.schedule(sweep, Schedule.spaced(options.cleanupInterval))),
      Effect.forkScoped
    )
    yield* Effect.addFinalizer(() => drain)

    return Sessions.of({
      options,
      open,
      get: (id) => registry.get(id),
      restores: outlivesProcess,
      restore,
      list: () => Array.from(registry.values()),
      exchange: (request, client, response) => stateless.exchange(request, client, response),
      close: fibers.close,
      sweep,
      idle: deps.inFlight.idle,
      drain,
      over: fibers.over,
      size: () => ({
        sessions: admission.size,
        stateless: stateless.size,
        streams: Array.from(registry.values()).reduce(
          (sum, { load }) => sum + load.streams,
          stateless.streams
        )
      })
    })
  })

/** Makes the dependencies that all sessions share. */
const makeDeps = (
  options: SessionsOptions
): Effect.Effect<SessionDeps, never, EventTracker | SessionStore | Scope.Scope> =>
  Effect.gen(function* () {
    const runtime = yield* Effect.runtime()
    const report: Report = (error, id) => {
      const logged = Effect.logWarning("upstream: request failed", { message: error.message })
      Runtime.runFork(runtime)(
        id === undefined ? logged : Effect.annotateLogs(logged, "session", handleOf(id))
      )
    }
    const sessionTimeout = Duration.toMillis(options.sessionTimeout)
    return {
      clock: yield* Effect.clock,
      deadlines: yield* Deadlines.make,
      inFlight: new InFlight(),
      store: yield* SessionStore,
      telemetry: yield* Telemetry,
      tracker: yield* EventTracker,
      interceptors: yield* Interceptors,
      report,
      fork: yield* FiberSet.makeRuntime<never>(),
      recover: options.recover,
      keepAlive: Duration.toMillis(options.keepAlive),
      maxExchanges: options.maxExchanges,
      sessionTimeout,
      timeToLive: sessionTimeout + Duration.toMillis(options.cleanupInterval)
    }
  })

const admissionOptions = ({ maxPerClient, maxSessions, multiSession }: SessionsOptions): AdmissionOptions =>
  multiSession
    ? { maxSessions, maxPerClient, limit: "max-sessions" }
    : { maxSessions: 1, maxPerClient: undefined, limit: "multi-session" }

/** Provides the sessions of one proxy. When the layer's scope closes, all of them are drained. */
export const layer = (
  options?: Partial<SessionsOptions>
): Layer.Layer<Sessions, never, EventTracker | SessionStore | UpstreamPool> =>
  Layer.scoped(Sessions, make({ ...defaults, ...options }))

/** Provides `layer` with options from a `Config`. */
export const layerConfig = (
  options: Config.Config.Wrap<Partial<SessionsOptions>>
): Layer.Layer<Sessions, ConfigError, EventTracker | SessionStore | UpstreamPool> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
