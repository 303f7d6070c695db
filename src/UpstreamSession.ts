/**
 * The upstream session of a client session: one at a time, and after a failover another. Whoever sends something does
 * not see which; what is sent while one takes the place of the other waits.
 */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { Negotiated } from "./UpstreamSession/Negotiated.js"
import {
  RetryableRequest,
  type Attempted,
  type Failure,
  isBound,
  withMessages
} from "./UpstreamSession/RetryableRequest.js"
import type { Deadlines } from "./internal/deadlines.js"
import { first, type Headers } from "./internal/headers.js"
<<<<<<< HEAD
import { released } from "./internal/released.js"
import { type Body, cancelledRequestId, type Message } from "./Protocol.js"
=======
import { acquireReleaseLight } from "./internal/acquireReleaseLight.js"
import { type Body, cancelledRequest, type Message } from "./Protocol.js"
>>>>>>> 8e0de61f1306d2e9a0cd3da39bdf419152b07146
import type { LimitReached, UpstreamError } from "./ProxyError.js"
import type { Lost } from "./UpstreamSession/reinitialize.js"
import { Failover, type Replaced } from "./UpstreamSession/Failover.js"
import { ServerRequests } from "./UpstreamSession/ServerRequests.js"
import { ToolList } from "./UpstreamSession/ToolList.js"
import type { TelemetryListener } from "./Telemetry.js"
import type { Abort, Lease, Request, Sink, Upstream } from "./Upstream.js"
import type { UpstreamPool } from "./UpstreamPool.js"

/** What an upstream session needs of the proxy. */
export interface Terms {
  readonly pool: UpstreamPool["Type"]
  readonly deadlines: Deadlines
  readonly telemetry: TelemetryListener
  /** Whether a session that the upstream has lost is replaced. */
  readonly recover: boolean
  /** Runs what goes on beside the session's fiber. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
}

/** The client session that it is for. */
export interface Heir {
  /** What it is called in logs. */
  readonly handle: string
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

/** An upstream session that has not begun. Whatever becomes of it ends when the scope closes. */
export const make = (terms: Terms): Effect.Effect<UpstreamSession, never, Scope.Scope> =>
  acquireReleaseLight(
    Effect.sync(() => new UpstreamSession(terms)),
    (session, exit) => session.close(exit)
  )

export class UpstreamSession implements Upstream, Attempted, Replaced<boolean> {
  readonly name: string
  readonly deadlines: Deadlines
  readonly recovers: boolean
  lease: Lease | undefined
  /** What the upstream has asked of the client. */
  readonly asked = new ServerRequests()
  private readonly tools = new ToolList()
  private readonly replacement: Failover<boolean>
  private agreement: Negotiated | undefined
  private heir: Heir | undefined
  /** Whether the client has been told that it will hear of other tools. */
  private hasChangingTools = false
  private credentials: Headers = {}
  private readonly waiting = new Set<RetryableRequest>()
  /** How the upstream denied the session before this one. */
  private denial: string | undefined
  /** Whether there was another session before: a response may be meant for that. */
  private isSuccessor = false

  constructor(private readonly terms: Terms) {
    this.name = terms.pool.name
    this.deadlines = terms.deadlines
    this.recovers = terms.recover
    this.replacement = new Failover(this, terms.fork)
  }

  /** Leases the upstream. Only the wait for it can be interrupted. */
  get leased(): Effect.Effect<Lease, UpstreamError | LimitReached> {
    return Effect.tap(this.replacement.take(this.terms.pool.lease), (lease) => {
      this.lease = lease
    })
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
  agree(agreement: Negotiated, heir: Heir): void {
    this.agreement = agreement
    this.hasChangingTools = agreement.declares("tools", "listChanged")
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
    if (!this.recovers) return this.attempt(new RetryableRequest(this, request, sink), request)
    this.identify(request.headers)
    const tapped = this.hasChangingTools ? this.tools.tap(body, sink) : sink
    if (body !== undefined) this.note(body)
    const current = body?.messages.filter((message) => this.isCurrent(message))
    if (current === undefined || current.length === body?.messages.length) {
      return this.attempt(new RetryableRequest(this, request, tapped), request)
    }
    const [message, ...others] = current
    if (message === undefined) {
      new RetryableRequest(this, request, sink).accept()
      return () => {}
    }
    const rest = withMessages(request, [message, ...others])
    return this.attempt(new RetryableRequest(this, rest, tapped), rest)
  }

  /** Sends a message of the proxy's own within the session, as the client would send it. */
  send(message: Message, sink: Sink): Abort {
    return this.attempt(
      new RetryableRequest(this, own("POST"), sink, (lease, sink) => lease.send(message, sink), true)
    )
  }

  /** Goes on with a stream that has broken, which no other session knows of. */
  resume(lastEventId: string | undefined, sink: Sink): Abort {
    const sends = (lease: Lease, sink: Sink) => lease.resume(lastEventId, sink)
    return this.attempt(new RetryableRequest(this, own("GET"), sink, sends, true))
  }

  /** Opens the standalone stream: behind an event, or anew in another session. */
  listen(lastEventId: string | undefined, sink: Sink): Abort {
    const present = this.lease
    const sends = (lease: Lease, sink: Sink) =>
      lease.resume(lease === present ? lastEventId : undefined, sink)
    return this.attempt(new RetryableRequest(this, own("GET"), sink, sends))
  }

  answered(): void {
    this.replacement.answered()
  }

  failed(attempt: RetryableRequest, lease: Lease, what: Failure): void {
    if (!this.recovers) return this.lose()
    // It may be news of a session that has been replaced meanwhile.
    if (this.lease === lease || what === "unreached") this.wait(attempt)
    else if (!attempt.isUndone(this.denial)) attempt.giveBack()
    else if (this.lease === undefined) this.wait(attempt)
    else attempt.sendAnew(this.lease)
  }

  dropped(attempt: RetryableRequest): void {
    this.waiting.delete(attempt)
  }

  get isSettled(): boolean {
    return this.lease !== undefined && this.waiting.size === 0
  }

  get lost(): Lost | undefined {
    const { agreement, credentials, deadlines, terms } = this
    return agreement && { pool: terms.pool, agreement, credentials, deadlines }
  }

  known(lease: Lease): boolean {
    return this.taken().filter((attempt) => attempt.goOn(lease)).length > 0
  }

  unknown(denial: string | undefined): void {
    this.denial = denial
    this.drop()
    for (const attempt of this.waiting) {
      if (attempt.isUndone(denial)) continue
      this.waiting.delete(attempt)
      attempt.giveBack()
    }
  }

  prepare(lease: Lease): Effect.Effect<boolean> {
    const kept = this.heir?.keep(lease.sessionId()) ?? Effect.void
    return Effect.andThen(kept, this.hasChangingTools ? this.tools.differ(lease) : Effect.succeed(false))
  }

  replaced(lease: Lease, hasOtherTools: boolean): void {
    const { ids } = this.asked
    this.asked.clear()
    this.isSuccessor = true
    this.lease = lease
    lease.onLost(() => this.ended())
    this.log(Effect.logInfo("upstream session recovered", { upstream: this.name }))
    this.terms.telemetry.failoverEnded("succeeded")
    this.heir?.recovered({ asked: ids, hasOtherTools })
    for (const attempt of this.taken()) attempt.sendAnew(lease)
  }

  givenUp(cause: string | undefined): Effect.Effect<void> {
    return Effect.sync(() => {
      this.log(Effect.logWarning("upstream session lost", { upstream: this.name, cause }))
      this.terms.telemetry.failoverEnded("failed")
      this.heir?.lost()
    })
  }

  /** The scope closes, and with it that of the lease. */
  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return this.replacement.close(exit)
  }

  private attempt(attempt: RetryableRequest, request?: Request): Abort {
    if (this.lease !== undefined) attempt.send(this.lease, request)
    else if (attempt.isBound) attempt.giveBack()
    else this.wait(attempt)
    return () => attempt.abort()
  }

  private wait(attempt: RetryableRequest): void {
    this.waiting.add(attempt)
    this.replacement.start()
  }

  /** A request that is cancelled while it waits is not sent. */
  private note({ messages }: Body): void {
    if (this.waiting.size === 0) return
    for (const message of messages) {
      const id = cancelledRequestId(message)
      if (id === undefined) continue
      for (const attempt of this.waiting) if (attempt.waitsOnlyFor(id)) this.waiting.delete(attempt)
    }
  }

  /**
   * Whether a message has to do with the present session: not if it is a response to what the one before had asked,
   * whose ids are used again, nor while there is none, if only that one knew what it speaks of.
   */
  private isCurrent(message: Message): boolean {
    if (message.method === undefined && !this.asked.settle(message) && this.isSuccessor) return false
    return this.lease !== undefined || !isBound(message)
  }

  /** The upstream has ended of itself. */
  private ended(): void {
    this.drop()
    if (!this.recovers) this.lose()
    else if (this.waiting.size > 0 || this.heir?.isListening === true) this.replacement.start()
    else this.replacement.clear()
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

  private log(logged: Effect.Effect<void>): void {
    this.terms.fork(Effect.annotateLogs(logged, "session", this.heir?.handle ?? ""))
  }

  /** All that wait, who wait no more. */
  private taken(): ReadonlyArray<RetryableRequest> {
    const all = Array.from(this.waiting)
    this.waiting.clear()
    return all
  }
}

/** A request of the proxy's own; what it says is known to whoever sends it. */
const own = (method: Request["method"]): Request => ({
  method,
  headers: {},
  bytes: undefined,
  body: undefined
})
