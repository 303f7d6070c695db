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
   * True for many sessions at once, false for one at a time. With one, `initialize` replaces a session that has not been
   * used yet. Default: true.
   */
  readonly multiSession: boolean
  /** How many sessions there may be at once. Default: 1000. */
  readonly maxSessions: number
  /** How many of them one client address may have; `undefined` for no limit of its own. Default: undefined. */
  readonly maxPerClient: number | undefined
  /** How many requests of one session may be in flight. Default: 256. */
  readonly maxExchanges: number
  /** How many exchanges without a session (2026-07-28 and later) may be in flight. Default: 1000. */
  readonly maxStateless: number
  /** How long a session may be idle: no exchange in flight, no stream open, nothing sent. Default: 30 min. */
  readonly sessionTimeout: Duration.DurationInput
  /** The interval between two sweeps for idle sessions. Default: 60 s. */
  readonly cleanupInterval: Duration.DurationInput
  /** How long a stream may be silent before a comment is sent. Default: 15 s. */
  readonly keepAlive: Duration.DurationInput
  /** True if a session that the upstream has lost is replaced there, under the same client session id. Default: true. */
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

/** How much there is at present. */
export interface SessionsSize {
  /** Sessions, with those that are being opened. */
  readonly sessions: number
  /** Exchanges without a session. */
  readonly stateless: number
  /** Streams that clients hold open, in sessions or without one. */
  readonly streams: number
}

export class Sessions extends Context.Tag("shadowcat/Sessions")<
  Sessions,
  {
    readonly options: SessionsOptions

    /**
     * Opens a session: takes a place, leases the upstream, relays `initialize`, stores the record, and passes on the
     * answer under the new id. An interruption means that the client has disconnected. `initialize` is not cancelled
     * (2025-11-25, Lifecycle), but the session, whose id nobody knows, ends as soon as it is answered.
     */
    readonly open: (
      request: Request,
      client: string,
      response: ClientResponse
    ) => Effect.Effect<OpenedSession, ProxyError>

    /** The live session with this id. Synchronous, because every exchange calls it. */
    readonly get: (id: string) => Session | undefined

    /** True if the store may hold sessions that can be restored. */
    readonly restores: boolean

    /**
     * The session with this id: a live one, or one that is restored from the store for a request with these header
     * fields. A session is restored once, however many requests name it. Fails with `SessionNotFound` if there is none.
     */
    readonly restore: (id: string, headers: Headers) => Effect.Effect<Session, ProxyError>

    /** All live sessions, oldest first. */
    readonly list: () => ReadonlyArray<Session>

    /** Relays a request without a session, of the client with this address. Every outcome reaches the response. */
    readonly exchange: (request: Request, client: string, response: ClientResponse) => Disconnect

    /** Closes a session and waits until everything that it held is released. Returns false if there is none. */
    readonly close: (id: string, reason: CloseReason) => Effect.Effect<boolean>

    /** Closes idle sessions. The layer does so regularly. */
    readonly sweep: Effect.Effect<void>

    /** Completes as soon as no client waits for a response. Open streams do not count. */
    readonly idle: Effect.Effect<void>

    /**
     * Closes all sessions, for good or, if they are stored, until the next start. Ends all exchanges, and waits until
     * everything is released.
     */
    readonly drain: Effect.Effect<void>

    /** In single-session mode: completes when the session has ended and no other has replaced it. */
    readonly over: Effect.Effect<CloseReason>

    readonly size: () => SessionsSize
  }
>() {}

/** Makes the service. Closing the scope drains it. */
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

    /** In single-session mode: ends a session that has only been tried out. */
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
        // The fiber starts synchronously: it checks the limits and takes a place as its first step.
        fibers.run(opening.id, runOpened(opening, resources))
        return yield* opened
      })

    const restoring = new Map<string, PendingRestore>()

    const restore = (id: string, headers: Headers): Effect.Effect<Session, ProxyError> =>
      Effect.suspend(() => {
        const live = registry.get(id)
        if (live !== undefined) return Effect.succeed(live)
        const underWay = restoring.get(id)
        if (underWay !== undefined) return underWay.restored
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

/** What all sessions share. */
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

/** The sessions of one proxy. When the layer's scope closes, all of them are closed. */
export const layer = (
  options?: Partial<SessionsOptions>
): Layer.Layer<Sessions, never, EventTracker | SessionStore | UpstreamPool> =>
  Layer.scoped(Sessions, make({ ...defaults, ...options }))

/** `layer` with options from a `Config`. */
export const layerConfig = (
  options: Config.Config.Wrap<Partial<SessionsOptions>>
): Layer.Layer<Sessions, ConfigError, EventTracker | SessionStore | UpstreamPool> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
