/** Restores a session that an earlier process or another node stored. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Headers } from "../internal/headers.js"
import { type ProxyError, SessionNotFound, ShuttingDown } from "../ProxyError.js"
import { suspended } from "../Upstream.js"
import type { UpstreamPool } from "../UpstreamPool.js"
import { makeUpstream, openStreams, register, type SessionResources } from "./lifecycle.js"
import { negotiatedIn } from "./records.js"
import { type CloseReason, Session } from "./Session.js"

/** A session that is being restored. All its requests wait for the same result. */
export class PendingRestore {
  private readonly result = Deferred.unsafeMake<Session, ProxyError>(FiberId.none)

  constructor(
    readonly id: string,
    /** The header fields of the first request for the session, which may hold credentials. */
    readonly headers: Headers,
    /** Called when the result is known, before it is delivered. */
    private readonly onSettled: () => void
  ) {}

  get restored(): Effect.Effect<Session, ProxyError> {
    return Deferred.await(this.result)
  }

  settle(exit: Exit.Exit<Session, ProxyError>): void {
    this.onSettled()
    Deferred.unsafeDone(this.result, Exit.isInterrupted(exit) ? Effect.fail(new ShuttingDown()) : exit)
  }
}

/**
 * Restores a session in a new scope and waits for its end. Succeeds with the reason for the end. If the session cannot
 * be restored, its record and its upstream session stay unchanged.
 */
export const runRestored = (
  pending: PendingRestore,
  pool: UpstreamPool["Type"],
  resources: SessionResources
): Effect.Effect<CloseReason, ProxyError> =>
  Effect.uninterruptibleMask((unmask) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const restored = yield* Effect.exit(unmask(Scope.extend(restore(pending, pool, resources), scope)))
      pending.settle(restored)
      if (Exit.isFailure(restored)) {
        yield* Scope.close(scope, suspended)
        return yield* Effect.failCause(restored.cause)
      }
      const { client, ended, protocolVersion, upstreamSession } = restored.value
      resources.deps.telemetry.sessionRestored()
      yield* Effect.logInfo("session: restored", { client, protocolVersion, upstream: upstreamSession.name })
      const over = yield* Effect.exit(unmask(Deferred.await(ended)))
      yield* Scope.close(scope, over)
      return yield* over
    })
  )

/** Makes the session from its record, without a request to the upstream. */
const restore = (
  { headers, id }: PendingRestore,
  pool: UpstreamPool["Type"],
  resources: SessionResources
): Effect.Effect<Session, ProxyError, Scope.Scope> =>
  Effect.uninterruptibleMask((unmask) =>
    Effect.gen(function* () {
      const { admission, deps } = resources
      const stored = yield* unmask(deps.store.get(id))
      if (Option.isNone(stored)) return yield* new SessionNotFound()
      const record = stored.value
      // The record belongs to an upstream that is not configured. No other upstream may receive its session id.
      const pooled = pool.get(record.upstream)
      if (pooled === undefined) return yield* new SessionNotFound()
      const { client, createdAt, protocolVersion } = record
      yield* admission.reserve(client)
      const parts = yield* makeUpstream(id, client, pooled, deps)
      const negotiated = negotiatedIn(record)
      yield* unmask(parts.upstreamSession.restore(record.upstreamSessionId))
      const streams = yield* openStreams(id, protocolVersion, parts.resumable, deps)
      const session = new Session({ ...parts, id, client, createdAt, negotiated, streams }, deps)
      parts.upstreamSession.begin(negotiated, session)
      yield* register(session, resources)
      // This process may have another session timeout than the one that stored the record.
      const { timeToLive } = deps
      if (record.timeToLive !== timeToLive) yield* deps.store.update(id, { timeToLive })
      session.restore(headers)
      return session
    })
  )
