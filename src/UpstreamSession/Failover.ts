/** Holds the lease of an upstream session, and opens another session when the upstream has lost it. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { backoff } from "../internal/backoff.js"
import { type LimitReached, UpstreamError } from "../ProxyError.js"
import { type Lease, lost } from "../Upstream.js"
import type { ProbeResult } from "./probe.js"

/** The steps of a failover. */
export interface FailoverSteps {
  /** Returns the current lease; `undefined` once the upstream session is lost. */
  readonly lease: () => Lease | undefined
  /** Checks if the upstream still knows the session. */
  readonly probe: (lease: Lease) => Effect.Effect<ProbeResult>
  /** Opens another session. */
  readonly reopen: Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope>
  /** Prepares a replacement before requests are sent to it. Succeeds with true if it has other tools. */
  readonly prepare: (lease: Lease) => Effect.Effect<boolean>
  /** Applies a result to the session. Returns true if the failover is complete. */
  readonly apply: (result: FailoverResult) => boolean
}

export type FailoverResult =
  /** The upstream still knows the session. */
  | { readonly type: "confirmed"; readonly lease: Lease }
  /** The upstream does not know the session. `denial` is its refusal of a `ping`. A replacement follows. */
  | { readonly type: "denied"; readonly denial: string | undefined }
  | { readonly type: "replaced"; readonly lease: Lease; readonly hasOtherTools: boolean }
  /** No session can be opened. The failover is complete. */
  | { readonly type: "gaveUp"; readonly cause: string | undefined }

/** Runs an effect in a background fiber. */
type Fork = (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>

type State =
  | { readonly type: "idle" }
  | { readonly type: "running"; readonly fiber: Fiber.RuntimeFiber<void> }
  | { readonly type: "closed" }

const idle: State = { type: "idle" }
const closed: State = { type: "closed" }

/** The maximum number of consecutive attempts that fail, or that open a session without an answered call. */
const MAX_ATTEMPTS = 10

export class Failover {
  private state = idle
  private failures = 0
  private readonly leaseScope = new LeaseScope()

  constructor(private readonly fork: Fork) {}

  /** Resets the count of failures, because the upstream session works. */
  resetFailures(): void {
    this.failures = 0
  }

  /** Takes a lease in a scope of its own. Only the wait for the lease can be interrupted. */
  take<E>(leased: Effect.Effect<Lease, E, Scope.Scope>): Effect.Effect<Lease, E> {
    return this.leaseScope.take(leased)
  }

  /** Notes that the upstream has lost the session of the lease, so that the release does not end it. */
  markLost(): void {
    this.leaseScope.markLost()
  }

  /** Starts a failover, unless one is in progress. */
  start(steps: FailoverSteps): void {
    if (this.state.type !== "idle") return
    // Yields first, because the caller may be handling another event of the lost session.
    const fiber = this.fork(
      Effect.ensuring(
        Effect.andThen(Effect.yieldNow(), this.attempts(steps)),
        Effect.sync(() => this.ended())
      )
    )
    this.state = { type: "running", fiber }
  }

  /** Releases the lease of an ended upstream session without opening another one. */
  clear(): void {
    if (this.state.type === "idle") this.leaseScope.releaseInBackground(this.fork)
  }

  /** Stops a failover in progress, and releases the lease with this exit. */
  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { state } = this
      this.state = closed
      const stopped = state.type === "running" ? Fiber.interrupt(state.fiber) : Effect.void
      return Effect.andThen(stopped, this.leaseScope.release(exit))
    })
  }

  private ended(): void {
    if (this.state.type === "running") this.state = idle
  }

  /** Repeats attempts until a result completes the failover. */
  private attempts(steps: FailoverSteps): Effect.Effect<void> {
    return Effect.gen(this, function* () {
      let cause: string | undefined
      while (this.failures < MAX_ATTEMPTS) {
        if (this.failures > 0) yield* Effect.flatMap(backoff(this.failures - 1), Effect.sleep)
        this.failures++
        const lease = steps.lease()
        if (lease !== undefined) {
          const probed = yield* steps.probe(lease)
          if (probed.type === "silent") continue
          if (probed.type === "known") {
            if (steps.apply({ type: "confirmed", lease })) return
            continue
          }
          steps.apply({ type: "denied", denial: probed.denial })
        }
        const replaced = yield* Effect.exit(this.replace(steps))
        if (Exit.isSuccess(replaced)) {
          if (replaced.value) return
        } else if (Exit.isInterrupted(replaced)) return yield* Effect.interrupt
        else {
          const error = failureOf(replaced)
          cause = error?.message
          if (error !== undefined && isFinal(error)) break
        }
      }
      steps.apply({ type: "gaveUp", cause })
    })
  }

  /** Replaces the session. Succeeds with true if this completes the failover. */
  private replace(steps: FailoverSteps): Effect.Effect<boolean, UpstreamError | LimitReached> {
    return Effect.gen(this, function* () {
      yield* this.leaseScope.release(Exit.void)
      const lease = yield* this.take(steps.reopen)
      let hasExited = false
      lease.onExit?.(() => {
        hasExited = true
      })
      const hasOtherTools = yield* steps.prepare(lease)
      if (hasExited) return yield* new UpstreamError({ reason: "Ended", upstream: lease.name })
      return steps.apply({ type: "replaced", lease, hasOtherTools })
    })
  }
}

type LeaseState =
  | { readonly type: "none" }
  | { readonly type: "held"; readonly scope: Scope.CloseableScope; readonly isLost: boolean }
  | { readonly type: "releasing"; readonly fiber: Fiber.RuntimeFiber<void> }

const none: LeaseState = { type: "none" }

/** Owns the scope of one lease at a time. The next lease is taken after the release of the last one. */
class LeaseScope {
  private state = none

  take<E>(leased: Effect.Effect<Lease, E, Scope.Scope>): Effect.Effect<Lease, E> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen(this, function* () {
        const scope = yield* Scope.make()
        const lease = yield* Effect.onError(restore(Scope.extend(leased, scope)), (cause) =>
          Scope.close(scope, Exit.failCause(cause))
        )
        this.state = { type: "held", scope, isLost: false }
        return lease
      })
    )
  }

  markLost(): void {
    if (this.state.type === "held") this.state = { ...this.state, isLost: true }
  }

  /** Releases the lease, or waits for the end of a release in the background. */
  release(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        const { state } = this
        this.state = none
        if (state.type === "releasing") return Effect.asVoid(Fiber.await(state.fiber))
        return state.type === "held" ? Scope.close(state.scope, state.isLost ? lost : exit) : Effect.void
      })
    )
  }

  releaseInBackground(fork: Fork): void {
    if (this.state.type !== "held") return
    const { isLost, scope } = this.state
    this.state = none
    const fiber = fork(Effect.uninterruptible(Scope.close(scope, isLost ? lost : Exit.void)))
    this.state = { type: "releasing", fiber }
  }
}

const failureOf = (exit: Exit.Exit<boolean, UpstreamError | LimitReached>) =>
  Exit.isFailure(exit) && exit.cause._tag === "Fail" ? exit.cause.error : undefined

/** True if another attempt cannot succeed, because the server refuses this client. */
const isFinal = (error: UpstreamError | LimitReached): boolean =>
  error._tag === "UpstreamError" && (error.reason === "Incompatible" || error.reason === "InitializeRefused")
