/** A client session that is live in this process. */
import { createHash, randomBytes } from "node:crypto"
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import { type ClientResponse, type Disconnect, noClient, refuse } from "../ClientResponse.js"
import { retainedEvents } from "../EventTracker/StreamLog.js"
import type { EventTracker } from "../EventTracker.js"
import { Exchange, type ExchangeContext } from "../Exchange.js"
import type { Interceptor } from "../Interceptor.js"
import type { Deadlines } from "../internal/deadlines.js"
import { first, type Headers } from "../internal/headers.js"
import type { InFlight } from "../internal/inFlight.js"
import { SlotSet } from "../internal/slotSet.js"
import { type Body, cancelledRequestId, LAST_EVENT_ID, type Message } from "../Protocol.js"
import { LimitReached, SessionNotFound, ShuttingDown, type UpstreamError } from "../ProxyError.js"
import type { SessionStore } from "../SessionStore.js"
import type { Streams } from "../Streams.js"
import type { ResumableUpstream } from "../Streams/ResumableUpstream.js"
import { StandaloneStream } from "../Streams/StandaloneStream.js"
import type { TelemetryListener } from "../Telemetry.js"
import type { Request, Upstream } from "../Upstream.js"
import type { ClientSession, SessionChange, UpstreamSession } from "../UpstreamSession.js"
import type { HeldAnswer } from "../UpstreamSession/Initialize.js"
import type { Negotiated } from "../UpstreamSession/Negotiated.js"
import { notifyOfFailover } from "./failoverNotices.js"
import { updateRecord } from "./records.js"

/**
 * The reason for the end of a session. `deleted`: its client ended it. `abandoned`: its client disconnected before it
 * learned the id. `closed`: an operator closed it. `idle`: it was not used for the session timeout. `drained`: the
 * proxy shut down. `failed`: its upstream session is lost. `replaced`: another client took its place, in single-session
 * mode. `suspended`: it ends in this process only, and another process continues it.
 */
export type CloseReason =
  | "deleted"
  | "abandoned"
  | "closed"
  | "idle"
  | "drained"
  | "failed"
  | "replaced"
  | "suspended"

/** A new session id: 128 random bits in visible ASCII (2025-11-25, Transports, "Session Management"). */
export const makeId = (): string => randomBytes(16).toString("base64url")

/** The name of a session in logs and lists. It identifies the session and gives no access to it. */
export const handleOf = (id: string): string => createHash("sha256").update(id).digest("hex").slice(0, 12)

/** Logs an upstream failure, with the session of this id if there is one. */
export type Report = (error: UpstreamError, id: string | undefined) => void

/** The dependencies that all sessions share. */
export interface SessionDeps {
  readonly clock: Clock.Clock
  readonly deadlines: Deadlines
  readonly inFlight: InFlight
  readonly store: SessionStore["Type"]
  readonly telemetry: TelemetryListener
  readonly tracker: EventTracker["Type"]
  readonly interceptors: ReadonlyArray<Interceptor>
  readonly report: Report
  /** Runs an effect in a background fiber. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  /** True if a session that the upstream has lost is replaced. */
  readonly recover: boolean
  /** The silence on a stream after which a comment is sent, in milliseconds. */
  readonly keepAlive: number
  /** The maximum number of requests in flight in one session. */
  readonly maxExchanges: number
  /** The maximum idle time of a session, in milliseconds. */
  readonly sessionTimeout: number
  /** The lifetime of a record after the last activity, in milliseconds. A sweep checks the session before it ends. */
  readonly timeToLive: number
}

/** The parts of a session. */
export interface SessionParts {
  readonly id: string
  readonly handle: string
  /** The address of the client that opened the session. */
  readonly client: string
  /** The time at which the session was opened, in milliseconds since 1970. */
  readonly createdAt: number
  readonly negotiated: Negotiated
  readonly upstreamSession: UpstreamSession
  readonly resumable: ResumableUpstream
  /** `resumable`, wrapped in the interceptors. */
  readonly upstream: Upstream
  /** The streams that the client can reconnect to; `undefined` if streams are not tracked. */
  readonly streams: Streams | undefined
}

/** The methods that do not count as a use of the session, because clients probe servers with them. */
const probingMethods: ReadonlySet<string> = new Set(["initialize", "notifications/initialized", "ping"])

/**
 * The session's scope owns everything that the session holds: its admission, lease, record, registry entry and
 * exchanges. Completing `ended` closes that scope.
 */
export class Session implements ClientSession {
  readonly id: string
  readonly handle: string
  readonly client: string
  readonly createdAt: number
  readonly negotiated: Negotiated
  readonly upstreamSession: UpstreamSession
  /** The time of the last activity, in milliseconds since 1970. */
  lastActiveAt: number
  /** True if the client has sent more than the methods in `probingMethods`. */
  isUsed = false
  /** The reason for the end of the session; `undefined` before that, and if its fiber is interrupted. */
  reason: CloseReason | undefined
  readonly ended: Deferred.Deferred<CloseReason> = Deferred.unsafeMake(FiberId.none)
  private readonly exchanges = new SlotSet<Exchange>()
  private readonly context: ExchangeContext
  private readonly resumable: ResumableUpstream
  private readonly streams: Streams | undefined
  /** The upstream's standalone stream; `undefined` if streams are not tracked. */
  private readonly standalone: StandaloneStream | undefined

  constructor(
    parts: SessionParts,
    private readonly deps: SessionDeps
  ) {
    const { id, streams, upstream } = parts
    this.id = id
    this.handle = parts.handle
    this.client = parts.client
    this.createdAt = parts.createdAt
    this.negotiated = parts.negotiated
    this.upstreamSession = parts.upstreamSession
    this.resumable = parts.resumable
    this.streams = streams
    this.lastActiveAt = deps.clock.unsafeCurrentTimeMillis()
    const { deadlines, inFlight, keepAlive, sessionTimeout, telemetry } = deps
    this.context = {
      upstream,
      sessionId: id,
      deadlines,
      unreadTimeout: sessionTimeout,
      inFlight,
      telemetry,
      keepAlive,
      streams,
      settled: (exchange) => this.exchangeSettled(exchange)
    }
    this.standalone =
      streams &&
      new StandaloneStream({ sessionId: id, upstream, telemetry, settled: () => this.touch() }, streams)
  }

  /** The negotiated revision. */
  get protocolVersion(): string {
    return this.negotiated.protocolVersion
  }

  get isListening(): boolean {
    return (this.streams?.openStandalone ?? 0) > 0
  }

  /** The number of exchanges in flight, and how many of them are streams that the client holds open. */
  get load(): { readonly exchanges: number; readonly streams: number } {
    return {
      exchanges: this.openExchanges,
      streams: this.streams?.openStandalone ?? this.exchanges.count(({ isStream }) => isStream)
    }
  }

  /** Relays a request. The response receives every outcome, including a refusal. */
  exchange(request: Request, response: ClientResponse): Disconnect {
    if (request.method === "GET" && this.streams !== undefined && this.standalone !== undefined) {
      return this.listen(request, response, this.streams, this.standalone)
    }
    const exchange = new Exchange(this.context, request, response)
    if (this.isFull(exchange.isRequest)) exchange.refuse(this.limitReached)
    else {
      this.exchanges.add(exchange)
      exchange.start(request)
      if (request.body !== undefined) this.observe(request.body)
    }
    return () => exchange.disconnect()
  }

  /** Passes on the answer to the `initialize` that opened the session. */
  passOn(held: HeldAnswer, request: Request, response: ClientResponse): Disconnect {
    const exchange = new Exchange(this.context, request, response)
    this.exchanges.add(exchange)
    exchange.adopt(held)
    return () => exchange.disconnect()
  }

  /** Continues the streams that an earlier process opened. `headers` are of the request that restores the session. */
  restore(headers: Headers): void {
    this.isUsed = true
    this.touch()
    this.upstreamSession.useCredentials(headers)
    const { standalone, streams } = this
    if (streams === undefined || standalone === undefined) return
    for (const log of streams.log.unfinished) {
      if (this.upstreamSession.recovers) {
        for (const { frame } of retainedEvents(log)) this.upstreamSession.serverRequests.note(frame)
      }
      const [message, ...others] = log.requests.map((id): Message => ({ jsonrpc: "2.0", id, method: "" }))
      if (message === undefined) streams.continueStandaloneStream(log, standalone)
      else {
        const body: Body = { isBatch: others.length > 0, messages: [message, ...others] }
        const request: Request = { method: "POST", headers: {}, bytes: undefined, body }
        const exchange = new Exchange(this.context, request, noClient)
        this.exchanges.add(exchange)
        exchange.restore(streams, log)
      }
    }
  }

  /** Notes the header fields of the client's DELETE, for the DELETE of the upstream session. */
  useDeleteHeaders(headers: Headers): void {
    this.upstreamSession.useDeleteHeaders(headers)
  }

  /** Ends the session. Only the first call sets the reason. */
  end(reason: CloseReason): void {
    this.reason ??= reason
    Deferred.unsafeDone(this.ended, Effect.succeed(reason))
  }

  /** Ends all exchanges and streams with an error for the reason. */
  cut(): void {
    const isSuspended = this.reason === "suspended"
    const isShutDown = isSuspended || (this.reason ?? "drained") === "drained"
    const error = isShutDown ? new ShuttingDown() : new SessionNotFound()
    for (const exchange of this.exchanges) {
      if (isSuspended) exchange.suspend(error)
      else exchange.cut(error)
    }
    if (isSuspended) this.streams?.suspend()
    this.standalone?.cut(error)
    this.streams?.close()
  }

  /** Ends the session if it is idle: no exchange in flight, no stream open, nothing sent for the session timeout. */
  expire(): void {
    if (this.isBusy) this.touch()
    else if (this.deps.clock.unsafeCurrentTimeMillis() - this.lastActiveAt >= this.deps.sessionTimeout) {
      this.end("idle")
    }
  }

  storeUpstreamId(upstreamSessionId: string | undefined): Effect.Effect<void> {
    return updateRecord(this.deps.store, this, { upstreamSessionId })
  }

  failedOver(change: SessionChange): void {
    this.resumable.sessionLost()
    const { standalone, streams } = this
    if (streams === undefined || standalone === undefined) {
      // Without tracking, the client must open its stream again itself.
      for (const exchange of this.exchanges) if (exchange.method === "GET") exchange.cut(new ShuttingDown())
      return
    }
    streams.log.reset()
    notifyOfFailover(streams, this.negotiated, change)
    standalone.renew()
  }

  upstreamLost(): void {
    this.end("failed")
  }

  /** Handles the client's GET: opens a stream, or reconnects to one. */
  private listen(
    request: Request,
    response: ClientResponse,
    streams: Streams,
    standalone: StandaloneStream
  ): Disconnect {
    const lastEventId = first(request.headers, LAST_EVENT_ID)
    // A stream that a client reconnects to is counted already.
    if (lastEventId === undefined && this.isFull(true)) return refuse(response, this.limitReached)
    return lastEventId === undefined || streams.isStandalone(lastEventId)
      ? standalone.listen(request, response)
      : streams.resume(lastEventId, response)
  }

  private exchangeSettled(exchange: Exchange): void {
    this.exchanges.delete(exchange)
    this.touch()
  }

  /** The number of exchanges in flight and of standalone streams that the client reads or waits for. */
  private get openExchanges(): number {
    const waiting = this.standalone?.hasWaitingClient === true ? 1 : 0
    return this.exchanges.size + waiting + (this.streams?.openStandalone ?? 0)
  }

  private get isBusy(): boolean {
    return this.openExchanges > 0 || this.streams?.hasReader === true
  }

  /**
   * True if no other exchange may begin. Responses and notifications may use twice the limit, because a call in flight
   * may wait for the client's response to a request of the server.
   */
  private isFull(isRequest: boolean): boolean {
    const { maxExchanges } = this.deps
    return this.openExchanges >= (isRequest ? maxExchanges : 2 * maxExchanges)
  }

  private get limitReached(): LimitReached {
    return new LimitReached({ limit: "max-exchanges", bound: this.deps.maxExchanges })
  }

  /** Postpones the expiry. */
  private touch(): void {
    this.lastActiveAt = this.deps.clock.unsafeCurrentTimeMillis()
    this.deps.store.touch(this.id, this.lastActiveAt)
  }

  private observe({ messages }: Body): void {
    for (const message of messages) {
      if (this.negotiated.note(message)) this.storeSettings()
      this.isUsed ||= message.method !== undefined && !probingMethods.has(message.method)
      const id = cancelledRequestId(message)
      if (id !== undefined) for (const exchange of this.exchanges) exchange.cancel(id)
    }
  }

  private storeSettings(): void {
    const { logLevel, subscriptions } = this.negotiated
    this.deps.fork(updateRecord(this.deps.store, this, { logLevel, subscriptions }))
  }
}
