/** One request of a client and its answer, on their way through the proxy. */
import type { ClientResponse } from "./ClientResponse.js"
import { PendingRequests } from "./Exchange/PendingRequests.js"
import type { HeldAnswer } from "./UpstreamSession/Initialize.js"
import { type Slotted, NO_SLOT } from "./internal/slotSet.js"
import type { Deadline, Deadlines, Expirable } from "./internal/deadlines.js"
import type { InFlight } from "./internal/inFlight.js"
import { type Headers, isReadable } from "./internal/headers.js"
import { streaming, toClient } from "./Upstream/headers.js"
import * as Sse from "./Protocol/SseFrames.js"
import { isInitialize, methodLabel, type RequestId, requestIds } from "./Protocol.js"
import type { TelemetryListener, Outcome } from "./Telemetry.js"
import { type ProxyError, toJsonRpc, UpstreamError } from "./ProxyError.js"
import { type Awaiting, StreamReader } from "./Streams/StreamReader.js"
import type { StreamWriter } from "./Streams/StreamWriter.js"
import { retainedEvents } from "./EventTracker/StreamLog.js"
import type { StreamLog } from "./EventTracker.js"
import type { Broken } from "./Streams/Resumption.js"
import type { Streams } from "./Streams.js"
import { type Abort, BODY_STALL, type Flow, type Request, type Sink, type Upstream } from "./Upstream.js"

/** Whoever an exchange is made for: a session, or the proxy itself for those without one. */
export interface Owner {
  readonly upstream: Upstream
  /** The session's id as the client knows it; `undefined` without a session. */
  readonly id: string | undefined
  readonly deadlines: Deadlines
  /** How long an answer that nobody waits for is read, in milliseconds. */
  readonly patience: number
  /** Counts the exchanges that a shutdown waits for. */
  readonly inFlight: InFlight
  readonly telemetry: TelemetryListener
  /** How long a stream may be silent before a comment is sent, in milliseconds. */
  readonly keepAlive: number
  /** Where streams are kept for clients that come back; `undefined` where they are passed on as they are. */
  readonly resumable: Streams | undefined
  /** Goes on with a stream that has broken at the upstream; tells whether it is complete then. */
  readonly resume: (broken: Broken, done: (isComplete: boolean) => void) => Abort
  /** The upstream has failed; called before the client is told. */
  readonly failed: (error: UpstreamError, exchange: Exchange) => void
  /** Looks what the upstream asks of the client. */
  readonly heard: (frames: Buffer) => void
  /** The exchange is over; called once, last. */
  readonly settled: (exchange: Exchange) => void
}

/** How long the upstream may still answer a request that the client has cancelled: most never do. */
const CANCELLED_GRACE = 5_000

export class Exchange implements Sink, Flow, Expirable, Slotted, Awaiting {
  slot = NO_SLOT
  /** The status that the upstream answered; 0 before that. */
  status = 0
  readonly method: Request["method"]
  /** Whether it is a stream that the client holds open, rather than a call that it waits for. */
  readonly isStream: boolean
  /** Whether it is an `initialize`, which is never cancelled (Lifecycle). */
  readonly isInitialize: boolean
  /** Whether the client is still there to take the answer. */
  private isAttended = true
  private isOver = false
  private isCancelled = false
  private readonly deadline: Deadline
  private abort: Abort | undefined
  private flow: Flow | undefined
  private splitter: Sse.FrameSplitter | undefined
  /** What reads a stream that the client can come back to, and what brings it to the client. */
  private intake: StreamReader | undefined
  private delivery: StreamWriter | undefined
  private isResumable = false
  /** Whether it has broken at the upstream, which is asked to go on. */
  private isBroken = false
  /** Whether its session at the upstream is lost. */
  private isOrphan = false
  private isPaused = false
  private mayBeAnswered = false
  private readonly startedAt = performance.now()
  private readonly label: string
  private readonly awaited: PendingRequests

  constructor(
    private readonly owner: Owner,
    request: Request,
    private readonly answer: ClientResponse
  ) {
    this.method = request.method
    this.isStream = request.method === "GET" || request.body?.messages[0].method === "subscriptions/listen"
    this.isInitialize = request.body !== undefined && isInitialize(request.body)
    this.label = methodLabel(request.body)
    this.awaited = new PendingRequests(
      request.body === undefined ? [] : requestIds(request.body),
      owner.inFlight
    )
    this.deadline = owner.deadlines.of(this)
  }

  /** Whether the client waits for the response to one of its requests, or for what a stream may bring. */
  get isRequest(): boolean {
    return !this.awaited.isEmpty || this.method === "GET"
  }

  /** The requests whose responses the client still waits for. */
  get requests(): ReadonlyArray<RequestId> {
    return this.awaited.ids
  }

  /**
   * Sends the client's request. Nothing that lives as long as the exchange may hold on to it: what was read of a
   * body can be many times as large as its bytes.
   */
  relay(request: Request): void {
    this.start((sink) => this.owner.upstream.exchange(request, sink))
  }

  start(send: (sink: Sink) => Abort): void {
    this.enter()
    const abort = send(this)
    // It may be over already, and given up where that was not possible yet; or broken, and going on elsewhere.
    if (this.isOver) abort()
    else this.abort ??= abort
  }

  /** Answers in the upstream's place. */
  refuse(error: ProxyError): void {
    this.answer.error(error)
    this.settle("refused")
  }

  /** Takes over an answer whose request has been sent already. */
  adopt(held: HeldAnswer): void {
    this.enter()
    this.abort = held.abort
    held.release(this)
  }

  head(status: number, headers: Headers, flow: Flow): void {
    this.status = status
    this.flow = flow
    if (!isReadable(headers, Sse.EVENT_STREAM)) this.expectMore()
    // What answers no request is no stream that a client could come back to.
    else if (this.owner.resumable !== undefined && this.isAttended && !this.awaited.isEmpty)
      return this.track(this.owner.resumable, headers)
    else this.splitter = new Sse.FrameSplitter()
    if (!this.isAttended) return
    const forClient = toClient(headers, this.owner.id)
    this.answer.head(status, this.splitter === undefined ? forClient : streaming(forClient), this)
    if (this.splitter !== undefined) this.expectSilence()
  }

  data(chunk: Uint8Array): void {
    if (this.isOver) return
    if (this.intake !== undefined) {
      this.intake.data(chunk)
      return this.rest()
    }
    if (this.splitter === undefined) {
      this.expectMore()
      if (this.isAttended) this.answer.data(chunk)
      return
    }
    const frames = this.splitter.push(chunk)
    if (frames === undefined || !this.isAttended) return
    // Without a session there is nothing to resume, whatever ids the events have.
    this.isResumable ||= this.owner.id !== undefined && Sse.hasEventId(frames)
    // A frame that is too large to be held is not read; it may well be the response.
    if (!this.splitter.isAtBorder) this.mayBeAnswered ||= !this.awaited.isEmpty
    else this.note(frames)
    this.answer.data(frames)
    this.expectSilence()
  }

  /** Looks whether the frames answer one of the requests, and what they ask. */
  note(frames: Buffer): void {
    this.owner.heard(frames)
    this.awaited.note(frames)
  }

  /** The stream goes on, on another connection. */
  follow(flow: Flow): void {
    this.isBroken = false
    this.flow = flow
    if (this.isPaused) flow.pause()
  }

  /** A shutdown waits for the response as long as there is somebody to be told. */
  attended(isAttended: boolean): void {
    if (!isAttended) {
      this.awaited.leave()
      this.rest()
    } else if (!this.awaited.isEmpty && !this.isOver) this.enter()
  }

  get isShared(): boolean {
    return this.flow?.isShared === true
  }

  /** A client that does not read yet is no fault of the upstream's. */
  pause(): void {
    this.isPaused = true
    if (!this.isCancelled && this.intake === undefined) this.deadline.clear()
    this.flow?.pause()
  }

  unpause(): void {
    this.isPaused = false
    if (this.flow === undefined || this.isOver) return
    if (this.splitter === undefined && this.intake === undefined) this.expectMore()
    this.flow.unpause()
  }

  end(): void {
    if (this.isOver) return
    if (this.intake !== undefined) return this.broken(this.intake, undefined)
    if (this.splitter !== undefined && !this.awaited.isEmpty && !this.isResumable) {
      this.tellPending(this.because("Closed"))
      return this.finish("failed")
    }
    this.finish(this.status < 400 ? "answered" : "rejected")
  }

  error(error: UpstreamError): void {
    if (this.isOver) return
    this.owner.failed(error, this)
    if (this.intake !== undefined) this.broken(this.intake, error)
    else if (this.isResumable) this.finish("failed")
    else this.fail(error)
  }

  /**
   * The client's connection is closed. A stream that is kept waits for the client to come back. Of the others a
   * standalone one is given up, and so is an answer that the client can resume at the upstream; any other is read to
   * its end, for a dropped connection is not a cancel (2025-03-26 to 2025-11-25, Transports). From 2026-07-28 on it is:
   * without a session there is nothing to come back to.
   */
  leave(): void {
    this.delivery?.leave(this.answer)
    if (this.isOver || !this.isAttended) return
    if (this.intake === undefined && (this.isStream || this.isResumable || this.owner.id === undefined)) {
      this.abort?.()
      return this.settle("left")
    }
    this.isAttended = false
    this.awaited.leave()
    // What is kept is let go on by its delivery, which knows whether somebody else reads it by now.
    if (this.intake === undefined) this.unpause()
    const hasDeadline = this.flow !== undefined && this.splitter === undefined
    if (!this.isCancelled && !hasDeadline) this.deadline.set(this.owner.patience)
  }

  /** The client has cancelled a request. Once none is left to wait for, the exchange ends unanswered. */
  cancel(id: RequestId): void {
    if (!this.awaited.cancel(id)) return
    this.isCancelled = true
    this.awaited.leave()
    this.deadline.set(CANCELLED_GRACE)
  }

  expire(): void {
    if (this.isCancelled) this.endUnanswered()
    else if (this.splitter !== undefined && this.isAttended) this.keepAlive(this.splitter)
    else if (this.delivery !== undefined && this.delivery.absence < this.owner.patience)
      this.deadline.set(this.owner.patience - this.delivery.absence)
    else this.cut(this.because("Stalled"))
  }

  /** Gives up the upstream's answer and tells the client why. */
  cut(error: ProxyError): void {
    if (this.isOver) return
    if (this.isCancelled) return this.endUnanswered()
    this.abort?.()
    if (this.method === "GET" && this.status > 0) this.finish("answered")
    else this.fail(error)
  }

  /** Its session at the upstream is lost: what has broken there does not go on. */
  orphan(): void {
    this.isOrphan = true
    if (this.isOver || !this.isBroken) return
    this.abort?.()
    this.fail(this.because("Replaced"))
  }

  /** This process ends, and the session does not: another goes on with what it can. */
  suspend(error: ProxyError): void {
    const canGoOn = this.intake?.isResumable === true && this.delivery?.isKnown === true
    if (this.isCancelled || !canGoOn) return this.cut(error)
    this.abort?.()
    this.settle("left")
  }

  /** Goes on with an answer that an earlier process has begun. */
  goOn(streams: Streams, log: StreamLog): void {
    const delivery = streams.goOn(log, this)
    this.delivery = delivery
    this.isAttended = false
    this.status = 200
    this.intake = new StreamReader(this, true, () => delivery, streams.log, this.owner.telemetry)
    this.intake.lastEventId = log.cursor
    for (const { frame } of retainedEvents(log)) this.note(frame)
    this.deadline.set(this.owner.patience)
    this.broken(this.intake, undefined)
  }

  /** What an upstream may still say behind its last response is said to nobody where nobody reads it. */
  private rest(): void {
    if (this.isOver || this.delivery?.isAttended !== false || this.intake?.isComplete !== true) return
    this.abort?.()
    this.finish("answered")
  }

  /** An answer that is no stream must go on arriving. */
  private expectMore(): void {
    if (!this.isCancelled) this.deadline.set(BODY_STALL)
  }

  /** From now on what the upstream says goes into the log. */
  private track(streams: Streams, headers: Headers): void {
    const delivery = streams.answering(this.requests, this)
    this.delivery = delivery
    this.intake = new StreamReader(this, true, () => delivery, streams.log, this.owner.telemetry)
    // Whether the client is there is looked at again and again: it may come back, and leave again, unknown to this.
    if (!this.isCancelled) this.deadline.set(this.owner.patience)
    delivery.begin(this.answer, this.status, streaming(toClient(headers, this.owner.id)))
  }

  /** The upstream's part of a kept stream has ended: it goes on where it can, if anything is still awaited. */
  private broken(intake: StreamReader, error: UpstreamError | undefined): void {
    if (intake.isComplete) return this.finish("answered")
    if (this.isOrphan) return this.fail(this.because("Replaced"))
    if (!intake.isResumable) return this.fail(error ?? this.because("Closed"))
    this.isBroken = true
    this.abort = this.owner.resume(intake, (isComplete) => {
      if (this.isOver) return
      if (isComplete) this.finish("answered")
      else this.fail(error ?? this.because("Closed"))
    })
  }

  private because(reason: UpstreamError["reason"]): UpstreamError {
    return new UpstreamError({ reason, upstream: this.owner.upstream.name })
  }

  /** A stream may be silent, but what stands between here and the client has to see that it is there. */
  private expectSilence(): void {
    if (!this.isCancelled) this.deadline.set(this.owner.keepAlive)
  }

  private keepAlive({ isAtBorder }: Sse.FrameSplitter): void {
    if (isAtBorder) this.answer.data(Sse.KEEP_ALIVE)
    this.expectSilence()
  }

  private enter(): void {
    if (!this.isStream) this.awaited.enter()
  }

  private fail(cause: ProxyError): void {
    const error = cause._tag === "UpstreamError" && this.isRequest ? cause.afterSending : cause
    if (this.intake !== undefined || (this.splitter !== undefined && this.splitter.isAtBorder)) {
      this.tellPending(error)
      return this.finish("failed")
    }
    if (this.isAttended) this.answer.error(error)
    this.settle("failed")
  }

  /** Ends the waiting for each request that the stream has not answered. */
  private tellPending(error: ProxyError): void {
    const isBetween = this.isAttended && !this.mayBeAnswered && this.splitter?.isAtBorder === true
    if (this.intake === undefined && !isBetween) return
    for (const id of this.requests) {
      const told = Sse.frame(toJsonRpc(error, id))
      if (this.delivery === undefined) this.answer.data(told)
      else this.delivery.append(told, undefined)
    }
  }

  private finish(outcome: Outcome): void {
    this.isOver = true
    if (this.delivery === undefined && this.isAttended) this.answer.end()
    else this.delivery?.end()
    this.settle(outcome)
  }

  private settle(outcome: Outcome): void {
    this.isOver = true
    this.owner.telemetry.exchanged(this.label, outcome, performance.now() - this.startedAt)
    this.deadline.clear()
    this.intake?.close()
    this.awaited.leave()
    this.owner.settled(this)
    this.answer.settled()
  }

  private endUnanswered(): void {
    this.abort?.()
    if (this.status === 0 && this.isAttended) {
      this.answer.head(200, streaming({ "content-type": Sse.EVENT_STREAM }), this)
    } else if (this.splitter === undefined && this.intake === undefined) {
      return this.fail(this.because("Stalled"))
    }
    this.finish("cancelled")
  }
}
