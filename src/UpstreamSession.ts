/**
 * The upstream session of a client session: one at a time, and after a failover another. Whoever sends something does
 * not see which; what is sent while one takes the place of the other waits.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { Agreement } from "./Agreement.js"
import { Attempt, type Attempted, type Failure, isBound } from "./Attempt.js"
import { backoff } from "./internal/backoff.js"
import type { Deadlines } from "./internal/deadlines.js"
import { first, type Headers } from "./internal/headers.js"
import { type Body, cancelledRequest, type Message } from "./Protocol.js"
import type { LimitReached, UpstreamError } from "./ProxyError.js"
import * as Recovery from "./Recovery.js"
import { ServerRequests } from "./ServerRequests.js"
import { ToolList } from "./ToolList.js"
import type { Listener } from "./Telemetry.js"
import type { Abort, Lease, Request, Sink, Upstream } from "./Upstream.js"
import type { UpstreamPool } from "./UpstreamPool.js"

/** What an upstream session needs of the proxy. */
export interface Terms {
  readonly pool: UpstreamPool["Type"]
  readonly deadlines: Deadlines
  readonly telemetry: Listener
  /** Whether a session that the upstream has lost is replaced. */
  readonly recover: boolean
  /** Runs what goes on beside the session's fiber. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
}

/** The client session that it is for. */
export interface Heir {
  /** Whether the client listens to what the upstream may say of itself. */
  readonly isListening: boolean
  /** Keeps the id of the new session, before anything of that reaches the client. */
  readonly keep: (upstreamSessionId: string | undefined) => Effect.Effect<void>
  /** There is a new session in the place of the old one. */
  readonly recovered: (change: Change) => void
  /** There is none any more. */
  readonly lost: () => void
}

/** What a client has to be told of a new session. */
export interface Change {
  /** What the old one had asked of the client, which nobody waits for any more. */
  readonly asked: ServerRequests["ids"]
  readonly hasOtherTools: boolean
}

/** How many attempts in a row may fail, or lead to nothing. */
const MAX_ATTEMPTS = 10

/** An upstream session that has not begun. Whatever becomes of it ends when the scope closes. */
export const make = (terms: Terms): Effect.Effect<UpstreamSession, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new UpstreamSession(terms)),
    (session, exit) => session.close(exit)
  )

export class UpstreamSession implements Upstream, Attempted {
  readonly name: string
  /** What the upstream has asked of the client. */
  readonly asked = new ServerRequests()
  private readonly tools = new ToolList()
  private lease: Lease | undefined
  private scope: Scope.CloseableScope | undefined
  private agreement: Agreement | undefined
  private heir: Heir | undefined
  private credentials: Headers = {}
  private readonly waiting = new Set<Attempt>()
  private recovery: Fiber.RuntimeFiber<void> | undefined
  /** How many attempts have failed since the upstream last answered. */
  private failures = 0
  /** Whether there was another session before: a response may be meant for that. */
  private isSuccessor = false
  private isClosed = false

  constructor(private readonly terms: Terms) {
    this.name = terms.pool.name
  }

  get recovers(): boolean {
    return this.terms.recover
  }

  /** Leases the upstream. Only the wait for it can be interrupted. */
  get leased(): Effect.Effect<Lease, UpstreamError | LimitReached> {
    return this.hold(this.terms.pool.lease)
  }

  /** Goes on with what an earlier process has begun. What ended with that is begun anew as soon as it is needed. */
  adopt(sessionId: string | undefined): Effect.Effect<void, UpstreamError | LimitReached> {
    if (!this.terms.pool.keepsSessions) return Effect.void
    return Effect.map(this.leased, (lease) => {
      if (sessionId !== undefined) lease.adopt(sessionId)
    })
  }

  /** What the proxy sends of itself carries the credentials among these fields. */
  identify(headers: Headers): void {
    const authorization = first(headers, "authorization")
    if (authorization === undefined || authorization === this.credentials["authorization"]) return
    this.credentials = { authorization }
    this.lease?.identify(this.credentials)
  }

  /** What the proxy sends of itself names the revision that `initialize` settled. */
  negotiated(revision: string): void {
    this.lease?.negotiated(revision)
  }

  /** What `initialize` has settled, and for whom. */
  agree(agreement: Agreement, heir: Heir): void {
    this.agreement = agreement
    this.heir = heir
    this.negotiated(agreement.protocolVersion)
    this.lease?.onLost(() => this.ended())
  }

  sessionId(): string | undefined {
    return this.lease?.sessionId()
  }

  parting(headers: Headers): void {
    this.lease?.parting(headers)
  }

  exchange(request: Request, sink: Sink): Abort {
    const { body } = request
    if (!this.recovers) return this.attempt(new Attempt(this, request, sink))
    this.identify(request.headers)
    const attempt = new Attempt(this, request, this.tools.tap(body, sink))
    if (body === undefined || !this.concernsOthers(body)) return this.attempt(attempt)
    attempt.accept()
    return () => {}
  }

  /** Sends a message of the proxy's own within the session, as the client would send it. */
  send(message: Message, sink: Sink): Abort {
    const request: Request = {
      method: "POST",
      headers: {},
      bytes: undefined,
      body: { isBatch: false, messages: [message] }
    }
    return this.attempt(new Attempt(this, request, sink, (lease, sink) => lease.send(message, sink)))
  }

  /** Goes on with a stream behind an event, or with the standalone one. */
  resume(lastEventId: string | undefined, sink: Sink): Abort {
    const request: Request = { method: "GET", headers: {}, bytes: undefined, body: undefined }
    return this.attempt(new Attempt(this, request, sink, (lease, sink) => lease.resume(lastEventId, sink)))
  }

  answered(): void {
    this.failures = 0
  }

  failed(attempt: Attempt, lease: Lease, what: Failure): void {
    if (!this.recovers) return this.lose()
    // It may be news of a session that has been replaced meanwhile.
    if (this.lease !== undefined && this.lease !== lease) return attempt.sendAnew(this.lease)
    if (what === "denied") this.drop()
    this.wait(attempt)
  }

  dropped(attempt: Attempt): void {
    this.waiting.delete(attempt)
  }

  /** The scope closes, and with it that of the lease. */
  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isClosed = true
      const stopped = this.recovery === undefined ? Effect.void : Fiber.interrupt(this.recovery)
      return Effect.andThen(stopped, () => this.release(exit))
    })
  }

  private attempt(attempt: Attempt): Abort {
    if (this.lease === undefined) this.wait(attempt)
    else attempt.send(this.lease)
    return () => attempt.abort()
  }

  private wait(attempt: Attempt): void {
    this.waiting.add(attempt)
    this.recover()
  }

  /**
   * Whether a message has to do with nothing of the present session: a response to what the one before it had asked,
   * whose ids are used again, or whatever only that one knew of.
   */
  private concernsOthers({ messages }: Body): boolean {
    for (const message of messages) {
      const id = cancelledRequest(message)
      if (id === undefined || this.waiting.size === 0) continue
      for (const attempt of this.waiting) if (attempt.waitsOnlyFor(id)) this.waiting.delete(attempt)
    }
    const isAsked = messages.map((message) => message.method !== undefined || this.asked.settle(message))
    if (this.lease === undefined) return messages.every(isBound)
    return this.isSuccessor && !isAsked.includes(true)
  }

  /** The upstream has ended of itself. */
  private ended(): void {
    this.drop()
    if (!this.recovers) this.lose()
    else if (this.waiting.size > 0 || this.heir?.isListening === true) this.recover()
  }

  private lose(): void {
    this.lease?.forget()
    this.heir?.lost()
  }

  /** Nothing more is sent to the session. */
  private drop(): void {
    this.lease?.forget()
    this.lease = undefined
  }

  private recover(): void {
    if (this.recovery !== undefined || this.isClosed) return
    // Whoever has noticed the loss is still being told.
    this.recovery = this.terms.fork(
      Effect.ensuring(
        Effect.andThen(Effect.yieldNow(), this.recovered),
        Effect.sync(() => (this.recovery = undefined))
      )
    )
  }

  /** Tries until there is a session that the upstream knows and nobody waits any more, or gives up. */
  private get recovered(): Effect.Effect<void> {
    return Effect.gen(this, function* () {
      while (this.failures < MAX_ATTEMPTS) {
        if (this.failures > 0) yield* Effect.flatMap(backoff(this.failures - 1), Effect.sleep)
        this.failures++
        const { lease } = this
        const knowledge = lease === undefined ? "unknown" : yield* Recovery.probe(lease)
        if (lease !== undefined && lease === this.lease) {
          if (knowledge === "known") this.goOn(lease)
          if (knowledge === "known" && this.isSettled) return
          if (knowledge !== "unknown") continue
        }
        this.drop()
        const renewed = yield* Effect.exit(this.renewed)
        if (Exit.isSuccess(renewed) && this.isSettled) return
        if (Exit.isInterrupted(renewed)) return yield* Effect.interrupt
        if (isFinal(renewed)) break
      }
      yield* Effect.logWarning("upstream session lost", { upstream: this.name })
      this.terms.telemetry.recovered("failed")
      this.heir?.lost()
    })
  }

  /** Whether there is a session, and nobody waits for another. */
  private get isSettled(): boolean {
    return this.lease !== undefined && this.waiting.size === 0
  }

  private goOn(lease: Lease): void {
    for (const attempt of this.taken()) attempt.goOn(lease)
  }

  /** A new session takes the place of the one that is lost. */
  private get renewed(): Effect.Effect<void, UpstreamError | LimitReached> {
    return Effect.gen(this, function* () {
      const { agreement, credentials, heir, terms } = this
      if (agreement === undefined || heir === undefined) return
      yield* this.release(Exit.void)
      const { deadlines, pool } = terms
      const lease = yield* this.hold(Recovery.renew({ pool, agreement, credentials, deadlines }))
      yield* heir.keep(lease.sessionId())
      const hasOtherTools = agreement.declares("tools", "listChanged") && (yield* this.tools.differ(lease))
      this.isSuccessor = true
      lease.onLost(() => this.ended())
      yield* Effect.logInfo("upstream session recovered", { upstream: this.name })
      terms.telemetry.recovered("recovered")
      const asked = this.asked.ids
      this.asked.clear()
      heir.recovered({ asked, hasOtherTools })
      for (const attempt of this.taken()) attempt.sendAnew(lease)
    })
  }

  /** All that wait, who wait no more. */
  private taken(): ReadonlyArray<Attempt> {
    const all = Array.from(this.waiting)
    this.waiting.clear()
    return all
  }

  /** Takes a lease, in a scope of its own. */
  private hold<E>(leased: Effect.Effect<Lease, E, Scope.Scope>): Effect.Effect<Lease, E> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen(this, function* () {
        const scope = yield* Scope.make()
        const lease = yield* Effect.onError(restore(Scope.extend(leased, scope)), (cause) =>
          Scope.close(scope, Exit.failCause(cause))
        )
        this.scope = scope
        this.lease = lease
        return lease
      })
    )
  }

  private release(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    const { scope } = this
    this.scope = undefined
    return scope === undefined ? Effect.void : Scope.close(scope, exit)
  }
}

/** Whether no other attempt can end otherwise: the server is there, and will not have the client. */
const isFinal = (exit: Exit.Exit<void, UpstreamError | LimitReached>): boolean =>
  Exit.match(exit, {
    onSuccess: () => false,
    onFailure: (cause) =>
      cause._tag === "Fail" &&
      cause.error._tag === "UpstreamError" &&
      (cause.error.reason === "Changed" || cause.error.reason === "Refused")
  })
