/** The parts of a session that its scope owns, for sessions that are opened or restored. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type { SessionLog } from "../EventTracker.js"
import { intercept } from "../Interceptor.js"
import { acquireReleaseLight } from "../internal/acquireReleaseLight.js"
import { hasPrimingEvents } from "../Protocol.js"
import type { StoreError } from "../ProxyError.js"
import { Streams } from "../Streams.js"
import { Backlog } from "../Streams/Backlog.js"
import { ResumableUpstream } from "../Streams/ResumableUpstream.js"
import { isSuspended } from "../Upstream.js"
import type { PooledUpstream } from "../UpstreamPool.js"
import * as UpstreamSession from "../UpstreamSession.js"
import type { Admission } from "./Admission.js"
import { removeRecord } from "./records.js"
import { handleOf, type Session, type SessionDeps, type SessionParts } from "./Session.js"

/** The services and shared state from which sessions are made. */
export interface SessionResources {
  readonly admission: Admission
  readonly registry: Map<string, Session>
  readonly deps: SessionDeps
}

/** The upstream side of a session, up to the interceptors. */
export type UpstreamParts = Pick<SessionParts, "handle" | "upstreamSession" | "resumable" | "upstream">

/** Creates the upstream side of a session. When the scope closes, exchanges are aborted and the lease is released. */
export const makeUpstream = (
  id: string,
  client: string,
  pooled: PooledUpstream,
  deps: SessionDeps
): Effect.Effect<UpstreamParts, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { fork, telemetry } = deps
    const handle = handleOf(id)
    const upstreamSession = yield* UpstreamSession.make(pooled, deps)
    const resumable = yield* acquireReleaseLight(
      Effect.sync(
        () =>
          new ResumableUpstream({
            upstream: upstreamSession,
            telemetry,
            report: (error) => deps.report(error, id),
            fork
          })
      ),
      (resumable) => Effect.sync(() => resumable.close())
    )
    const upstream = intercept(deps.interceptors, resumable, {
      session: handle,
      client,
      upstream: pooled.name,
      era: "legacy",
      revision: () => upstreamSession.revision
    })
    return { handle, upstreamSession, resumable, upstream }
  })

/** Opens the log of a session's streams and starts to track them. Returns `undefined` if streams are not tracked. */
export const openStreams = (
  id: string,
  protocolVersion: string,
  resumable: ResumableUpstream,
  deps: SessionDeps
): Effect.Effect<Streams | undefined, StoreError, Scope.Scope> =>
  Effect.map(openLog(id, deps), (log) => {
    if (log === undefined) return undefined
    resumable.track(log)
    const { deadlines, keepAlive, telemetry, tracker } = deps
    const { maxEventBytes, maxEvents, retry } = tracker.options
    return new Streams(
      log,
      {
        deadlines,
        telemetry,
        keepAlive,
        retry: Duration.toMillis(retry),
        hasPrimingEvents: hasPrimingEvents(protocolVersion),
        limits: { events: maxEvents, bytes: maxEventBytes },
        backlog: new Backlog()
      },
      id
    )
  })

/**
 * Adds a session to the registry until the scope closes. When the scope closes, it first cuts the session's exchanges.
 * Then it removes the session's record, unless the session is suspended.
 */
export const register = (
  session: Session,
  { deps, registry }: SessionResources
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    yield* Scope.addFinalizerExit(scope, (exit) =>
      isSuspended(exit) ? Effect.void : removeRecord(deps.store, session.id)
    )
    registry.set(session.id, session)
    yield* Scope.addFinalizer(
      scope,
      Effect.sync(() => {
        registry.delete(session.id)
        session.cut()
      })
    )
  })

/** Opens the log of a session's streams. When the scope closes, the log is closed, or suspended with its session. */
const openLog = (
  id: string,
  { tracker }: SessionDeps
): Effect.Effect<SessionLog | undefined, StoreError, Scope.Scope> =>
  acquireReleaseLight(tracker.open(id), (log, exit) => {
    if (log === undefined) return Effect.void
    return isSuspended(exit) ? log.suspend : Effect.sync(() => log.close())
  })
