/** The live registry: opens, finds and closes sessions, and lets go of those that nobody uses. */
import * as Arr from "effect/Array"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberMap from "effect/FiberMap"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Admission, type AdmissionOptions as Places } from "./Sessions/Admission.js"
import { EventTracker } from "./EventTracker.js"
import type { ClientResponse, Disconnect } from "./ClientResponse.js"
import * as Deadlines from "./internal/deadlines.js"
import { InFlight } from "./internal/inFlight.js"
import type { Headers } from "./internal/headers.js"
import * as Opening from "./Sessions/open.js"
import { type ProxyError, SessionNotFound, ShuttingDown } from "./ProxyError.js"
import * as Revival from "./Sessions/restore.js"
import { type CloseReason, handleOf, type Report, type Session, type Shared } from "./Sessions/Session.js"
import { SessionRecord, SessionStore } from "./SessionStore.js"
import { Stateless } from "./Sessions/Stateless.js"
import { Telemetry } from "./Telemetry.js"
import type { Request } from "./Upstream.js"
import { UpstreamPool } from "./UpstreamPool.js"
import * as UpstreamSession from "./UpstreamSession.js"

export interface SessionsOptions {
  /**
   * Whether there may be many sessions, or one after the other. With one, `initialize` replaces a session that
   * has not been used yet. Default: true.
   */
  readonly multiSession: boolean
  /** How many sessions there may be at once. Default: 1000. */
  readonly maxSessions: number
  /** How many of them one client address may have; `undefined` for no bound of its own. Default: undefined. */
  readonly maxPerClient: number | undefined
  /** How many requests of one session may be in flight. Default: 256. */
  readonly maxExchanges: number
  /** How many exchanges without a session (2026-07-28 and later) may be in flight. Default: 1000. */
  readonly maxStateless: number
  /** How long a session may be idle: no exchange in flight, no stream open, nothing sent. Default: 30 min. */
  readonly sessionTimeout: Duration.DurationInput
  /** How often idle sessions are looked for. Default: 60 s. */
  readonly cleanupInterval: Duration.DurationInput
  /** How long a stream may be silent before a comment is sent. Default: 15 s. */
  readonly keepAlive: Duration.DurationInput
  /** Whether a session that the upstream has lost is replaced there, under the client's own id. Default: true. */
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

export interface Size {
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
     * Opens a session: takes a place, leases the upstream, relays `initialize`, stores the record, and passes on
     * the answer under the new id. An interruption means that the client has gone: `initialize` is not cancelled
     * (Lifecycle), but the session, whose id nobody knows, ends as soon as it is answered.
     */
    readonly open: (
      request: Request,
      client: string,
      answer: ClientResponse
    ) => Effect.Effect<Opening.Opened, ProxyError>

    /** The live session with this id. Synchronous, for every exchange asks. */
    readonly get: (id: string) => Session | undefined

    /** Whether there may be sessions that an earlier process has left. */
    readonly restores: boolean

    /**
     * The session with this id, live or stored: one that an earlier process has left goes on, for a request with these
     * fields. However many ask at once, it is revived once. Fails with `SessionNotFound` when there is none.
     */
    readonly restore: (id: string, headers: Headers) => Effect.Effect<Session, ProxyError>

    /** All live sessions, oldest first. */
    readonly list: () => ReadonlyArray<Session>

    /** Relays a request that belongs to no session. The answer is told everything, refusals too. */
    readonly exchange: (request: Request, answer: ClientResponse) => Disconnect

    /** Closes a session and waits until all that it held is released. False when there is none. */
    readonly close: (id: string, reason: CloseReason) => Effect.Effect<boolean>

    /** Closes what is idle. The layer does so regularly. */
    readonly sweep: Effect.Effect<void>

    /** Completes as soon as no client waits for an answer; open streams do not count. */
    readonly quiet: Effect.Effect<void>

    /** Closes all sessions, for good or, where they are stored, until the next start; cuts all exchanges, and waits until everything is released. */
    readonly drain: Effect.Effect<void>

    /** In single-session mode: completes when the session has ended, without another in its place. */
    readonly over: Effect.Effect<CloseReason>

    /** How much there is at present. */
    readonly size: () => Size
  }
>() {}

/** How long an `initialize` may go on that nobody waits for any more. */
const LEFT_PATIENCE = Duration.seconds(60)

/** How many sessions that have expired are ended upstream at once. */
const MAX_ENDINGS = 8

export const make = (
  options: SessionsOptions
): Effect.Effect<Sessions["Type"], never, EventTracker | SessionStore | UpstreamPool | Scope.Scope> =>
  Effect.gen(function* () {
    const pool = yield* UpstreamPool
    const store = yield* SessionStore
    const deadlines = yield* Deadlines.make
    const telemetry = yield* Telemetry
    const inFlight = new InFlight()
    const registry = new Map<string, Session>()
    const admission = new Admission(places(options))
    const runtime = yield* Effect.runtime()
    const report: Report = (error, id) => {
      const logged = Effect.logWarning("upstream failed", { message: error.message })
      Runtime.runFork(runtime)(
        id === undefined ? logged : Effect.annotateLogs(logged, "session", handleOf(id))
      )
    }
    const keepAlive = Duration.toMillis(options.keepAlive)
    const stateless = new Stateless(
      pool.stateless,
      deadlines,
      inFlight,
      telemetry,
      report,
      keepAlive,
      options.maxStateless
    )
    const shared: Shared = {
      keepAlive,
      tracker: yield* EventTracker,
      fork: yield* FiberSet.makeRuntime<never>(),
      clock: yield* Effect.clock,
      deadlines,
      inFlight,
      store,
      telemetry,
      report,
      maxExchanges: options.maxExchanges,
      sessionTimeout: Duration.toMillis(options.sessionTimeout),
      timeToLive: Duration.toMillis(options.sessionTimeout) + Duration.toMillis(options.cleanupInterval)
    }
    const terms = { pool, deadlines, telemetry, recover: options.recover, fork: shared.fork }
    const resources: Opening.Resources = { admission, terms, registry, shared }
    /** Whether a session can go on in the next process. */
    const outlives = store.isDurable && (pool.keepsSessions || options.recover)
    const revivals = new Map<string, Revival.Revival>()
    const over = yield* Deferred.make<CloseReason>()
    const fibers = yield* FiberMap.make<string, void, never>()
    const run = yield* FiberMap.runtime(fibers)()

    const close = (id: string, reason: CloseReason): Effect.Effect<boolean> =>
      Effect.suspend(() => {
        registry.get(id)?.end(reason)
        return Option.match(FiberMap.unsafeGet(fibers, id), {
          onNone: () => Effect.succeed(false),
          onSome: (fiber) => Effect.as(Fiber.await(fiber), true)
        })
      })

    /** The openings whose clients have gone. */
    const left = new Map<string, Fiber.Fiber<void>>()
    const watch = yield* FiberSet.makeRuntime<never>()

    /** An answer may still come, and with it a session to be ended; but a place is not kept for it for ever. */
    const leave = (id: string): void => {
      const fiber = Option.getOrUndefined(FiberMap.unsafeGet(fibers, id))
      if (fiber === undefined) return
      inFlight.end()
      left.set(id, fiber)
      watch(
        Fiber.await(fiber).pipe(
          Effect.timeoutOption(LEFT_PATIENCE),
          Effect.andThen(Fiber.interrupt(fiber)),
          Effect.ensuring(Effect.sync(() => left.delete(id)))
        )
      )
    }

    /** In single-session mode: makes room, if the session that there is has only been tried out. */
    const replaceUnused = Effect.suspend(() => {
      const unused = Array.from(registry.values()).find((session) => !session.isUsed)
      if (unused !== undefined) return close(unused.id, "replaced")
      return Effect.forEach(left.values(), Fiber.interrupt, { discard: true })
    })

    const life = (id: string, whole: Effect.Effect<CloseReason, ProxyError>): Effect.Effect<void> =>
      whole.pipe(
        Effect.tap((reason) =>
          options.multiSession || makesRoom.has(reason) ? Effect.void : Deferred.succeed(over, reason)
        ),
        Effect.tapBoth({
          onSuccess: (reason) => {
            telemetry.sessionClosed(reason)
            return Effect.logInfo("session closed", { reason })
          },
          onFailure: ({ _tag, message }) =>
            _tag === "SessionNotFound"
              ? Effect.logDebug("no such session")
              : Effect.logWarning("no session opened", { message })
        }),
        Effect.ignore,
        Effect.catchAllDefect((cause) => Effect.logError("defect", cause)),
        Effect.annotateLogs("session", handleOf(id))
      )

    const restore = (id: string, headers: Headers): Effect.Effect<Session, ProxyError> =>
      Effect.suspend(() => {
        const live = registry.get(id)
        if (live !== undefined) return Effect.succeed(live)
        const underWay = revivals.get(id)
        if (underWay !== undefined) return underWay.revived
        if (!outlives) return new SessionNotFound()
        if (isDraining) return new ShuttingDown()
        const ending = Option.getOrUndefined(FiberMap.unsafeGet(fibers, id))
        if (ending !== undefined) return Effect.andThen(Fiber.await(ending), restore(id, headers))
        const revival = new Revival.Revival(id, headers, () => revivals.delete(id))
        revivals.set(id, revival)
        run(id, life(id, Revival.live(revival, resources)))
        return revival.revived
      })

    const endings = yield* Effect.makeSemaphore(MAX_ENDINGS)
    /** What has expired in the store alone still has a session upstream. */
    const endUpstream = (record: SessionRecord): Effect.Effect<void> =>
      record.upstreamSessionId === undefined || record.upstream !== pool.name
        ? Effect.void
        : Effect.gen(function* () {
            const upstream = yield* UpstreamSession.make(terms)
            yield* upstream.adopt(record.upstreamSessionId)
            upstream.negotiated(record.protocolVersion)
          }).pipe(Effect.scoped, Effect.ignore)

    /** The whole process may have slept for longer than a session may be idle, and the session wakes with it. */
    const keep = (record: SessionRecord) =>
      Effect.suspend(() => {
        const live = registry.get(record.id)
        if (live === undefined || live.reason !== undefined) return Effect.void
        const { lastActiveAt } = live
        return Effect.catchTag(
          store.create(new SessionRecord({ ...record, lastActiveAt })),
          "SessionExists",
          () => Effect.void
        )
      })

    /** What a process has left that was killed is of no use where nothing can go on with it. */
    const removeLeft = Effect.flatMap(store.list, (left) =>
      Effect.forEach(
        left.filter(({ upstream }) => upstream === pool.name),
        ({ id }) => store.remove(id),
        { discard: true }
      )
    ).pipe(
      Effect.catchAll(({ message }) => Effect.logWarning("sessions that are over stay stored", { message }))
    )

    const sweep = Effect.suspend(() => {
      for (const session of registry.values()) session.expire()
      return Effect.flatMap(store.removeExpired, (expired) => {
        // What has a fiber here ends its upstream session itself; once that is over, nobody can tell any more.
        const [left, here] = Arr.partition(expired, ({ id }) => FiberMap.unsafeHas(fibers, id))
        for (const record of left) watch(endings.withPermits(1)(endUpstream(record)))
        return Effect.forEach(here, keep, { discard: true })
      })
    }).pipe(
      Effect.catchAll(({ message }) => Effect.logError("sessions that have expired stay", { message })),
      Effect.catchAllDefect((cause) => Effect.logError("defect", cause))
    )

    let isDraining = false
    const drain = Effect.suspend(() => {
      isDraining = true
      stateless.cut(new ShuttingDown())
      for (const [id, fiber] of fibers) {
        const session = registry.get(id)
        if (session === undefined) fiber.unsafeInterruptAsFork(FiberId.none)
        else session.end(outlives ? "suspended" : "drained")
      }
      return FiberMap.awaitEmpty(fibers)
    })

    const admitted = Effect.suspend(() => (options.multiSession ? Effect.void : replaceUnused)).pipe(
      Effect.andThen(() => (isDraining ? new ShuttingDown() : Effect.void))
    )

    if (store.isDurable && !outlives) yield* removeLeft
    yield* sweep.pipe(
      Effect.andThen(Effect.schedule(sweep, Schedule.spaced(options.cleanupInterval))),
      Effect.forkScoped
    )
    yield* Effect.addFinalizer(() => drain)

    return Sessions.of({
      options,
      open: (request, client, answer) =>
        Effect.gen(function* () {
          yield* Effect.onError(admitted, () => Effect.sync(() => answer.settled()))
          const opening = new Opening.Opening(client, request, answer)
          const opened = opening.opened(() => leave(opening.id))
          // The fiber starts at once: to check the bounds and to take a place is its first step.
          run(opening.id, life(opening.id, Opening.live(opening, resources)))
          return yield* opened
        }),
      get: (id) => registry.get(id),
      restores: outlives,
      restore,
      list: () => Array.from(registry.values()),
      exchange: (request, answer) => stateless.exchange(request, answer),
      close,
      sweep,
      quiet: inFlight.idle,
      drain,
      over: Deferred.await(over),
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

/** What ends a session, and leaves its place to the next one where there is one at a time. */
const makesRoom: ReadonlySet<CloseReason> = new Set(["replaced", "abandoned"])

const places = ({ maxPerClient, maxSessions, multiSession }: SessionsOptions): Places =>
  multiSession
    ? { maxSessions, maxPerClient, limit: "max-sessions" }
    : { maxSessions: 1, maxPerClient: undefined, limit: "multi-session" }

/** The sessions of one proxy, until the layer's scope closes; then all of them are closed. */
export const layer = (
  options?: Partial<SessionsOptions>
): Layer.Layer<Sessions, never, EventTracker | SessionStore | UpstreamPool> =>
  Layer.scoped(Sessions, make({ ...defaults, ...options }))

/** The same, with its options read from a `Config`. */
export const layerConfig = (
  options: Config.Config.Wrap<Partial<SessionsOptions>>
): Layer.Layer<Sessions, ConfigError, EventTracker | SessionStore | UpstreamPool> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
