/** How the upstream session of the moment gives way to another: what holds the lease, and what tries to get the next. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { backoff } from "../internal/backoff.js"
import type { LimitReached, UpstreamError } from "../ProxyError.js"
import * as Recovery from "./reinitialize.js"
import type { Lease } from "../Upstream.js"

/** Whoever sends things to the session. */
export interface Replaced<Change> {
  /** The lease of the session, unless that is lost. */
  readonly lease: Lease | undefined
  /** Whether nobody waits for another. */
  readonly isSettled: boolean
  /** What the next session begins from; `undefined` before there was one. */
  readonly lost: Recovery.Lost | undefined
  /** The upstream knows the session after all. True when something is sent to it again. */
  readonly known: (lease: Lease) => boolean
  /** It does not. */
  readonly unknown: (denial: string | undefined) => void
  /** Before anything is sent to another session. */
  readonly prepare: (lease: Lease) => Effect.Effect<Change>
  /** From now on it is the session of the moment. */
  readonly replaced: (lease: Lease, change: Change) => void
  /** There will be none. */
  readonly givenUp: (cause: string | undefined) => Effect.Effect<void>
}

/** How many attempts in a row may fail, or lead to nothing. */
const MAX_ATTEMPTS = 10

export class Failover<Change> {
  private scope: Scope.CloseableScope | undefined
  private fiber: Fiber.RuntimeFiber<void> | undefined
  private clearing: Fiber.RuntimeFiber<void> | undefined
  private failures = 0
  private isClosed = false

  constructor(
    private readonly session: Replaced<Change>,
    /** Runs what goes on beside the session's fiber. */
    private readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  ) {}

  /** The upstream has answered a call: what failed before that does not count any more. */
  answered(): void {
    this.failures = 0
  }

  /** Takes a lease, in a scope of its own. Only the wait for it can be interrupted. */
  take<E>(leased: Effect.Effect<Lease, E, Scope.Scope>): Effect.Effect<Lease, E> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen(this, function* () {
        const scope = yield* Scope.make()
        const lease = yield* Effect.onError(restore(Scope.extend(leased, scope)), (cause) =>
          Scope.close(scope, Exit.failCause(cause))
        )
        this.scope = scope
        return lease
      })
    )
  }

  /** Begins to look for another session, unless somebody does already. */
  start(): void {
    if (this.fiber !== undefined || this.isClosed) return
    // Whoever has noticed the loss is still being told.
    this.fiber = this.fork(
      Effect.ensuring(
        Effect.andThen(Effect.yieldNow(), this.attempts),
        Effect.sync(() => (this.fiber = undefined))
      )
    )
  }

  /** Gives back what is left of a session that has ended. */
  clear(): void {
    if (this.fiber === undefined && !this.isClosed) this.clearing = this.fork(this.release(Exit.void))
  }

  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isClosed = true
      const stopped = this.fiber === undefined ? Effect.void : Fiber.interrupt(this.fiber)
      return Effect.andThen(stopped, () => this.release(exit))
    })
  }

  /** Tries until there is a session that the upstream knows and nobody waits any more, or gives up. */
  private get attempts(): Effect.Effect<void> {
    return Effect.gen(this, function* () {
      let cause: string | undefined
      while (this.failures < MAX_ATTEMPTS) {
        if (this.failures > 0) yield* Effect.flatMap(backoff(this.failures - 1), Effect.sleep)
        this.failures++
        const { lease } = this.session
        if (lease !== undefined) {
          const knowledge = yield* Recovery.probe(lease)
          if (knowledge.type === "silent") continue
          if (knowledge.type === "known") {
            if (!this.session.known(lease)) this.failures = 0
            if (this.session.isSettled) return
            continue
          }
          this.session.unknown(knowledge.denial)
        }
        const renewed = yield* Effect.exit(this.renewed)
        if (Exit.isSuccess(renewed)) {
          if (this.session.isSettled) return
        } else if (Exit.isInterrupted(renewed)) return yield* Effect.interrupt
        else {
          const error = failureOf(renewed)
          cause = error?.message
          if (error !== undefined && final.has(error._tag === "UpstreamError" ? error.reason : "")) break
        }
      }
      yield* this.session.givenUp(cause)
    })
  }

  private get renewed(): Effect.Effect<void, UpstreamError | LimitReached> {
    return Effect.gen(this, function* () {
      const { lost } = this.session
      if (lost === undefined) return
      yield* this.release(Exit.void)
      const lease = yield* this.take(Recovery.renew(lost))
      let isOver = false
      lease.onLost(() => {
        isOver = true
      })
      const change = yield* this.session.prepare(lease)
      if (isOver) return yield* Effect.fail(Recovery.endedEarly(lease))
      this.session.replaced(lease, change)
    })
  }

  private release(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        const { clearing, scope } = this
        this.clearing = undefined
        this.scope = undefined
        const cleared = clearing === undefined ? Effect.void : Fiber.await(clearing)
        return Effect.andThen(cleared, scope === undefined ? Effect.void : Scope.close(scope, exit))
      })
    )
  }
}

const failureOf = (exit: Exit.Exit<void, UpstreamError | LimitReached>) =>
  Exit.isFailure(exit) && exit.cause._tag === "Fail" ? exit.cause.error : undefined

/** No other attempt can end otherwise: the server is there, and will not have the client. */
const final: ReadonlySet<string> = new Set<UpstreamError["reason"] | "">([
  "Incompatible",
  "InitializeRefused"
])
