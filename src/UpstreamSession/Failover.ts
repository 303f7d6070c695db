/** Replaces an upstream session that is lost: it holds the lease and opens the next one. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { backoff } from "../internal/backoff.js"
import type { Headers } from "../internal/headers.js"
import { type LimitReached, UpstreamError } from "../ProxyError.js"
import { type Lease, lost } from "../Upstream.js"
import { probe } from "./probe.js"

/** What a failover needs of the upstream session. */
export interface FailoverTarget {
  /** The current lease; `undefined` once the upstream session is lost. */
  readonly lease: Lease | undefined
  /** True if no request waits for an upstream session. */
  readonly isSettled: boolean
  /** The header fields of the proxy's own requests. */
  readonly ownHeaders: Headers
  /** The upstream still knows the session. Returns true if a request is sent again. */
  readonly confirmed: (lease: Lease) => boolean
  /** The upstream does not know the session: it returned this refusal to a `ping`. */
  readonly denied: (denial: string | undefined) => void
  /** Opens another session; `undefined` before the first one was negotiated. */
  readonly reopen: Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope> | undefined
  /** Prepares the replacement, before anything is sent to it. Succeeds with what has changed. */
  readonly prepare: (lease: Lease) => Effect.Effect<boolean>
  /** Makes a session the current one. */
  readonly replaced: (lease: Lease, hasOtherTools: boolean) => void
  /** No session can be opened. */
  readonly gaveUp: (cause: string | undefined) => Effect.Effect<void>
}

interface HeldLease {
  readonly scope: Scope.CloseableScope
  isLost: boolean
}

/** How many attempts in a row may fail, or open a session that answers nothing. */
const MAX_ATTEMPTS = 10

export class Failover {
  private held: HeldLease | undefined
  private running: Fiber.RuntimeFiber<void> | undefined
  private releasing: Fiber.RuntimeFiber<void> | undefined
  private failures = 0
  private isClosed = false

  constructor(
    private readonly target: FailoverTarget,
    /** Runs an effect beside the session's fiber. */
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

  /** Notes that the upstream does not know the session of the lease any more: there is none to end. */
  markLost(): void {
    if (this.held !== undefined) this.held.isLost = true
  }

  /** Starts to open another session, unless that is under way. */
  start(): void {
    if (this.running !== undefined || this.isClosed) return
    // The caller that noticed the loss finishes first.
    this.running = this.fork(
      Effect.ensuring(
        Effect.andThen(Effect.yieldNow(), this.attempts),
        Effect.sync(() => (this.running = undefined))
      )
    )
  }

  /** Releases the lease of an upstream session that has ended, and opens no other. */
  clear(): void {
    if (this.running === undefined && !this.isClosed) this.releasing = this.fork(this.release(Exit.void))
  }

  /** Stops, and releases the lease with this exit. */
  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isClosed = true
      const stopped = this.running === undefined ? Effect.void : Fiber.interrupt(this.running)
      return Effect.andThen(stopped, () => this.release(exit))
    })
  }

  /** Tries until the upstream knows a session and no request waits, or gives up. */
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

/** True if no other attempt can succeed: the server answered, and refuses the client. */
const isFinal = (error: UpstreamError | LimitReached): boolean =>
  error._tag === "UpstreamError" && (error.reason === "Incompatible" || error.reason === "InitializeRefused")
