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
import { Failover, type FailoverResult, type FailoverSteps } from "./UpstreamSession/Failover.js"
import type { Negotiated } from "./UpstreamSession/Negotiated.js"
import { probe } from "./UpstreamSession/probe.js"
import { reinitialize } from "./UpstreamSession/reinitialize.js"
import {
  type AttemptResult,
  isBoundToSession,
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

/** `denial` is the latest refusal that the upstream returned for a lost session. */
type Phase =
  /** No lease is taken yet. */
  | { readonly type: "opening"; readonly lease: undefined; readonly denial: undefined }
  | { readonly type: "open"; readonly lease: Lease; readonly denial: undefined }
  /** The session is lost or has ended with its process. A request that needs another session waits for it. */
  | { readonly type: "lost"; readonly lease: undefined; readonly denial: string | undefined }
  /** Open after a failover. A late response of the client may belong to the lost session. */
  | { readonly type: "replaced"; readonly lease: Lease; readonly denial: string | undefined }

const opening: Phase = { type: "opening", lease: undefined, denial: undefined }

/** Stands in until `begin` sets the client session. */
const noClient: ClientSession = {
  handle: "",
  isListening: false,
  storeUpstreamId: () => Effect.void,
  failedOver: () => {},
  upstreamLost: () => {}
}

export class UpstreamSession implements Upstream, RetryContext {
  readonly name: string
  readonly deadlines: Deadlines
  /** The requests of the server that the client has not answered. */
  readonly serverRequests = new ServerRequests()
  private phase = opening
  private client = noClient
  private readonly failover: Failover
  private readonly waiting = new Set<RetryableRequest>()
  /** `undefined` before `initialize` is answered. */
  private negotiated: Negotiated | undefined
  /** `undefined` unless the server announced that it notifies of changed tools. */
  private tools: ToolList | undefined
  private credentials: Headers = {}
  /** The header fields of the client's DELETE. */
  private deleteHeaders: Headers = {}

  constructor(
    private readonly upstream: PooledUpstream,
    private readonly deps: UpstreamSessionDeps
  ) {
    this.name = upstream.name
    this.deadlines = deps.deadlines
    this.failover = new Failover(deps.fork)
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
    if (this.upstream.keepsSessions) return Effect.asVoid(this.take(sessionId))
    return Effect.sync(() => {
      this.phase = { type: "lost", lease: undefined, denial: undefined }
    })
  }

  /** Sets the result of the negotiation and the client session. */
  begin(negotiated: Negotiated, client: ClientSession): void {
    this.negotiate(negotiated)
    this.client = client
    this.phase.lease?.onExit?.(() => this.exited())
  }

  /** Sets the result of the negotiation. */
  negotiate(negotiated: Negotiated): void {
    this.negotiated = negotiated
    if (negotiated.declares("tools", "listChanged")) this.tools = new ToolList()
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
    return this.phase.lease?.sessionId()
  }

  exchange(request: Request, sink: Sink): Abort {
    const { body } = request
    this.useCredentials(request.headers)
    if (!this.recovers) return this.send(this.retryable(request, sink), request)
    const observed = this.tools?.observe(body, sink) ?? sink
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
    return this.send(new RetryableRequest(this, request, sink, this.phase.lease, true), request)
  }

  /** Returns the GET that opens a standalone stream or continues a stream after an event. */
  streamRequest(lastEventId: string | undefined): Request {
    const cursor = lastEventId === undefined ? {} : { [LAST_EVENT_ID]: asHeader(lastEventId) }
    const headers = { ...this.ownHeaders, accept: EVENT_STREAM, ...cursor }
    return { method: "GET", headers, bytes: undefined, body: undefined }
  }

  attempted(request: RetryableRequest, attempted: Lease, result: AttemptResult): void {
    if (result === "answered") return this.failover.resetFailures()
    if (!this.recovers) return this.lose()
    const { denial, lease } = this.phase
    // The session of the request may have been replaced already.
    if (lease === attempted || result === "unreachable") this.wait(request)
    else if (!request.isUnexecuted(denial)) request.fail()
    else if (lease === undefined) this.wait(request)
    else request.sendAgain(lease)
  }

  /** Ends the upstream session, unless the exit says that it continues in another process. */
  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return this.failover.close(exit)
  }

  private take(sessionId: string | undefined): Effect.Effect<Lease, UpstreamError | LimitReached> {
    return Effect.tap(this.failover.take(this.upstream.lease(this.leaseOptions(sessionId))), (lease) => {
      this.phase = { type: "open", lease, denial: undefined }
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
    return new RetryableRequest(this, request, sink, this.phase.lease)
  }

  private send(request: RetryableRequest, parsed: Request): Abort {
    const { lease } = this.phase
    if (lease !== undefined) request.send(lease, parsed)
    else if (request.isBound) request.fail()
    else this.wait(request)
    return () => {
      request.abort()
      this.waiting.delete(request)
    }
  }

  private wait(request: RetryableRequest): void {
    this.waiting.add(request)
    this.startFailover()
  }

  private startFailover(): void {
    if (this.negotiated !== undefined) this.failover.start(this.failoverSteps(this.negotiated))
  }

  private failoverSteps(negotiated: Negotiated): FailoverSteps {
    return {
      lease: () => this.phase.lease,
      probe: (lease) => probe(lease, this.ownHeaders),
      reopen: Effect.suspend(() => this.reopen(negotiated)),
      prepare: (lease) => this.prepare(lease),
      apply: (result) => this.apply(result)
    }
  }

  private reopen(negotiated: Negotiated): ReturnType<typeof reinitialize> {
    const { credentials, deadlines, name } = this
    const lease = this.upstream.lease(this.leaseOptions(undefined))
    return reinitialize(lease, { upstream: name, negotiated, credentials, deadlines })
  }

  /** Stores the id of a replacement. Succeeds with true if it has other tools. */
  private prepare(lease: Lease): Effect.Effect<boolean> {
    return Effect.andThen(
      this.client.storeUpstreamId(lease.sessionId()),
      this.tools?.differs(lease, this.ownHeaders) ?? Effect.succeed(false)
    )
  }

  /** Applies a result of the failover. Returns true if there is a session and no request waits for another one. */
  private apply(result: FailoverResult): boolean {
    switch (result.type) {
      case "confirmed": {
        const resent = this.takeWaiting().filter((request) => request.proceed(result.lease))
        if (resent.length === 0) this.failover.resetFailures()
        break
      }
      case "denied":
        this.drop(result.denial)
        this.failExecuted(result.denial)
        break
      case "replaced":
        this.replace(result.lease, result.hasOtherTools)
        break
      case "gaveUp":
        this.log(
          Effect.logWarning("upstream session: failover failed", { upstream: this.name, cause: result.cause })
        )
        this.deps.telemetry.failoverEnded("failed")
        this.client.upstreamLost()
    }
    return this.phase.lease !== undefined && this.waiting.size === 0
  }

  /** Fails waiting requests that the lost session may have executed. */
  private failExecuted(denial: string | undefined): void {
    for (const request of this.waiting) {
      if (request.isUnexecuted(denial)) continue
      this.waiting.delete(request)
      request.fail()
    }
  }

  private replace(lease: Lease, hasOtherTools: boolean): void {
    const serverRequests = this.serverRequests.ids
    this.serverRequests.clear()
    this.phase = { type: "replaced", lease, denial: this.phase.denial }
    lease.onExit?.(() => this.exited())
    this.log(Effect.logInfo("upstream session: replaced", { upstream: this.name }))
    this.deps.telemetry.failoverEnded("succeeded")
    this.client.failedOver({ serverRequests, hasOtherTools })
    for (const request of this.takeWaiting()) request.sendAgain(lease)
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
    if (
      message.method === undefined &&
      !this.serverRequests.settle(message) &&
      this.phase.type === "replaced"
    )
      return false
    return this.phase.lease !== undefined || !isBoundToSession(message)
  }

  /** Handles the exit of the upstream. */
  private exited(): void {
    this.drop(this.phase.denial)
    if (!this.recovers) this.lose()
    else if (this.waiting.size > 0 || this.client.isListening) this.startFailover()
    else this.failover.clear()
  }

  private lose(): void {
    this.failover.markLost()
    this.client.upstreamLost()
  }

  /** Drops the lease of the lost session, so that nothing is sent to it. */
  private drop(denial: string | undefined): void {
    this.failover.markLost()
    this.phase = { type: "lost", lease: undefined, denial }
  }

  private log(logged: Effect.Effect<void>): void {
    this.deps.fork(Effect.annotateLogs(logged, "session", this.client.handle))
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
