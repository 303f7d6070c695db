/** A request that is sent again as long as the upstream cannot have executed it, also to another upstream session. */
import * as Either from "effect/Either"
import type { Deadline, Deadlines, Expirable } from "../internal/deadlines.js"
import type { Headers } from "../internal/headers.js"
import { LAST_EVENT_ID, type Message, parseBody, type RequestId, requestIds } from "../Protocol.js"
import { UpstreamError } from "../ProxyError.js"
import {
  type Abort,
  BODY_STALL,
  type Flow,
  type Lease,
  type Request,
  respond,
  type Sink,
  withMessages
} from "../Upstream.js"
import { SinkDecorator } from "../Upstream/SinkDecorator.js"
import { denialOf, mayDenySession } from "./probe.js"

/** The upstream session that sends a request. */
export interface RetryContext {
  readonly name: string
  readonly deadlines: Deadlines
  /** True if a lost session is replaced. If false, no answer is held and no request is sent again. */
  readonly recovers: boolean
  /** Called with the result of an attempt. A request that was denied or not sent waits, is sent again or fails. */
  readonly attempted: (request: RetryableRequest, lease: Lease, result: AttemptResult) => void
}

/** `answered`: a POST succeeded. `denied`: the upstream may not know the session. `unreachable`: nothing was sent. */
export type AttemptResult = "answered" | "denied" | "unreachable"

/** The maximum size of a held 400 or 404, in bytes. */
const MAX_DENIAL = 64 * 1024

/** A 400 or 404, held until it is known whether it denies the session. */
interface HeldDenial {
  readonly status: number
  readonly headers: Headers
  readonly flow: Flow
  readonly chunks: Array<Uint8Array>
  readonly deadline: Deadline
  length: number
}

type State =
  /** Not sent yet, or waiting for an upstream session. */
  | { readonly type: "waiting" }
  | { readonly type: "sent"; readonly lease: Lease; readonly isInSession: boolean }
  | { readonly type: "held"; readonly lease: Lease; readonly answer: HeldDenial }
  /** The answer is passed on. `isDenied` is true for a 404 that denies the session. */
  | { readonly type: "answered"; readonly lease: Lease; readonly isDenied: boolean }
  /** Aborted, or answered by the proxy. */
  | { readonly type: "done" }

const waiting: State = { type: "waiting" }
const done: State = { type: "done" }

export class RetryableRequest extends SinkDecorator implements Expirable {
  private state = waiting
  private abortSent: Abort | undefined
  /** The unparsed body, because a parsed one can be many times as large. Dropped when the request is answered. */
  private bytes: Uint8Array | undefined
  private headers: Headers
  private readonly method: Request["method"]

  constructor(
    private readonly session: RetryContext,
    { bytes, headers, method }: Request,
    next: Sink,
    /** The lease in whose session `Last-Event-ID` is valid. */
    private readonly origin: Lease | undefined,
    /** True if the request is valid only in its original upstream session. */
    readonly isBound = false
  ) {
    super(next)
    this.bytes = bytes
    this.headers = headers
    this.method = method
  }

  /** Sends the request to the upstream session of a lease. Parses it again if the caller has only the bytes. */
  send(lease: Lease, request = this.parse()): void {
    this.state = { type: "sent", lease, isInSession: lease.sessionId() !== undefined }
    this.abortSent = undefined
    const abort = lease.exchange(this.forLease(request, lease), this)
    // The answer may have arrived already and ended this attempt.
    if (this.isDetached) abort()
    else this.abortSent = abort
    if (!this.session.recovers) this.forget()
  }

  /** Sends the request to another upstream session, without the messages that are valid only in the original one. */
  sendAgain(lease: Lease): void {
    this.dropHeld()
    const request = this.parse()
    const messages = request.body?.messages.filter((message) => !isBoundToSession(message))
    if (messages === undefined || messages.length === request.body?.messages.length) {
      return this.send(lease, request)
    }
    const [first, ...others] = messages
    if (first === undefined) this.accept()
    else this.send(lease, withMessages(request, [first, ...others]))
  }

  /**
   * Continues in the same session, which the upstream still knows. Passes on a held answer; without one, sends the
   * request again and returns true.
   */
  proceed(lease: Lease): boolean {
    if (this.state.type === "held") {
      this.conclude(this.state.lease, this.state.answer)
      return false
    }
    this.send(lease)
    return true
  }

  /** Ends a request that must not be sent again: passes on a held answer, or else fails with `SessionLost`. */
  fail(): void {
    // The refusal of a bound request only means that its session is lost.
    if (this.state.type === "held" && !this.isBound) return this.conclude(this.state.lease, this.state.answer)
    this.detach()
    this.next.error(new UpstreamError({ reason: "SessionLost", upstream: this.session.name }))
  }

  /** Responds with 202 to messages that are not sent to the upstream. */
  accept(): void {
    this.state = done
    respond(this.next, 202)
  }

  /**
   * True if the upstream cannot have executed the request: the upstream was not reached, or returned the denial that it
   * returns for every unknown session.
   */
  isUnexecuted(denial: string | undefined): boolean {
    if (this.isBound) return false
    if (this.state.type !== "held" || this.method === "GET" || this.state.answer.status === 404) return true
    const { chunks, status } = this.state.answer
    return denialOf(status, Buffer.concat(chunks)) === denial
  }

  /** True if the body has one request, with this id. */
  asksOnly(id: RequestId): boolean {
    const { body } = this.parse()
    const ids = body === undefined ? [] : requestIds(body)
    return ids.length === 1 && ids[0] === id
  }

  abort(): void {
    this.detach()
  }

  override head(status: number, headers: Headers, flow: Flow): void {
    if (this.state.type !== "sent") return
    const { isInSession, lease } = this.state
    // A GET does not count as answered, because a child that exits repeatedly opens a stream each time.
    if (status < 400 && this.method === "POST") this.session.attempted(this, lease, "answered")
    const mayBeDenied = isInSession && (status === 404 || status === 400)
    if (mayBeDenied && this.session.recovers) return this.hold(lease, status, headers, flow)
    // A server without standalone streams may answer a GET with 404 too.
    this.answer(lease, mayBeDenied && status === 404 && this.method === "POST", status, headers, flow)
  }

  override data(chunk: Uint8Array): void {
    if (this.state.type === "answered") return this.next.data(chunk)
    if (this.state.type !== "held") return
    const { answer, lease } = this.state
    answer.chunks.push(chunk)
    answer.length += chunk.length
    if (answer.length > MAX_DENIAL) this.release(lease, answer)
  }

  override end(): void {
    const { state } = this
    if (state.type === "answered") {
      this.next.end()
      // The client first receives the upstream's 404.
      if (state.isDenied) this.session.attempted(this, state.lease, "denied")
    } else if (state.type === "held") {
      const { chunks, deadline, status } = state.answer
      if (status !== 404 && !mayDenySession(Buffer.concat(chunks)))
        return this.conclude(state.lease, state.answer)
      deadline.clear()
      this.session.attempted(this, state.lease, "denied")
    }
  }

  override error(error: UpstreamError): void {
    const { state } = this
    if (state.type === "sent" && this.mayWait && isUnsent(error)) {
      this.state = waiting
      return this.session.attempted(this, state.lease, "unreachable")
    }
    if (state.type === "held") this.release(state.lease, state.answer)
    else if (this.isDetached) return
    this.next.error(error)
    if (state.type === "answered" && state.isDenied) this.session.attempted(this, state.lease, "denied")
  }

  /** Fails the request, because the held answer has stalled. */
  expire(): void {
    this.detach()
    this.next.error(new UpstreamError({ reason: "Stalled", upstream: this.session.name }))
  }

  /** True if the answer to the last attempt is ignored. */
  private get isDetached(): boolean {
    return this.state.type === "waiting" || this.state.type === "done"
  }

  /** True if the request may wait for an upstream session. The reader of a stream repeats its GET itself. */
  private get mayWait(): boolean {
    return this.session.recovers && this.method === "POST"
  }

  private parse(): Request {
    const { bytes, headers, method } = this
    const body = bytes === undefined ? undefined : Either.getOrUndefined(parseBody(bytes))
    return { method, headers, bytes, body }
  }

  /** Removes `Last-Event-ID` from a GET to another upstream session, which does not know the id. */
  private forLease(request: Request, lease: Lease): Request {
    if (this.method !== "GET" || this.origin === lease) return request
    return { ...request, headers: { ...request.headers, [LAST_EVENT_ID]: undefined } }
  }

  /** Drops the bytes and the header fields, which only another attempt would need. */
  private forget(): void {
    this.bytes = undefined
    this.headers = {}
  }

  private hold(lease: Lease, status: number, headers: Headers, flow: Flow): void {
    const deadline = this.session.deadlines.create(this)
    deadline.set(BODY_STALL)
    this.state = { type: "held", lease, answer: { status, headers, flow, deadline, chunks: [], length: 0 } }
  }

  private detach(): void {
    this.dropHeld()
    this.state = done
    this.abortSent?.()
  }

  private dropHeld(): void {
    if (this.state.type === "held") this.state.answer.deadline.clear()
  }

  private answer(lease: Lease, isDenied: boolean, status: number, headers: Headers, flow: Flow): void {
    this.state = { type: "answered", lease, isDenied }
    this.forget()
    this.next.head(status, headers, flow)
  }

  private conclude(lease: Lease, answer: HeldDenial): void {
    this.release(lease, answer)
    this.next.end()
  }

  private release(lease: Lease, { chunks, deadline, flow, headers, status }: HeldDenial): void {
    deadline.clear()
    this.answer(lease, false, status, headers, flow)
    for (const chunk of chunks) this.next.data(chunk)
  }
}

/** True if nothing was sent and another attempt may succeed. */
const isUnsent = ({ reason }: UpstreamError): boolean =>
  reason === "Unreachable" || reason === "ConnectTimeout"

/** True if a message is valid only in the upstream session that it was sent in. */
export const isBoundToSession = ({ method }: Message): boolean =>
  method === undefined || boundMethods.has(method)

const boundMethods: ReadonlySet<string> = new Set([
  "notifications/initialized",
  "notifications/progress",
  "notifications/cancelled"
])
