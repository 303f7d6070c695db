/** How a session goes on that an earlier process has left in the store. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { Negotiated } from "../UpstreamSession/Negotiated.js"
import type { Headers } from "../internal/headers.js"
import { openLog, register, type Resources } from "./open.js"
import { type ProxyError, SessionNotFound, ShuttingDown } from "../ProxyError.js"
import { type CloseReason, Session } from "./Session.js"
import type { SessionRecord } from "../SessionStore.js"
import { suspended } from "../Upstream.js"
import * as UpstreamSession from "../UpstreamSession.js"

/** A revival under way, for all who wait for the same session. */
export class Revival {
  private readonly result = Deferred.unsafeMake<Session, ProxyError>(FiberId.none)

  constructor(
    readonly id: string,
    /** What the request that has woken it came with: there may be credentials among it. */
    readonly headers: Headers,
    /** Called when it is over, before anybody hears how. */
    private readonly over: () => void
  ) {}

  get revived(): Effect.Effect<Session, ProxyError> {
    return Deferred.await(this.result)
  }

  settle(exit: Exit.Exit<Session, ProxyError>): void {
    this.over()
    Deferred.unsafeDone(this.result, Exit.isInterrupted(exit) ? Effect.fail(new ShuttingDown()) : exit)
  }
}

/**
 * The rest of a session's life, in a scope of its own; succeeds with the reason for its end. What fails before it is
 * live again leaves everything as it was.
 */
export const live = (revival: Revival, resources: Resources): Effect.Effect<CloseReason, ProxyError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const revived = yield* Effect.exit(restore(Scope.extend(revive(revival, resources), scope)))
      revival.settle(revived)
      if (Exit.isFailure(revived)) {
        yield* Scope.close(scope, suspended)
        return yield* Effect.failCause(revived.cause)
      }
      const { client, ended, protocolVersion, upstream } = revived.value
      resources.shared.telemetry.sessionRestored()
      yield* Effect.logInfo("session revived", { client, protocolVersion, upstream: upstream.name })
      const over = yield* Effect.exit(restore(Deferred.await(ended)))
      yield* Scope.close(scope, over)
      return yield* over
    })
  )

/** As a session is opened, but with a record that is there already, and without asking the upstream. */
const revive = (revival: Revival, resources: Resources): Effect.Effect<Session, ProxyError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { admission, shared, terms } = resources
      const scope = yield* Effect.scope
      const stored = yield* restore(shared.store.get(revival.id))
      // Another upstream than the one that it was opened at would not know it, nor should it be told its id.
      const known = Option.filter(stored, ({ upstream }) => upstream === terms.pool.name)
      if (Option.isNone(known)) return yield* new SessionNotFound()
      const record = known.value
      yield* admission.reserve(record.client, scope)
      const upstream = yield* UpstreamSession.make(terms)
      const log = yield* openLog(record.id, shared)
      yield* restore(upstream.adopt(record.upstreamSessionId))
      const { client, createdAt, id } = record
      const session = new Session(id, client, createdAt, upstream, agreementOf(record), shared, log)
      yield* register(session, resources, scope)
      // The time that a session may be idle is that of the process which it is in.
      const { timeToLive } = shared
      if (record.timeToLive !== timeToLive) yield* shared.store.update(id, { timeToLive })
      session.goOn(revival.headers)
      return session
    })
  )

const agreementOf = (record: SessionRecord): Negotiated =>
  new Negotiated(
    record.initialize,
    record.protocolVersion,
    record.capabilities,
    record.logLevel,
    record.subscriptions
  )
