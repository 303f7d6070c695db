/**
 * Reads the answer to one request. It passes each event of a stream to the next sink whole and once: it drops repeated
 * events, and resumes a stream that breaks at the upstream.
 */
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import type * as Fiber from "effect/Fiber"
import type { SessionLog } from "../EventTracker/SessionLog.js"
import { EMPTY } from "../internal/bytes.js"
import { type Headers, isReadable } from "../internal/headers.js"
import { NO_SLOT, type SlotSetItem } from "../internal/slotSet.js"
import { Window } from "../internal/window.js"
import { type EventHandler, readEvents } from "../Protocol/SseEvents.js"
import { EVENT_STREAM, FrameSplitter, messages } from "../Protocol/SseFrames.js"
import { isInitialize, type RequestId, requestIds } from "../Protocol.js"
import { UpstreamError } from "../ProxyError.js"
import type { TelemetryListener } from "../Telemetry.js"
import {
  type Abort,
  type Flow,
  nothingToAbort,
  type Request,
  type Sink,
  type StreamPart
} from "../Upstream.js"
import { SinkDecorator } from "../Upstream/SinkDecorator.js"
import type { UpstreamSession } from "../UpstreamSession.js"
import { PendingRequests } from "./PendingRequests.js"
import { type BrokenStream, resumeStream } from "./Resumption.js"

/** The dependencies that the readers of one session share. */
export interface StreamReaderDeps {
  readonly upstream: Pick<
    UpstreamSession,
    "name" | "exchange" | "resume" | "streamRequest" | "recovers" | "serverRequests"
  >
  /** The log of the session's streams; `undefined` if streams are not tracked but forwarded unchanged. */
  readonly log: SessionLog | undefined
  readonly telemetry: TelemetryListener
  /** Logs an upstream failure. */
  readonly report: (error: UpstreamError) => void
  /** Sends the upstream a cancellation of these requests. */
  readonly cancel: (ids: ReadonlyArray<RequestId>) => void
  /** Runs an effect in a background fiber. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
}

/** The maximum size of an event that is held until it is complete, in bytes. A larger event passes in pieces. */
const MAX_EVENT = 16 * 1024 * 1024

/** The maximum length of an event id of the upstream, in characters. A longer one may not fit into a header. */
const MAX_ID = 1_024

type State =
  /** The answer has no head yet. */
  | { readonly type: "sent" }
  /** The answer is forwarded unchanged. `observed` splits an event stream to find the server's requests in it. */
  | { readonly type: "passing"; readonly observed: FrameSplitter | undefined }
  /** An event stream is read from its first connection or from a later one. */
  | { readonly type: "reading"; readonly splitter: FrameSplitter; readonly flow: Flow }
  /** The stream has broken, and no attempt to resume it has succeeded yet. */
  | { readonly type: "resuming"; readonly isMidEvent: boolean }
  | { readonly type: "done" }

const sent: State = { type: "sent" }
const done: State = { type: "done" }

/** The kind of the answer that a reader reads. */
type Kind = "answer" | "initialize" | "standalone stream"

export class StreamReader extends SinkDecorator implements Flow, EventHandler, BrokenStream, SlotSetItem {
  slot = NO_SLOT
  lastEventId: string | undefined
  retryAfter: number | undefined
  progress = 0
  private state: State = sent
  private abortExchange: Abort = nothingToAbort
  private readonly kind: Kind
  private readonly pending: PendingRequests
  /** The upstream's ids of the events of this stream. */
  private ownIds: Window | undefined
  private isPaused = false
  private isResumed = false
  /** True if another upstream session has replaced the session of the stream. The stream cannot be resumed then. */
  private isSessionLost = false

  constructor(
    private readonly deps: StreamReaderDeps,
    { body, continues }: Request,
    next: Sink,
    /** Called once, when the answer is over. */
    private readonly settled: (reader: StreamReader) => void
  ) {
    super(next)
    this.pending = new PendingRequests(body === undefined ? (continues?.requests ?? []) : requestIds(body))
    this.kind = kindOf(body, this.pending)
    this.lastEventId = continues?.lastEventId
  }

  /** Sends the request, or continues the stream in `continues`. */
  start(request: Request): Abort {
    const { continues } = request
    if (continues?.mode === "until resumed") {
      this.state = { type: "resuming", isMidEvent: false }
      this.next.head(200, { "content-type": EVENT_STREAM }, this)
      this.resume(undefined)
    } else {
      // A server may repeat events of a stream that it continues.
      this.isResumed = continues !== undefined
      const sent = continues === undefined ? request : this.deps.upstream.streamRequest(continues.lastEventId)
      const abort = this.deps.upstream.exchange(sent, this)
      // The answer may be over already, or be resumed on another connection.
      if (this.state.type === "done") abort()
      else if (this.state.type !== "resuming") this.abortExchange = abort
    }
    return () => this.abort()
  }

  /** Stops waiting for the response to a cancelled request. */
  cancel(id: RequestId): void {
    this.pending.cancel(id)
  }

  /** Notes that another upstream session has replaced the current one. Requests without an answer are sent there. */
  sessionLost(): void {
    if (this.state.type === "sent") this.lastEventId = undefined
    if (this.state.type === "sent" || this.kind === "standalone stream") return
    this.isSessionLost = true
    if (this.state.type !== "resuming") return
    this.abortExchange()
    this.fail(this.because("SessionLost"))
  }

  abort(): void {
    if (this.state.type === "done") return
    this.abortExchange()
    this.settle()
  }

  override head(status: number, headers: Headers, flow: Flow): void {
    if (this.state.type !== "sent") return
    const { log, upstream } = this.deps
    const isStream = isReadable(headers, EVENT_STREAM)
    if (isStream && log !== undefined && this.isTracked(status)) {
      this.state = { type: "reading", flow, splitter: new FrameSplitter(MAX_EVENT, log) }
      return this.next.head(status, headers, this)
    }
    const observed = isStream && upstream.recovers ? new FrameSplitter() : undefined
    this.state = { type: "passing", observed }
    this.next.head(status, headers, flow)
  }

  override data(chunk: Uint8Array): void {
    const { state } = this
    if (state.type === "passing") {
      const frames = state.observed?.push(chunk)
      if (frames !== undefined) this.deps.upstream.serverRequests.note(frames)
      this.next.data(chunk)
    } else if (state.type === "reading") {
      this.read(state.splitter, chunk)
      if (this.state.type === "reading" && this.isComplete) this.next.data(EMPTY, complete)
    }
  }

  override end(): void {
    if (this.state.type === "reading") this.broken(undefined)
    else if (this.state.type !== "done") this.finish()
  }

  override error(error: UpstreamError): void {
    if (this.state.type === "done") return
    // `SessionFibers` logs the failure of an `initialize`.
    if (this.kind !== "initialize" || this.state.type !== "sent") this.deps.report(error)
    if (this.state.type === "reading") return this.broken(error)
    if (error.reason === "ResponseTimeout" && this.kind === "answer") this.deps.cancel(this.pending.ids)
    this.fail(error)
  }

  pause(): void {
    this.isPaused = true
    if (this.state.type === "reading") this.state.flow.pause()
  }

  unpause(): void {
    this.isPaused = false
    if (this.state.type === "reading") this.state.flow.unpause()
  }

  get isShared(): boolean {
    return this.state.type === "reading" && this.state.flow.isShared === true
  }

  get isComplete(): boolean {
    return this.kind !== "standalone stream" && this.pending.mayBeAnswered && !this.isMidEvent
  }

  restart(flow: Flow): void {
    const { log } = this.deps
    if (this.state.type === "reading") {
      this.stopReading()
      this.next.data(EMPTY, broken)
    }
    if (this.isOver || log === undefined) return
    this.state = { type: "reading", flow, splitter: new FrameSplitter(MAX_EVENT, log) }
    this.isResumed = true
    if (this.isPaused) flow.pause()
  }

  get isResumable(): boolean {
    return !this.isSessionLost
  }

  requestRest(sink: Sink): Abort {
    return this.deps.upstream.resume(this.lastEventId, sink)
  }

  event(frame: Buffer, given: string | undefined): void {
    // The sink may have aborted while it received an earlier event of the same chunk.
    if (this.state.type !== "reading") return
    const id = given === undefined ? undefined : remembered(given)
    // An event of another stream would look new, and its id is not a position in this stream.
    if (this.isResumed && !this.belongs(frame)) return
    if (id !== undefined && !this.isNew(id)) return
    this.progress++
    const { upstream } = this.deps
    if (upstream.recovers) upstream.serverRequests.note(frame)
    this.pending.note(frame)
    this.next.data(frame, id === undefined || id === "" ? withoutId : { type: "event", id })
    if (id === "") this.next.data(EMPTY, reset)
  }

  idOnly(given: string): void {
    if (this.state.type !== "reading") return
    const id = remembered(given)
    if (!this.isNew(id)) return
    this.progress++
    this.next.data(EMPTY, { type: "cursor", id: this.lastEventId })
  }

  retry(millis: number): void {
    this.retryAfter = millis
  }

  /** True if the reader reads the events of an answer. The exchange tracks the answer to `initialize`. */
  private isTracked(status: number): boolean {
    if (this.kind === "standalone stream") return status < 300
    return this.kind === "answer" && !this.pending.isEmpty
  }

  private get isOver(): boolean {
    return this.state.type === "done"
  }

  /** True while an event passes in pieces, or if the stream broke inside one. */
  private get isMidEvent(): boolean {
    const { state } = this
    if (state.type === "resuming") return state.isMidEvent
    return state.type === "reading" && !state.splitter.isAtFrameEnd
  }

  private read(splitter: FrameSplitter, chunk: Uint8Array): void {
    const end = splitter.isAtFrameEnd ? 0 : splitter.firstFrameEnd(chunk)
    if (end === 0 || end === chunk.length) return this.readPart(splitter, chunk)
    // The event ends within the chunk, so the rest of the chunk is not a piece of the event.
    this.readPart(splitter, chunk.subarray(0, end))
    if (this.state.type === "reading") this.readPart(splitter, chunk.subarray(end))
  }

  private readPart(splitter: FrameSplitter, chunk: Uint8Array): void {
    const isFirst = splitter.isAtFrameEnd
    const frames = splitter.push(chunk)
    if (frames === undefined) return
    const isLast = splitter.isAtFrameEnd
    if (isFirst && isLast) return readEvents(frames, this)
    if (isLast) this.pending.noteUnreadable()
    this.next.data(frames, { type: "piece", isFirst, isLast })
  }

  /** Handles the end of the connection of a stream. */
  private broken(error: UpstreamError | undefined): void {
    if (this.isComplete) return this.finish()
    if (this.isSessionLost) return this.fail(this.because("SessionLost"))
    if (this.kind !== "standalone stream" && this.lastEventId === undefined)
      return this.fail(error ?? this.because("Closed"))
    const { isMidEvent } = this
    this.stopReading()
    this.state = { type: "resuming", isMidEvent }
    this.next.data(EMPTY, broken)
    // The sink may have aborted.
    if (this.state.type === "resuming") this.resume(error)
  }

  private resume(cause: UpstreamError | undefined): void {
    const { fork, telemetry } = this.deps
    const fiber = fork(
      Effect.map(resumeStream(this, telemetry), (isComplete) => {
        if (this.state.type === "done") return
        // A standalone stream that cannot be resumed ends, and its client opens another one.
        if (isComplete || this.kind === "standalone stream") this.finish()
        else if (this.isSessionLost) this.fail(this.because("SessionLost"))
        else this.fail(cause ?? this.because("Closed"))
      })
    )
    this.abortExchange = () => fiber.unsafeInterruptAsFork(FiberId.none)
  }

  /** Notes an event id of the upstream. Returns false for a repeated event. */
  private isNew(id: string): boolean {
    // An empty id resets the last event id (WHATWG HTML, "The Last-Event-ID header").
    this.lastEventId = id === "" ? undefined : id
    if (id === "" || !this.isDuplicate(id)) return true
    this.deps.telemetry.duplicateDropped()
    return false
  }

  /** True for a repeated event. Until the stream is resumed, a known id shows that the server numbers per stream. */
  private isDuplicate(id: string): boolean {
    const { log } = this.deps
    if (log === undefined) return false
    const isKnown = !log.addUpstreamId(id)
    if (!this.isResumed) log.hasPerStreamIds ||= isKnown
    const isOwn = !(this.ownIds ??= new Window()).add(id)
    return this.isResumed && (log.hasPerStreamIds ? isOwn : isKnown)
  }

  /** False for a response of another stream, and for a frame without a message. Some servers replay both. */
  private belongs(frame: Buffer): boolean {
    const found = messages(frame)
    return (
      found.length > 0 &&
      found.every(({ id, method }) => method !== undefined || this.pending.ids.some((own) => own === id))
    )
  }

  /** Releases the memory of an incomplete event. */
  private stopReading(): void {
    if (this.state.type === "reading") this.state.splitter.close()
  }

  private finish(): void {
    this.settle()
    this.next.end()
  }

  private fail(error: UpstreamError): void {
    this.settle()
    this.next.error(error)
  }

  private settle(): void {
    this.stopReading()
    this.state = done
    this.settled(this)
  }

  private because(reason: UpstreamError["reason"]): UpstreamError {
    return new UpstreamError({ reason, upstream: this.deps.upstream.name })
  }
}

const kindOf = (body: Request["body"], pending: PendingRequests): Kind => {
  if (body === undefined) return pending.isEmpty ? "standalone stream" : "answer"
  return isInitialize(body) ? "initialize" : "answer"
}

const withoutId: StreamPart = { type: "event", id: undefined }
const reset: StreamPart = { type: "cursor", id: undefined }
const broken: StreamPart = { type: "break" }
const complete: StreamPart = { type: "complete" }

/** Returns an empty id for one that is too long. Both reset the last event id. */
const remembered = (id: string): string => (id.length > MAX_ID ? "" : id)
