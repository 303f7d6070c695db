/** A client session that is live in this process. */
import { createHash, randomBytes } from "node:crypto"
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type { Negotiated } from "../UpstreamSession/Negotiated.js"
import { type ClientResponse, discard, type Disconnect, refuse } from "../ClientResponse.js"
import { retainedEvents } from "../EventTracker/StreamLog.js"
import { Exchange, type Owner } from "../Exchange.js"
import { type Fed, StandaloneStream } from "../Streams/StandaloneStream.js"
import type { Terms } from "../Streams/StreamWriter.js"
import type { EventTracker, SessionLog } from "../EventTracker.js"
import type { HeldAnswer } from "../UpstreamSession/Initialize.js"
import { Backlog } from "../Streams/Backlog.js"
import { SlotSet } from "../internal/slotSet.js"
import type { Deadlines } from "../internal/deadlines.js"
import type { InFlight } from "../internal/inFlight.js"
import { first, type Headers } from "../internal/headers.js"
import { frame } from "../Protocol/SseFrames.js"
import {
  type Body,
  cancelled,
  cancelledRequest,
  hasPriming,
  type Message,
  restarted,
  toolsChanged
} from "../Protocol.js"
import { LimitReached, SessionNotFound, ShuttingDown, type UpstreamError } from "../ProxyError.js"
import { type Broken, resume } from "../Streams/Resumption.js"
import type { Change as RecordChange, SessionStore } from "../SessionStore.js"
import { Streams } from "../Streams.js"
import type { TelemetryListener } from "../Telemetry.js"
import type { Abort, Request } from "../Upstream.js"
import type { Change, Heir, UpstreamSession } from "../UpstreamSession.js"

/**
 * Why a session ends: its client ended it, or had gone before it learned the id; whoever operates the proxy closed
 * it; nothing happened for long; the proxy shuts down; its upstream gave it up; or, in single-session mode, another
 * client took its place. `suspended` is the end in this process alone: the next one goes on with it.
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

/** A new session id: 128 random bits (Transports, "Session Management": secure, visible ASCII). */
export const makeId = (): string => randomBytes(16).toString("base64url")

/** The name of a session in logs and lists: it tells sessions apart and opens none. */
export const handleOf = (id: string): string => createHash("sha256").update(id).digest("hex").slice(0, 12)

/** Logs an error that happened in the session with this id, if in one. */
export type Report = (error: UpstreamError, id: string | undefined) => void

/** What a session shares with all others. */
export interface Shared {
  readonly clock: Clock.Clock
  readonly deadlines: Deadlines
  readonly inFlight: InFlight
  readonly store: SessionStore["Type"]
  readonly telemetry: TelemetryListener
  /** Logs a failure of the upstream, in a session or without one. */
  readonly report: Report
  /** How long a stream may be silent before a comment is sent, in milliseconds. */
  readonly keepAlive: number
  readonly tracker: EventTracker["Type"]
  /** Runs what goes on beside the session's fiber; an interruption gives it up. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  /** How many requests of one session may be in flight. */
  readonly maxExchanges: number
  /** How long a session may be idle, in milliseconds. */
  readonly sessionTimeout: number
  /** How long its record outlives the last activity, in milliseconds: until a sweep has looked at the session. */
  readonly timeToLive: number
}

/** What a client may send to try a server out, without having used the session. */
const probing: ReadonlySet<string> = new Set(["initialize", "notifications/initialized", "ping"])

/**
 * The session's scope owns everything that it holds: the admission permit, the lease, the record, the entry in
 * the registry, the exchanges in flight. Completing `ended` closes that scope.
 */
export class Session implements Owner, Fed, Heir {
  /** What it is called in logs and lists. */
  readonly handle: string
  /** When something last happened, in milliseconds since 1970. */
  lastActiveAt: number
  /** Whether the client has done more than to open the session and to try it out. */
  isUsed = false
  /** Why the session ends, once it does; an interruption of its fiber gives no reason of its own. */
  reason: CloseReason | undefined
  readonly ended: Deferred.Deferred<CloseReason> = Deferred.unsafeMake(FiberId.none)
  /** The streams that the client can come back to; `undefined` where they are passed on as they are. */
  readonly resumable: Streams | undefined
  private readonly exchanges = new SlotSet<Exchange>()
  /** What feeds the client's standalone streams, where these are kept. */
  private readonly feed: StandaloneStream | undefined

  constructor(
    readonly id: string,
    /** The address of the client that opened it. */
    readonly client: string,
    /** When it was opened, in milliseconds since 1970. */
    readonly createdAt: number,
    readonly upstream: UpstreamSession,
    /** What `initialize` settled, and the client since. */
    readonly agreement: Negotiated,
    private readonly shared: Shared,
    /** Where its streams are kept, if they are. */
    log: SessionLog | undefined
  ) {
    this.handle = handleOf(id)
    this.lastActiveAt = shared.clock.unsafeCurrentTimeMillis()
    upstream.agree(agreement, this)
    if (log === undefined) return
    this.resumable = new Streams(log, this.terms, id)
    this.feed = new StandaloneStream(this, this.resumable)
  }

  get protocolVersion(): string {
    return this.agreement.protocolVersion
  }

  get isListening(): boolean {
    return (this.resumable?.attended ?? 0) > 0
  }

  get deadlines(): Deadlines {
    return this.shared.deadlines
  }

  get patience(): number {
    return this.shared.sessionTimeout
  }

  get inFlight(): InFlight {
    return this.shared.inFlight
  }

  get telemetry(): TelemetryListener {
    return this.shared.telemetry
  }

  get keepAlive(): number {
    return this.shared.keepAlive
  }

  /** How many exchanges are in flight, and how many of them are streams that the client holds open. */
  get load(): { readonly exchanges: number; readonly streams: number } {
    return {
      exchanges: this.openExchanges,
      streams: this.resumable?.attended ?? this.exchanges.count(({ isStream }) => isStream)
    }
  }

  /** Relays a request. The answer is told everything that comes of it, refusals too. */
  exchange(request: Request, answer: ClientResponse): Disconnect {
    if (request.method === "GET" && this.resumable !== undefined && this.feed !== undefined) {
      return this.listen(request, answer, this.resumable, this.feed)
    }
    const exchange = new Exchange(this, request, answer)
    if (this.isFull(exchange.isRequest)) exchange.refuse(this.full)
    else {
      this.exchanges.add(exchange)
      exchange.relay(request)
      if (request.body !== undefined) this.observe(request.body)
    }
    return () => exchange.leave()
  }

  /** Goes on with the streams that an earlier process has begun, for a client that sends these fields. */
  goOn(headers: Headers): void {
    this.isUsed = true
    this.touch()
    this.upstream.identify(headers)
    const { feed, resumable: streams } = this
    if (streams === undefined || feed === undefined) return
    for (const log of streams.log.unfinished) {
      const [first, ...others] = log.requests.map((id): Message => ({ jsonrpc: "2.0", id, method: "" }))
      if (first === undefined) {
        streams.takeUp(log, feed)
        for (const { frame } of retainedEvents(log)) this.heard(frame)
      } else {
        const body: Body = { isBatch: others.length > 0, messages: [first, ...others] }
        const exchange = new Exchange(this, { method: "POST", headers: {}, bytes: undefined, body }, discard)
        this.exchanges.add(exchange)
        exchange.goOn(streams, log)
      }
    }
  }

  /** Passes on the answer to the `initialize` that opened the session. */
  begin(held: HeldAnswer, request: Request, answer: ClientResponse): Disconnect {
    const exchange = new Exchange(this, request, answer)
    this.exchanges.add(exchange)
    exchange.adopt(held)
    return () => exchange.leave()
  }

  /** The client is about to end the session, with a request that has these fields. */
  parting(headers: Headers): void {
    this.upstream.parting(headers)
  }

  /** Closes the session. The first reason holds. */
  end(reason: CloseReason): void {
    this.reason ??= reason
    Deferred.unsafeDone(this.ended, Effect.succeed(reason))
  }

  /** Ends the exchanges in flight; each client is told why. */
  cut(): void {
    const isSuspended = this.reason === "suspended"
    const isShutDown = isSuspended || (this.reason ?? "drained") === "drained"
    const why = isShutDown ? new ShuttingDown() : new SessionNotFound()
    for (const exchange of this.exchanges) {
      if (isSuspended) exchange.suspend(why)
      else exchange.cut(why)
    }
    if (isSuspended) this.resumable?.suspend()
    this.feed?.cut(why)
    this.resumable?.close()
  }

  keep(upstreamSessionId: string | undefined): Effect.Effect<void> {
    return this.update({ upstreamSessionId })
  }

  recovered({ asked, hasOtherTools }: Change): void {
    const { feed, resumable: streams } = this
    for (const exchange of this.exchanges) {
      // The client of a stream that is passed on as it is opens another.
      if (exchange.method === "GET") exchange.cut(new ShuttingDown())
      else exchange.orphan()
    }
    if (streams === undefined || feed === undefined) return
    streams.log.reset()
    const tell = (message: Message, isUrgent: boolean) =>
      streams.tell(frame(JSON.stringify(message)), isUrgent)
    for (const id of asked) tell(cancelled(id, "The server that asked is gone"), true)
    if (this.agreement.declares("logging") && this.agreement.wantsWarnings) tell(restarted, false)
    if (hasOtherTools) tell(toolsChanged, true)
    feed.renew()
  }

  lost(): void {
    this.end("failed")
  }

  /** Goes on with a stream that has broken at the upstream. */
  resume(broken: Broken, done: (isComplete: boolean) => void): Abort {
    const fiber = this.shared.fork(Effect.map(resume(this.upstream, broken, this.telemetry), done))
    return () => fiber.unsafeInterruptAsFork(FiberId.none)
  }

  /** Ends the session if it is idle: no exchange in flight, no stream open, nothing for the session's timeout. */
  expire(): void {
    if (this.isBusy) this.touch()
    else if (this.shared.clock.unsafeCurrentTimeMillis() - this.lastActiveAt >= this.shared.sessionTimeout) {
      this.end("idle")
    }
  }

  failed(error: UpstreamError, exchange?: Exchange): void {
    this.shared.report(error, this.id)
    if (error.reason !== "AnswerTimeout" || exchange === undefined || exchange.isInitialize) return
    for (const id of exchange.requests) {
      this.send(cancelled(id, "The proxy's time limit for the request has passed"))
    }
  }

  settled(exchange?: Exchange): void {
    if (exchange !== undefined) this.exchanges.delete(exchange)
    this.touch()
  }

  /** The GET of a client: it comes back to a stream, or opens one. */
  private listen(
    request: Request,
    answer: ClientResponse,
    streams: Streams,
    feed: StandaloneStream
  ): Disconnect {
    const lastEventId = first(request.headers, "last-event-id")
    // A stream that a client comes back to has its place already.
    if (lastEventId === undefined && this.isFull(true)) return refuse(answer, this.full)
    const isStandalone = lastEventId === undefined || streams.isStandalone(lastEventId)
    return isStandalone ? feed.listen(request, answer) : streams.resume(lastEventId, answer)
  }

  /** What the client waits for, and the standalone streams that it reads. */
  private get openExchanges(): number {
    const asked = this.feed?.isAwaited === true ? 1 : 0
    return this.exchanges.size + asked + (this.resumable?.attended ?? 0)
  }

  /** Whether the client waits for something, or listens. */
  private get isBusy(): boolean {
    return this.openExchanges > 0 || this.resumable?.isAttended === true
  }

  private get full(): LimitReached {
    return new LimitReached({ limit: "max-exchanges", bound: this.shared.maxExchanges })
  }

  private get terms(): Terms {
    const { deadlines, keepAlive, telemetry, tracker } = this.shared
    const { maxEventBytes, maxEvents, retry } = tracker.options
    return {
      deadlines,
      telemetry,
      keepAlive,
      retry: Duration.toMillis(retry),
      isPrimed: hasPriming(this.protocolVersion),
      bounds: { events: maxEvents, bytes: maxEventBytes },
      backlog: new Backlog()
    }
  }

  /** Sends a message of the proxy's own, whose answer is of no interest. */
  private send(message: Message): void {
    const body: Body = { isBatch: false, messages: [message] }
    const exchange = new Exchange(this, { method: "POST", headers: {}, bytes: undefined, body }, discard)
    this.exchanges.add(exchange)
    exchange.start((sink) => this.upstream.send(message, sink))
    exchange.leave()
  }

  heard(frames: Buffer): void {
    if (this.upstream.recovers) this.upstream.asked.heard(frames)
  }

  private keepAgreement(): void {
    const { logLevel, subscriptions } = this.agreement
    this.shared.fork(this.update({ logLevel, subscriptions }))
  }

  /** What cannot be stored is lost with the process, and no sooner. */
  private update(change: RecordChange): Effect.Effect<void> {
    return this.shared.store.update(this.id, change).pipe(
      Effect.catchAll(({ message }) => Effect.logWarning("a change is not stored", { message })),
      Effect.annotateLogs("session", this.handle),
      Effect.asVoid
    )
  }

  /** Puts off the expiry. */
  private touch(): void {
    this.lastActiveAt = this.shared.clock.unsafeCurrentTimeMillis()
    this.shared.store.touch(this.id, this.lastActiveAt)
  }

  /**
   * Responses and notifications have as much room again beside the requests: a call may wait for the client's
   * response to a request of the server, and must not keep it out.
   */
  private isFull(isRequest: boolean): boolean {
    const { maxExchanges } = this.shared
    return this.openExchanges >= (isRequest ? maxExchanges : 2 * maxExchanges)
  }

  private observe(body: Body): void {
    for (const message of body.messages) {
      if (this.agreement.note(message)) this.keepAgreement()
      this.isUsed ||= message.method !== undefined && !probing.has(message.method)
      const id = cancelledRequest(message)
      if (id === undefined) continue
      for (const exchange of this.exchanges) exchange.cancel(id)
    }
  }
}
