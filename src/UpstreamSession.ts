/**
 * The upstream session of a client session. A failover replaces a lost session by another one, without a change for the
 * callers. Requests that arrive during a failover wait for its end.
 */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { acquireReleaseLight } from "./internal/acquireReleaseLight.js"
import type { Deadlines } from "./internal/deadlines.js"
import { first, type Headers } from "./internal/headers.js"
import { EVENT_STREAM } from "./Protocol/SseFrames.js"
import { type Body, cancelledRequestId, LAST_EVENT_ID, type Message, PROTOCOL_VERSION } from "./Protocol.js"
import type { LimitReached, UpstreamError } from "./ProxyError.js"
import type { TelemetryListener } from "./Telemetry.js"
import {
  type Abort,
  type Lease,
  type LeaseOptions,
  type Request,
  type Sink,
  type Upstream,
  withMessages
} from "./Upstream.js"
import type { PooledUpstream } from "./UpstreamPool.js"
import { Failover, type FailoverTarget } from "./UpstreamSession/Failover.js"
import type { Negotiated } from "./UpstreamSession/Negotiated.js"
import { reinitialize } from "./UpstreamSession/reinitialize.js"
import {
  isBoundToSession,
  type RequestFailure,
  RetryableRequest,
  type RetryContext
} from "./UpstreamSession/RetryableRequest.js"
import { ServerRequests } from "./UpstreamSession/ServerRequests.js"
import { ToolList } from "./UpstreamSession/ToolList.js"

/** The dependencies of an upstream session. */
export interface UpstreamSessionDeps {
  readonly deadlines: Deadlines
  readonly telemetry: TelemetryListener
  /** True if lost upstream sessions are replaced. */
  readonly recover: boolean
  /** Runs an effect in a background fiber. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
}

/** The client session that an upstream session belongs to. */
export interface ClientSession {
  /** The session's name in logs. */
  readonly handle: string
  /** True if the client reads a standalone stream. */
  readonly isListening: boolean
  /** Stores the id of a new upstream session, before any message of that session reaches the client. */
  readonly storeUpstreamId: (upstreamSessionId: string | undefined) => Effect.Effect<void>
  /** Called when another upstream session has replaced the lost one. */
  readonly failedOver: (change: SessionChange) => void
  /** Called when the upstream session is lost and not replaced. */
  readonly upstreamLost: () => void
}

/** The differences between a lost upstream session and its replacement. */
export interface SessionChange {
  /** The requests of the lost session that the client has not answered. */
  readonly serverRequests: ServerRequests["ids"]
  readonly hasOtherTools: boolean
}

/** Makes an upstream session that is not open yet. When the scope closes, the session ends. */
export const make = (
  upstream: PooledUpstream,
  deps: UpstreamSessionDeps
): Effect.Effect<UpstreamSession, never, Scope.Scope> =>
  acquireReleaseLight(
    Effect.sync(() => new UpstreamSession(upstream, deps)),
    (session, exit) => session.close(exit)
  )

export class UpstreamSession implements Upstream, RetryContext, FailoverTarget {
  readonly name: string
  readonly deadlines: Deadlines
  lease: Lease | undefined
  /** The requests of the server that the client has not answered. */
  readonly serverRequests = new ServerRequests()
  private readonly tools = new ToolList()
  private readonly failover: Failover
  private readonly waiting = new Set<RetryableRequest>()
  private client: ClientSession | undefined
  private negotiated: Negotiated | undefined
  private credentials: Headers = {}
  /** The header fields of the client's DELETE. */
  private deleteHeaders: Headers = {}
  /** The refusal that the upstream returned for the lost session. */
  private denial: string | undefined
  /** True if the server announced that it notifies of changed tools. */
  private hasChangingTools = false
  /** True after a failover, because a late response of the client may belong to the lost session. */
  private isReplacement = false

  constructor(
    private readonly upstream: PooledUpstream,
    private readonly deps: UpstreamSessionDeps
  ) {
    this.name = upstream.name
    this.deadlines = deps.deadlines
    this.failover = new Failover(this, deps.fork)
  }

  /** True if a lost session is replaced. False before `initialize` is answered. */
  get recovers(): boolean {
    return this.deps.recover && this.negotiated !== undefined
  }

  /** Takes a lease. Only the wait for the lease can be interrupted. */
  get open(): Effect.Effect<Lease, UpstreamError | LimitReached> {
    return this.take(undefined)
  }

  /** Continues a session of another process. A session that ended with its process is replaced when it is used. */
  restore(sessionId: string | undefined): Effect.Effect<void, UpstreamError | LimitReached> {
    return this.upstream.keepsSessions ? Effect.asVoid(this.take(sessionId)) : Effect.void
  }

  /** Sets the result of the negotiation and the client session. */
  begin(negotiated: Negotiated, client: ClientSession): void {
    this.negotiate(negotiated)
    this.client = client
    this.lease?.onExit?.(() => this.exited())
  }

  /** Sets the result of the negotiation. */
  negotiate(negotiated: Negotiated): void {
    this.negotiated = negotiated
    this.hasChangingTools = negotiated.declares("tools", "listChanged")
  }

  /** Uses the credentials in these header fields for the proxy's own requests. */
  useCredentials(headers: Headers): void {
    const authorization = first(headers, "authorization")
    if (authorization !== undefined && authorization !== this.credentials["authorization"])
      this.credentials = { authorization }
  }

  /** Notes the header fields of the client's DELETE, for the DELETE of the upstream session. */
  useDeleteHeaders(headers: Headers): void {
    this.deleteHeaders = headers
  }

  /** The header fields of the proxy's own requests: the client's latest credentials, and the negotiated revision. */
  get ownHeaders(): Headers {
    return this.negotiated === undefined
      ? this.credentials
      : { ...this.credentials, [PROTOCOL_VERSION]: this.negotiated.protocolVersion }
  }

  /** The negotiated revision. */
  get revision(): string | undefined {
    return this.negotiated?.protocolVersion
  }

  get sessionId(): string | undefined {
    return this.lease?.sessionId()
  }

  exchange(request: Request, sink: Sink): Abort {
    const { body } = request
    this.useCredentials(request.headers)
    if (!this.recovers) return this.send(this.retryable(request, sink), request)
    const observed = this.hasChangingTools ? this.tools.observe(body, sink) : sink
    if (body === undefined) return this.send(this.retryable(request, observed), request)
    this.dropCancelled(body)
    const current = body.messages.filter((message) => this.isCurrent(message))
    if (current.length === body.messages.length) return this.send(this.retryable(request, observed), request)
    const [message, ...others] = current
    if (message === undefined) {
      const accepted = this.retryable(request, sink)
      accepted.accept()
      return () => accepted.abort()
    }
    const rest = withMessages(request, [message, ...others])
    return this.send(this.retryable(rest, observed), rest)
  }

  /** Continues a stream after an event of the current upstream session. */
  resume(lastEventId: string | undefined, sink: Sink): Abort {
    const request = this.streamRequest(lastEventId)
    return this.send(new RetryableRequest(this, request, sink, this.lease, true), request)
  }

  /** Returns the GET that opens a standalone stream or continues a stream after an event. */
  streamRequest(lastEventId: string | undefined): Request {
    const cursor = lastEventId === undefined ? {} : { [LAST_EVENT_ID]: asHeader(lastEventId) }
    const headers = { ...this.ownHeaders, accept: EVENT_STREAM, ...cursor }
    return { method: "GET", headers, bytes: undefined, body: undefined }
  }

  answered(): void {
    this.failover.answered()
  }

  failed(request: RetryableRequest, lease: Lease, failure: RequestFailure): void {
    if (!this.recovers) return this.lose()
    // The session of the request may have been replaced already.
    if (this.lease === lease || failure === "unreachable") this.wait(request)
    else if (!request.isUnexecuted(this.denial)) request.fail()
    else if (this.lease === undefined) this.wait(request)
    else request.sendAgain(this.lease)
  }

  aborted(request: RetryableRequest): void {
    this.waiting.delete(request)
  }

  get isSettled(): boolean {
    return this.lease !== undefined && this.waiting.size === 0
  }

  get reopen(): Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope> | undefined {
    const { credentials, deadlines, name, negotiated } = this
    return (
      negotiated &&
      reinitialize(this.upstream.lease(this.leaseOptions(undefined)), {
        upstream: name,
        negotiated,
        credentials,
        deadlines
      })
    )
  }

  confirmed(lease: Lease): boolean {
    return this.takeWaiting().filter((request) => request.proceed(lease)).length > 0
  }

  denied(denial: string | undefined): void {
    this.denial = denial
    this.drop()
    for (const request of this.waiting) {
      if (request.isUnexecuted(denial)) continue
      this.waiting.delete(request)
      request.fail()
    }
  }

  prepare(lease: Lease): Effect.Effect<boolean> {
    const stored = this.client?.storeUpstreamId(lease.sessionId()) ?? Effect.void
    return Effect.andThen(
      stored,
      this.hasChangingTools ? this.tools.differs(lease, this.ownHeaders) : Effect.succeed(false)
    )
  }

  replaced(lease: Lease, hasOtherTools: boolean): void {
    const serverRequests = this.serverRequests.ids
    this.serverRequests.clear()
    this.isReplacement = true
    this.lease = lease
    lease.onExit?.(() => this.exited())
    this.log(Effect.logInfo("upstream session: replaced", { upstream: this.name }))
    this.deps.telemetry.failoverEnded("succeeded")
    this.client?.failedOver({ serverRequests, hasOtherTools })
    for (const request of this.takeWaiting()) request.sendAgain(lease)
  }

  gaveUp(cause: string | undefined): Effect.Effect<void> {
    return Effect.sync(() => {
      this.log(Effect.logWarning("upstream session: failover failed", { upstream: this.name, cause }))
      this.deps.telemetry.failoverEnded("failed")
      this.client?.upstreamLost()
    })
  }

  /** Ends the upstream session, unless the exit says that it continues in another process. */
  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return this.failover.close(exit)
  }

  private take(sessionId: string | undefined): Effect.Effect<Lease, UpstreamError | LimitReached> {
    return Effect.tap(this.failover.take(this.upstream.lease(this.leaseOptions(sessionId))), (lease) => {
      this.lease = lease
    })
  }

  private leaseOptions(sessionId: string | undefined): LeaseOptions {
    return {
      sessionId,
      revision: () => this.revision,
      endHeaders: () => ({ ...this.ownHeaders, ...this.deleteHeaders })
    }
  }

  private retryable(request: Request, sink: Sink): RetryableRequest {
    return new RetryableRequest(this, request, sink, this.lease)
  }

  private send(request: RetryableRequest, parsed: Request): Abort {
    if (this.lease !== undefined) request.send(this.lease, parsed)
    else if (request.isBound) request.fail()
    else this.wait(request)
    return () => request.abort()
  }

  private wait(request: RetryableRequest): void {
    this.waiting.add(request)
    this.failover.start()
  }

  /** Drops waiting requests that these messages cancel. */
  private dropCancelled({ messages }: Body): void {
    if (this.waiting.size === 0) return
    for (const message of messages) {
      const id = cancelledRequestId(message)
      if (id === undefined) continue
      for (const request of this.waiting) if (request.asksOnly(id)) this.waiting.delete(request)
    }
  }

  /**
   * True if a message is valid in the current upstream session. A late response to the lost session is not, because the
   * new session may use the same request id. While there is no session, no message that refers to one is valid.
   */
  private isCurrent(message: Message): boolean {
    if (message.method === undefined && !this.serverRequests.settle(message) && this.isReplacement)
      return false
    return this.lease !== undefined || !isBoundToSession(message)
  }

  /** Handles the exit of the upstream. */
  private exited(): void {
    this.drop()
    if (!this.recovers) this.lose()
    else if (this.waiting.size > 0 || this.client?.isListening === true) this.failover.start()
    else this.failover.clear()
  }

  private lose(): void {
    this.failover.markLost()
    this.client?.upstreamLost()
  }

  /** Drops the lease of the lost session, so that nothing is sent to it. */
  private drop(): void {
    this.failover.markLost()
    this.lease = undefined
  }

  private log(logged: Effect.Effect<void>): void {
    this.deps.fork(Effect.annotateLogs(logged, "session", this.client?.handle ?? ""))
  }

  /** Removes and returns all waiting requests. */
  private takeWaiting(): ReadonlyArray<RetryableRequest> {
    const all = Array.from(this.waiting)
    this.waiting.clear()
    return all
  }
}

/** Encodes a text as the bytes of a header field: its UTF-8 (WHATWG HTML, "The Last-Event-ID header"). */
const asHeader = (text: string): string => Buffer.from(text).toString("latin1")
