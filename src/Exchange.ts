/** One request of a client and its answer, on their way through the proxy. */
import type { HeldAnswer } from "./Initialize.js"
import { type Bagged, OUTSIDE } from "./internal/bag.js"
import type { Deadline, Deadlines, Expirable } from "./internal/deadlines.js"
import type { Flight } from "./internal/flight.js"
import { first, type Headers, hasType, type MutableHeaders, streaming, toClient } from "./internal/headers.js"
import * as Sse from "./internal/sse.js"
import { isInitialize, methodLabel, type RequestId, requestIds } from "./Protocol.js"
import type { Listener, Outcome } from "./Telemetry.js"
import { type ProxyError, toJsonRpc, UpstreamError } from "./ProxyError.js"
import { type Abort, BODY_STALL, type Flow, type Request, type Sink, type Upstream } from "./Upstream.js"

/** What an answer is written to. Besides what an upstream may say, it can be told any error of the proxy. */
export interface Answer extends Omit<Sink, "head" | "error"> {
  readonly head: (status: number, headers: MutableHeaders, flow: Flow) => void
  /** Ends the answer. Before the head it becomes a JSON-RPC error; after it, the answer is cut off. */
  readonly error: (error: ProxyError) => void
  /** The last call, also when the client has gone: nothing of its request is held any more. */
  readonly settled: () => void
}

/** An answer that nobody waits for. */
export const discard: Answer = {
  head: () => {},
  data: () => {},
  end: () => {},
  error: () => {},
  settled: () => {}
}

/** Tells an exchange that its client has gone: its connection is closed. */
export type Leave = () => void

/** Whoever an exchange is made for: a session, or the proxy itself for those without one. */
export interface Owner {
  readonly upstream: Upstream
  /** The session's id as the client knows it; `undefined` without a session. */
  readonly id: string | undefined
  readonly deadlines: Deadlines
  /** How long an answer that nobody waits for is read, in milliseconds. */
  readonly patience: number
  /** Counts the exchanges that a shutdown waits for. */
  readonly flight: Flight
  readonly telemetry: Listener
  /** The upstream has failed; called before the client is told. */
  readonly failed: (exchange: Exchange, error: UpstreamError) => void
  /** The exchange is over; called once, last. */
  readonly settled: (exchange: Exchange) => void
}

/** How long the upstream may still answer a request that the client has cancelled: most never do. */
const CANCELLED_GRACE = 5_000

export class Exchange implements Sink, Flow, Expirable, Bagged {
  slot = OUTSIDE
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
  private isAwaited = false
  private readonly deadline: Deadline
  private abort: Abort | undefined
  private flow: Flow | undefined
  private splitter: Sse.FrameSplitter | undefined
  private isResumable = false
  private mayBeAnswered = false
  private readonly startedAt = performance.now()
  /** What it is counted under. */
  private readonly label: string
  /** The requests that the client waits for: those of the body that are neither answered nor cancelled. */
  private pending: ReadonlyArray<RequestId>

  constructor(
    private readonly owner: Owner,
    request: Request,
    private readonly answer: Answer
  ) {
    this.method = request.method
    this.isStream = request.method === "GET" || request.body?.messages[0].method === "subscriptions/listen"
    this.isInitialize = request.body !== undefined && isInitialize(request.body)
    this.label = methodLabel(request.body)
    this.pending = request.body === undefined ? [] : requestIds(request.body)
    this.deadline = owner.deadlines.of(this)
  }

  /** Whether the client waits for the response to one of its requests, or for what a stream may bring. */
  get isRequest(): boolean {
    return this.pending.length > 0 || this.method === "GET"
  }

  /** The requests whose responses the client still waits for. */
  get requests(): ReadonlyArray<RequestId> {
    return this.pending
  }

  /**
   * Sends the client's request. Nothing that lives as long as the exchange may hold on to it: what was read of a
   * body can be many times as large as its bytes.
   */
  relay(request: Request): void {
    this.start((sink) => this.owner.upstream.exchange(request, sink))
  }

  /** Sends whatever is to be sent. */
  start(send: (sink: Sink) => Abort): void {
    this.enter()
    const abort = send(this)
    if (!this.isOver) this.abort = abort
  }

  /** Answers without asking the upstream. */
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
    if (isEventStream(headers)) this.splitter = new Sse.FrameSplitter()
    else this.expectMore()
    if (!this.isAttended) return
    const forClient = toClient(headers, this.owner.id)
    this.answer.head(status, this.splitter === undefined ? forClient : streaming(forClient), this)
  }

  data(chunk: Uint8Array): void {
    if (this.splitter === undefined) {
      this.expectMore()
      if (this.isAttended) this.answer.data(chunk)
      return
    }
    const frames = this.splitter.push(chunk)
    if (frames === undefined || !this.isAttended) return
    // Without a session there is nothing to resume, whatever ids the events have.
    this.isResumable ||= this.owner.id !== undefined && Sse.hasEventId(frames)
    this.noteResponses(frames, this.splitter)
    this.answer.data(frames)
  }

  /** A client that does not read yet is no fault of the upstream's. */
  pause(): void {
    if (!this.isCancelled) this.deadline.clear()
    this.flow?.pause()
  }

  resume(): void {
    if (this.flow === undefined || this.isOver) return
    if (this.splitter === undefined) this.expectMore()
    this.flow.resume()
  }

  end(): void {
    if (this.splitter !== undefined && this.pending.length > 0 && !this.isResumable) {
      this.tellPending(new UpstreamError({ reason: "Closed", upstream: this.owner.upstream.name }))
      return this.finish("failed")
    }
    this.finish(this.status < 400 ? "answered" : "rejected")
  }

  error(error: UpstreamError): void {
    this.owner.failed(this, error)
    if (this.isResumable) this.finish("failed")
    else this.fail(error)
  }

  /**
   * The client's connection is closed. A stream is given up, and so is an answer that the client can resume at
   * the upstream; any other is read to its end, for a dropped connection is not a cancel (2025-03-26 to
   * 2025-11-25, Transports). From 2026-07-28 on it is: without a session there is nothing to come back to.
   */
  leave(): void {
    if (this.isOver || !this.isAttended) return
    if (this.isStream || this.isResumable || this.owner.id === undefined) {
      this.abort?.()
      return this.settle("left")
    }
    this.isAttended = false
    this.stopWaiting()
    this.resume()
    const hasDeadline = this.flow !== undefined && this.splitter === undefined
    if (!this.isCancelled && !hasDeadline) this.deadline.set(this.owner.patience)
  }

  /** The client has cancelled a request. Once none is left to wait for, the exchange ends unanswered. */
  cancel(id: RequestId): void {
    if (!this.pending.includes(id)) return
    this.pending = this.pending.filter((pending) => pending !== id)
    if (this.pending.length > 0) return
    this.isCancelled = true
    this.stopWaiting()
    this.deadline.set(CANCELLED_GRACE)
  }

  expire(): void {
    if (this.isCancelled) this.endUnanswered()
    else this.cut(new UpstreamError({ reason: "Stalled", upstream: this.owner.upstream.name }))
  }

  /** Gives up the upstream's answer and tells the client why. */
  cut(error: ProxyError): void {
    if (this.isOver) return
    if (this.isCancelled) return this.endUnanswered()
    this.abort?.()
    if (this.method === "GET" && this.status > 0) this.finish("answered")
    else this.fail(error)
  }

  /** An answer that is no stream must go on arriving. */
  private expectMore(): void {
    if (!this.isCancelled) this.deadline.set(BODY_STALL)
  }

  private noteResponses(frames: Buffer, { isAtBorder }: Sse.FrameSplitter): void {
    if (this.pending.length === 0) return
    // A frame that is too large to be held is not read; it may well be the response.
    if (!isAtBorder) this.mayBeAnswered = true
    else if (Sse.mayRespond(frames)) {
      this.pending = unanswered(this.pending, frames)
      if (this.pending.length === 0) this.stopWaiting()
    }
  }

  private enter(): void {
    if (this.isStream) return
    this.owner.flight.enter()
    this.isAwaited = true
  }

  /** A shutdown need not wait for this: the client has its response, wants none, or has gone. */
  private stopWaiting(): void {
    if (!this.isAwaited) return
    this.isAwaited = false
    this.owner.flight.leave()
  }

  private fail(error: ProxyError): void {
    if (this.splitter !== undefined && this.splitter.isAtBorder) {
      this.tellPending(error)
      return this.finish("failed")
    }
    if (this.isAttended) this.answer.error(error)
    this.settle("failed")
  }

  /** Ends the waiting for each request that the stream has not answered. */
  private tellPending(error: ProxyError): void {
    if (!this.isAttended || this.mayBeAnswered || this.splitter?.isAtBorder !== true) return
    for (const id of this.pending) this.answer.data(Sse.frame(toJsonRpc(error, id)))
  }

  private finish(outcome: Outcome): void {
    if (this.isAttended) this.answer.end()
    this.settle(outcome)
  }

  private settle(outcome: Outcome): void {
    this.isOver = true
    this.owner.telemetry.exchanged(this.label, outcome, performance.now() - this.startedAt)
    this.deadline.clear()
    this.stopWaiting()
    this.owner.settled(this)
    this.answer.settled()
  }

  private endUnanswered(): void {
    this.abort?.()
    if (this.status === 0 && this.isAttended) {
      this.answer.head(200, streaming({ "content-type": Sse.EVENT_STREAM }), this)
    } else if (this.splitter === undefined) {
      return this.fail(new UpstreamError({ reason: "Stalled", upstream: this.owner.upstream.name }))
    }
    this.finish("cancelled")
  }
}

const unanswered = (ids: ReadonlyArray<RequestId>, frames: Buffer): ReadonlyArray<RequestId> => {
  const [first] = ids
  if (first !== undefined && ids.length === 1 && Sse.visiblyAnswer(frames, first)) return []
  const responses = Sse.messages(frames).filter(({ method }) => method === undefined)
  return ids.filter((id) => !responses.some((response) => response.id === id))
}

const isEventStream = (headers: Headers): boolean =>
  hasType(headers, Sse.EVENT_STREAM) && (first(headers, "content-encoding") ?? "identity") === "identity"
