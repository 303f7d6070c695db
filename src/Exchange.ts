/** One request of a client and its answer. */
import { type ClientResponse, disconnected } from "./ClientResponse.js"
import { retainedEvents, type StreamLog } from "./EventTracker/StreamLog.js"
import { LoggedStream } from "./Exchange/LoggedStream.js"
import type { Deadline, Deadlines, Expirable } from "./internal/deadlines.js"
import { type Headers, isReadable } from "./internal/headers.js"
import type { InFlight } from "./internal/inFlight.js"
import { NO_SLOT, type SlotSetItem } from "./internal/slotSet.js"
import { EVENT_STREAM, frame, FrameSplitter, hasEventId, KEEP_ALIVE } from "./Protocol/SseFrames.js"
import { methodLabel, type RequestId, requestIds } from "./Protocol.js"
import { type ProxyError, toJsonRpc, UpstreamError } from "./ProxyError.js"
import type { Streams } from "./Streams.js"
import { PendingRequests } from "./Streams/PendingRequests.js"
import type { StreamSource } from "./Streams/StreamWriter.js"
import type { Outcome, TelemetryListener } from "./Telemetry.js"
import {
  type Abort,
  BODY_STALL,
  type Flow,
  noFlow,
  nothingToAbort,
  type Request,
  type Sink,
  type StreamPart,
  type Upstream
} from "./Upstream.js"
import { streaming, toClient } from "./Upstream/headers.js"
import type { HeldAnswer } from "./UpstreamSession/Initialize.js"

/** The dependencies that the exchanges of one session share, or all exchanges without a session. */
export interface ExchangeContext {
  readonly upstream: Upstream
  /** The client session's id; `undefined` without a session. */
  readonly sessionId: string | undefined
  readonly deadlines: Deadlines
  /** The maximum time to read an answer after its client has disconnected, in milliseconds. */
  readonly unreadTimeout: number
  /** Counts the exchanges that a shutdown waits for. */
  readonly inFlight: InFlight
  readonly telemetry: TelemetryListener
  /** The silence on a stream after which a comment is sent, in milliseconds. */
  readonly keepAlive: number
  /** The streams that clients can reconnect to; `undefined` if streams are not tracked. */
  readonly streams: Streams | undefined
  /** Called once, when an exchange is over. */
  readonly settled: (exchange: Exchange) => void
}

/** The time that the upstream has to answer a cancelled request, in milliseconds. Most servers never answer it. */
const CANCELLED_GRACE = 5_000

/** The way in which the answer reaches the client. */
type Mode =
  /** The upstream has not begun to answer. */
  | { readonly type: "sent" }
  /** The answer is not a readable event stream. Its bytes are forwarded unchanged. */
  | { readonly type: "body"; readonly flow: Flow }
  /** The frames of an event stream are forwarded to the connection that sent the request. */
  | { readonly type: "passing"; readonly flow: Flow; readonly splitter: FrameSplitter; isResumable: boolean }
  /** The events are logged, and written to whichever connection reads the stream. */
  | LoggedStream
  | { readonly type: "done" }

const sent: Mode = { type: "sent" }
const done: Mode = { type: "done" }

/** Stays `cancelled` when the client disconnects, because the exchange ends within its grace period. */
type ClientState = "waiting" | "cancelled" | "disconnected"

export class Exchange implements Sink, StreamSource, Expirable, SlotSetItem {
  slot = NO_SLOT
  readonly method: Request["method"]
  /** True if the client holds the exchange open as a stream: a GET, or `subscriptions/listen`. */
  readonly isStream: boolean
  private mode: Mode = sent
  private client: ClientState = "waiting"
  /** The status of the upstream's answer; 0 before that. */
  private status = 0
  private isCounted = false
  private abort: Abort = nothingToAbort
  private readonly pending: PendingRequests
  private readonly deadline: Deadline
  private readonly label: string
  private readonly startedAt = performance.now()

  constructor(
    private readonly context: ExchangeContext,
    request: Request,
    private response: ClientResponse
  ) {
    this.method = request.method
    this.isStream = request.method === "GET" || request.body?.messages[0].method === "subscriptions/listen"
    this.label = methodLabel(request.body)
    this.pending = new PendingRequests(request.body === undefined ? [] : requestIds(request.body))
    this.deadline = context.deadlines.create(this)
  }

  /** True if the client waits for a response, or for the events of a stream. */
  get isRequest(): boolean {
    return !this.pending.isEmpty || this.method === "GET"
  }

  /**
   * Sends the client's request. The exchange does not keep the request, because a parsed body can be many times as
   * large as its bytes.
   */
  start(request: Request): void {
    this.count()
    this.send(request)
  }

  /** Responds with an error and sends nothing to the upstream. */
  refuse(error: ProxyError): void {
    this.response.error(error)
    this.settle("refused")
  }

  /** Passes on the answer to an `initialize` that was sent before the session existed. */
  adopt(held: HeldAnswer): void {
    this.count()
    this.abort = held.abort
    held.release(this)
  }

  /** Continues a stream that an earlier process began to log. The client may reconnect to it. */
  restore(streams: Streams, log: StreamLog): void {
    const writer = streams.continueAnswer(log, this)
    this.mode = new LoggedStream(noFlow, writer, this.pending)
    this.client = "disconnected"
    this.status = 200
    for (const { frame } of retainedEvents(log)) this.pending.note(frame)
    if (this.pending.isEmpty) return this.finish("answered")
    if (log.cursor === undefined) return this.fail(this.because("Closed"))
    this.deadline.set(this.context.unreadTimeout)
    const continues = { requests: this.pending.ids, lastEventId: log.cursor, mode: "until resumed" } as const
    this.send({ method: "GET", headers: {}, bytes: undefined, body: undefined, continues })
  }

  head(status: number, headers: Headers, flow: Flow): void {
    // An earlier process has sent the head of a restored stream.
    if (this.mode.type === "logged") this.mode.flow = flow
    if (this.mode.type !== "sent") return
    this.status = status
    const { sessionId, streams } = this.context
    const forClient = toClient(headers, sessionId)
    if (!isReadable(headers, EVENT_STREAM)) {
      this.mode = { type: "body", flow }
      this.expectMore()
      return this.response.head(status, forClient, this)
    }
    // A client cannot reconnect to the answer to a body without requests.
    if (streams !== undefined && this.client !== "disconnected" && !this.pending.isEmpty) {
      const writer = streams.openAnswer(this.pending.ids, this)
      this.mode = new LoggedStream(flow, writer, this.pending)
      // `expire` checks regularly if a client reads, because the client may reconnect and disconnect again.
      if (this.client !== "cancelled") this.deadline.set(this.context.unreadTimeout)
      return writer.open(this.response, status, streaming(forClient))
    }
    this.mode = { type: "passing", flow, splitter: new FrameSplitter(), isResumable: false }
    this.response.head(status, streaming(forClient), this)
    if (this.client !== "disconnected") this.expectSilence()
  }

  data(chunk: Uint8Array, part?: StreamPart): void {
    const { mode } = this
    switch (mode.type) {
      case "body":
        this.expectMore()
        return this.response.data(chunk)
      case "passing": {
        // The client disconnected before the head of the stream, so no client can read the rest.
        if (part?.type === "break" && this.client === "disconnected") {
          this.abort()
          return this.finish("failed")
        }
        const frames = mode.splitter.push(chunk)
        if (frames === undefined || this.client === "disconnected") return
        // Without a session no stream can be resumed, even if its events have ids.
        mode.isResumable ||= this.context.sessionId !== undefined && hasEventId(frames)
        // A frame that is too large to be held is not parsed. It may be the response.
        if (mode.splitter.isAtFrameEnd) this.noteResponses(frames)
        else this.pending.noteUnreadable()
        this.response.data(frames)
        return this.expectSilence()
      }
      case "logged":
        mode.add(chunk, part)
        if (this.pending.isEmpty) this.uncount()
        return this.endIfUnread()
    }
  }

  end(): void {
    const { mode } = this
    if (mode.type === "done") return
    const isUnanswered =
      mode.type === "passing"
        ? !this.pending.isEmpty && !mode.isResumable
        : mode.type === "logged" && !this.pending.mayBeAnswered
    if (isUnanswered) {
      this.failPending(this.because("Closed"))
      this.finish("failed")
    } else this.finish(this.status < 400 ? "answered" : "rejected")
  }

  error(error: UpstreamError): void {
    if (this.mode.type === "done") return
    // The client resumes the stream at the upstream.
    if (this.mode.type === "passing" && this.mode.isResumable) this.finish("failed")
    else this.fail(error)
  }

  /** Pauses the upstream and clears the deadline, because the client delays the answer, not the upstream. */
  pause(): void {
    if (this.client !== "cancelled" && this.mode.type !== "logged") this.deadline.clear()
    this.flow?.pause()
  }

  unpause(): void {
    if (this.mode.type === "body") this.expectMore()
    this.flow?.unpause()
  }

  get isShared(): boolean {
    return this.flow?.isShared === true
  }

  /** Makes a shutdown wait for the response only while a client reads the stream. */
  readerChanged(hasReader: boolean): void {
    if (!hasReader) {
      this.uncount()
      this.endIfUnread()
    } else if (!this.pending.isEmpty && this.mode.type !== "done") this.count()
  }

  /**
   * Notes that the client has disconnected. A logged stream waits for the client to reconnect. A standalone stream is
   * aborted, and so is a stream that the client can resume at the upstream. Any other answer is read to its end,
   * because a disconnect is not a cancellation (2025-03-26 to 2025-11-25, Transports). Since 2026-07-28 a disconnect
   * cancels the request: an exchange without a session is aborted.
   */
  disconnect(): void {
    if (this.mode.type === "logged") this.mode.writer.disconnect(this.response)
    const { mode } = this
    if (mode.type === "done" || this.client === "disconnected") return
    const isResumable = mode.type === "passing" && mode.isResumable
    if (mode.type !== "logged" && (this.isStream || isResumable || this.context.sessionId === undefined)) {
      this.abort()
      return this.settle("disconnected")
    }
    this.response = disconnected(this.response)
    this.uncount()
    // The writer of a logged stream knows whether another client reads.
    if (mode.type !== "logged") this.unpause()
    if (this.client === "cancelled") return
    this.client = "disconnected"
    if (mode.type === "sent" || mode.type === "passing") this.deadline.set(this.context.unreadTimeout)
  }

  /** Notes that the client has cancelled a request. After the last one, the exchange ends within 5 s. */
  cancel(id: RequestId): void {
    if (!this.pending.cancel(id)) return
    this.client = "cancelled"
    this.uncount()
    this.deadline.set(CANCELLED_GRACE)
  }

  expire(): void {
    const { mode } = this
    const { unreadTimeout } = this.context
    if (this.client === "cancelled") this.endUnanswered()
    else if (mode.type === "passing" && this.client === "waiting") this.keepAlive(mode.splitter)
    else if (mode.type === "logged" && mode.writer.absence < unreadTimeout)
      this.deadline.set(unreadTimeout - mode.writer.absence)
    else this.cut(this.because("Stalled"))
  }

  /** Aborts the upstream's answer and responds with the error. */
  cut(error: ProxyError): void {
    if (this.mode.type === "done") return
    if (this.client === "cancelled") return this.endUnanswered()
    this.abort()
    if (this.method === "GET" && this.status > 0) this.finish("answered")
    else this.fail(error)
  }

  /** Ends the exchange in this process. The next process can continue a resumable stream. Any other fails. */
  suspend(error: ProxyError): void {
    const { mode } = this
    const canContinue =
      mode.type === "logged" && mode.writer.log.cursor !== undefined && mode.writer.isResumable
    if (this.client === "cancelled" || !canContinue) return this.cut(error)
    this.abort()
    this.settle("disconnected")
  }

  private send(request: Request): void {
    const abort = this.context.upstream.exchange(request, this)
    if (this.mode.type === "done") abort()
    else this.abort = abort
  }

  private get flow(): Flow | undefined {
    return "flow" in this.mode ? this.mode.flow : undefined
  }

  private count(): void {
    if (this.isStream || this.isCounted) return
    this.isCounted = true
    this.context.inFlight.begin()
  }

  private uncount(): void {
    if (!this.isCounted) return
    this.isCounted = false
    this.context.inFlight.end()
  }

  private noteResponses(frames: Buffer): void {
    if (this.pending.isEmpty) return
    this.pending.note(frames)
    if (this.pending.isEmpty) this.uncount()
  }

  /** Ends a complete stream that no client reads, even if the upstream leaves it open. */
  private endIfUnread(): void {
    const { mode } = this
    if (mode.type !== "logged" || mode.writer.hasReader || !mode.isComplete) return
    this.abort()
    this.end()
  }

  /** Sets the deadline for the next bytes of an answer that is not a stream. */
  private expectMore(): void {
    if (this.client !== "cancelled") this.deadline.set(BODY_STALL)
  }

  /** Sets the time of the next keep-alive comment, so that intermediaries do not close a silent stream. */
  private expectSilence(): void {
    if (this.client !== "cancelled") this.deadline.set(this.context.keepAlive)
  }

  private keepAlive({ isAtFrameEnd }: FrameSplitter): void {
    if (isAtFrameEnd) this.response.data(KEEP_ALIVE)
    this.expectSilence()
  }

  private because(reason: UpstreamError["reason"]): UpstreamError {
    return new UpstreamError({ reason, upstream: this.context.upstream.name })
  }

  private fail(cause: ProxyError): void {
    const { mode } = this
    const error = cause._tag === "UpstreamError" && this.isRequest ? cause.afterSending : cause
    if (mode.type === "logged" || (mode.type === "passing" && mode.splitter.isAtFrameEnd)) {
      this.failPending(error)
      return this.finish("failed")
    }
    this.response.error(error)
    this.settle("failed")
  }

  /** Sends an error for each request without a response on the stream. */
  private failPending(error: ProxyError): void {
    const { mode } = this
    for (const id of this.pending.ids) {
      const event = frame(toJsonRpc(error, id))
      if (mode.type === "logged") mode.writer.append(event, undefined)
      else if (mode.type === "passing" && mode.splitter.isAtFrameEnd && !this.pending.mayBeAnswered)
        this.response.data(event)
    }
  }

  private endUnanswered(): void {
    const { mode } = this
    this.abort()
    if (mode.type === "body") return this.fail(this.because("Stalled"))
    if (mode.type === "sent") this.response.head(200, streaming({ "content-type": EVENT_STREAM }), noFlow)
    this.finish("cancelled")
  }

  private finish(outcome: Outcome): void {
    const { mode } = this
    this.mode = done
    if (mode.type === "logged") mode.writer.end()
    else this.response.end()
    this.settle(outcome)
  }

  private settle(outcome: Outcome): void {
    this.mode = done
    this.context.telemetry.exchangeEnded(this.label, outcome, performance.now() - this.startedAt)
    this.deadline.clear()
    this.uncount()
    this.context.settled(this)
    this.response.settled()
  }
}
