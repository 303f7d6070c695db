/** Holds the lease of an upstream session, and opens another session when the upstream has lost it. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { backoff } from "../internal/backoff.js"
import type { Headers } from "../internal/headers.js"
import { type LimitReached, UpstreamError } from "../ProxyError.js"
import { type Lease, lost } from "../Upstream.js"
import { probe } from "./probe.js"

/** The upstream session that a failover replaces. */
export interface FailoverTarget {
  /** The current lease; `undefined` once the upstream session is lost. */
  readonly lease: Lease | undefined
  /** True if no request waits for an upstream session. */
  readonly isSettled: boolean
  /** The header fields of the proxy's own requests. */
  readonly ownHeaders: Headers
  /** Called when the upstream still knows the session. Returns true if a request is sent again. */
  readonly confirmed: (lease: Lease) => boolean
  /** Called when the upstream does not know the session. `denial` is its refusal of a `ping`. */
  readonly denied: (denial: string | undefined) => void
  /** Opens another session; `undefined` before `initialize` is answered. */
  readonly reopen: Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope> | undefined
  /** Prepares a replacement before requests are sent to it. Succeeds with true if it has other tools. */
  readonly prepare: (lease: Lease) => Effect.Effect<boolean>
  /** Makes the replacement the current session. */
  readonly replaced: (lease: Lease, hasOtherTools: boolean) => void
  /** Called when no session can be opened. */
  readonly gaveUp: (cause: string | undefined) => Effect.Effect<void>
}

interface HeldLease {
  readonly scope: Scope.CloseableScope
  isLost: boolean
}

/** The maximum number of consecutive attempts that fail, or that open a session without an answered call. */
const MAX_ATTEMPTS = 10

export class Failover {
  private held: HeldLease | undefined
  private running: Fiber.RuntimeFiber<void> | undefined
  private releasing: Fiber.RuntimeFiber<void> | undefined
  private failures = 0
  private isClosed = false

  constructor(
    private readonly target: FailoverTarget,
    /** Runs an effect in a background fiber. */
    private readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  ) {}

  /** Resets the count of failures, because the upstream has answered a call. */
  answered(): void {
    this.failures = 0
  }

  /** Takes a lease in a scope of its own. Only the wait for the lease can be interrupted. */
  take<E>(leased: Effect.Effect<Lease, E, Scope.Scope>): Effect.Effect<Lease, E> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen(this, function* () {
        const scope = yield* Scope.make()
        const lease = yield* Effect.onError(restore(Scope.extend(leased, scope)), (cause) =>
          Scope.close(scope, Exit.failCause(cause))
        )
        this.held = { scope, isLost: false }
        return lease
      })
    )
  }

  /** Notes that the upstream has lost the session of the lease, so that the release does not end it. */
  markLost(): void {
    if (this.held !== undefined) this.held.isLost = true
  }

  /** Starts a failover, unless one is in progress. */
  start(): void {
    if (this.running !== undefined || this.isClosed) return
    // Yields first, because the caller may be handling another event of the lost session.
    this.running = this.fork(
      Effect.ensuring(
        Effect.andThen(Effect.yieldNow(), this.attempts),
        Effect.sync(() => (this.running = undefined))
      )
    )
  }

  /** Releases the lease of an ended upstream session without opening another one. */
  clear(): void {
    if (this.running === undefined && !this.isClosed) this.releasing = this.fork(this.release(Exit.void))
  }

  /** Stops a failover in progress, and releases the lease with this exit. */
  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isClosed = true
      const stopped = this.running === undefined ? Effect.void : Fiber.interrupt(this.running)
      return Effect.andThen(stopped, () => this.release(exit))
    })
  }

  /** Repeats attempts until the upstream knows the session and no request waits, or until the failover gives up. */
  private get attempts(): Effect.Effect<void> {
    return Effect.gen(this, function* () {
      let cause: string | undefined
      while (this.failures < MAX_ATTEMPTS) {
        if (this.failures > 0) yield* Effect.flatMap(backoff(this.failures - 1), Effect.sleep)
        this.failures++
        const { lease } = this.target
        if (lease !== undefined) {
          const result = yield* probe(lease, this.target.ownHeaders)
          if (result.type === "silent") continue
          if (result.type === "known") {
            if (!this.target.confirmed(lease)) this.failures = 0
            if (this.target.isSettled) return
            continue
          }
          this.target.denied(result.denial)
        }
        const replaced = yield* Effect.exit(this.replace)
        if (Exit.isSuccess(replaced)) {
          if (this.target.isSettled) return
        } else if (Exit.isInterrupted(replaced)) return yield* Effect.interrupt
        else {
          const error = failureOf(replaced)
          cause = error?.message
          if (error !== undefined && isFinal(error)) break
        }
      }
      yield* this.target.gaveUp(cause)
    })
  }

  private get replace(): Effect.Effect<void, UpstreamError | LimitReached> {
    return Effect.gen(this, function* () {
      const { reopen } = this.target
      if (reopen === undefined) return
      yield* this.release(Exit.void)
      const lease = yield* this.take(reopen)
      let hasExited = false
      lease.onExit?.(() => {
        hasExited = true
      })
      const hasOtherTools = yield* this.target.prepare(lease)
      if (hasExited) return yield* new UpstreamError({ reason: "Ended", upstream: lease.name })
      this.target.replaced(lease, hasOtherTools)
    })
  }

  private release(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        const { held, releasing } = this
        this.releasing = undefined
        this.held = undefined
        const released = releasing === undefined ? Effect.void : Fiber.await(releasing)
        if (held === undefined) return released
        return Effect.andThen(released, Scope.close(held.scope, held.isLost ? lost : exit))
      })
    )
  }
}

const failureOf = (exit: Exit.Exit<void, UpstreamError | LimitReached>) =>
  Exit.isFailure(exit) && exit.cause._tag === "Fail" ? exit.cause.error : undefined

/** True if another attempt cannot succeed, because the server refuses this client. */
const isFinal = (error: UpstreamError | LimitReached): boolean =>
  error._tag === "UpstreamError" && (error.reason === "Incompatible" || error.reason === "InitializeRefused")
