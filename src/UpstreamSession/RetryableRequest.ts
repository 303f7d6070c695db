/** A client's request on its way to the upstream session of the moment: to another one, if that is lost. */
import * as Either from "effect/Either"
import type { Deadline, Deadlines, Expirable } from "../internal/deadlines.js"
import type { Headers } from "../internal/headers.js"
import { type Body, type Message, parseBody, type RequestId, requestIds } from "../Protocol.js"
import { UpstreamError } from "../ProxyError.js"
import { denialOf, deniesSession } from "./reinitialize.js"
import {
  type Abort,
  BODY_STALL,
  type Flow,
  type Lease,
  type Request,
  type Sink,
  noFlow
} from "../Upstream.js"

/** Whoever knows which upstream session is that of the moment. */
export interface Attempted {
  readonly name: string
  readonly deadlines: Deadlines
  /** Whether a session that is lost is replaced. */
  readonly recovers: boolean
  /** The upstream has answered. */
  readonly answered: () => void
  /** The upstream may have denied the session, or could not be reached and was sent nothing. */
  readonly failed: (attempt: RetryableRequest, lease: Lease, what: Failure) => void
  /** It is of no interest any more. */
  readonly dropped: (attempt: RetryableRequest) => void
}

export type Failure = "doubtful" | "unreached"

/** How much of an answer is held that may deny a session, in bytes. */
const MAX_DENIAL = 64 * 1024

/** An answer that is held until it is known what it means. */
interface Held {
  readonly status: number
  readonly headers: Headers
  readonly flow: Flow
  readonly chunks: Array<Uint8Array>
  readonly deadline: Deadline
  bytes: number
}

/** What sends it, where that is not simply the client's request. */
type Sends = (lease: Lease, sink: Sink) => Abort

export class RetryableRequest implements Sink, Expirable {
  /** What the client sent, without what was read of it: that may be many times as large. */
  private bytes: Uint8Array | undefined
  private headers: Headers
  private readonly method: Request["method"]
  private lease: Lease | undefined
  /** Whether it was sent within a session, which can be denied. */
  private isInSession = false
  private abortSent: Abort | undefined
  private held: Held | undefined
  private isAnswered = false
  private isDenied = false
  /** Whether what was sent last is given up: nothing of it is of interest. */
  private isGivenUp = false

  constructor(
    private readonly session: Attempted,
    { bytes, headers, method }: Request,
    private readonly sink: Sink,
    private readonly sends?: Sends,
    /** Whether it means something to the session alone that it was sent to first. */
    readonly isBound = false
  ) {
    this.bytes = bytes
    this.headers = headers
    this.method = method
  }

  /** Sends it, as the client did or as it was read once more. */
  send(lease: Lease, request = this.reread()): void {
    this.lease = lease
    this.isInSession = lease.sessionId() !== undefined
    this.isDenied = false
    this.letGoOfHeld()
    this.isGivenUp = false
    this.abortSent = undefined
    const abort = this.sends?.(lease, this) ?? lease.exchange(request, this)
    if (this.isGivenUp) abort()
    else this.abortSent = abort
    if (!this.session.recovers) this.forget()
  }

  /** Once more, to another session, without what only the old one had to do with. */
  sendAnew(lease: Lease): void {
    const request = this.reread()
    const messages = request.body?.messages.filter((message) => !isBound(message))
    if (messages === undefined || messages.length === request.body?.messages.length) {
      return this.send(lease, request)
    }
    const [first, ...others] = messages
    if (first === undefined) return this.accept()
    this.send(lease, withMessages(request, [first, ...others]))
  }

  /** The session is as it was: what was held is the answer. True when there was none, and it is sent again. */
  goOn(lease: Lease): boolean {
    const { held } = this
    if (held === undefined) this.send(lease)
    else this.conclude(held)
    return held === undefined
  }

  /** The session is lost, and with it whatever else could have come. */
  giveBack(): void {
    // That the old session cannot go on with a stream does not say that the new one has none.
    if (this.held !== undefined && !this.isBound) return this.conclude(this.held)
    this.giveUp()
    this.sink.error(new UpstreamError({ reason: "Replaced", upstream: this.session.name }))
  }

  /** Answers what needs no answer of the upstream. */
  accept(): void {
    this.sink.head(202, { "content-length": "0" }, noFlow)
    this.sink.end()
  }

  /**
   * Whether the upstream cannot have carried it out: it was not reached, or said what it says to whatever names a session
   * that it does not know.
   */
  isUndone(denial: string | undefined): boolean {
    const { held } = this
    if (this.isBound) return false
    if (held === undefined || this.method === "GET" || held.status === 404) return true
    return denialOf(held.status, Buffer.concat(held.chunks)) === denial
  }

  /** Whether it waits for nothing but the response to this request. */
  waitsOnlyFor(id: RequestId): boolean {
    const { body } = this.reread()
    const ids = body === undefined ? [] : requestIds(body)
    return ids.length === 1 && ids[0] === id
  }

  abort(): void {
    this.giveUp()
    this.session.dropped(this)
  }

  head(status: number, headers: Headers, flow: Flow): void {
    if (this.isGivenUp) return
    // That a stream can be had says little: a child that ends again and again gives one each time.
    if (status < 400 && this.method === "POST") this.session.answered()
    if (this.isInSession && (status === 404 || status === 400)) {
      if (this.session.recovers) return this.hold(status, headers, flow)
      // A 404 to a GET may as well come from a server that has no such stream.
      this.isDenied = status === 404 && this.method === "POST"
    }
    this.answer(status, headers, flow)
  }

  data(chunk: Uint8Array): void {
    if (this.isGivenUp) return
    const { held } = this
    if (held === undefined) return this.sink.data(chunk)
    held.chunks.push(chunk)
    held.bytes += chunk.length
    if (held.bytes > MAX_DENIAL) this.release(held)
  }

  end(): void {
    if (this.isGivenUp) return
    const { held } = this
    if (held === undefined) {
      this.sink.end()
      // The client is told first, in the upstream's own words.
      if (this.isDenied) this.fail("doubtful")
    } else if (held.status === 404 || deniesSession(Buffer.concat(held.chunks))) {
      held.deadline.clear()
      this.fail("doubtful")
    } else this.conclude(held)
  }

  error(error: UpstreamError): void {
    if (this.isGivenUp) return
    if (this.held !== undefined) this.release(this.held)
    else if (this.mayWait && unreached.has(error.reason)) return this.fail("unreached")
    this.sink.error(error)
    if (this.isDenied) this.fail("doubtful")
  }

  /** What is held does not come to its end. */
  expire(): void {
    this.giveUp()
    this.sink.error(new UpstreamError({ reason: "Stalled", upstream: this.session.name }))
  }

  /** A stream that cannot be had is asked for again by whoever wants it. */
  private get mayWait(): boolean {
    return this.session.recovers && this.method === "POST" && !this.isAnswered
  }

  private reread(): Request {
    const { bytes, headers, method } = this
    const body = bytes === undefined ? undefined : Either.getOrUndefined(parseBody(bytes))
    return { method, headers, bytes, body }
  }

  /** It will not be sent again. */
  private forget(): void {
    this.bytes = undefined
    this.headers = {}
  }

  private hold(status: number, headers: Headers, flow: Flow): void {
    const deadline = this.session.deadlines.create(this)
    deadline.set(BODY_STALL)
    this.held = { status, headers, flow, deadline, chunks: [], bytes: 0 }
  }

  private fail(what: Failure): void {
    if (this.lease !== undefined) this.session.failed(this, this.lease, what)
  }

  private giveUp(): void {
    this.isGivenUp = true
    this.letGoOfHeld()
    this.abortSent?.()
  }

  private letGoOfHeld(): void {
    this.held?.deadline.clear()
    this.held = undefined
  }

  private answer(status: number, headers: Headers, flow: Flow): void {
    this.isAnswered = true
    this.forget()
    this.sink.head(status, headers, flow)
  }

  private conclude(held: Held): void {
    this.release(held)
    this.sink.end()
  }

  private release(held: Held): void {
    this.letGoOfHeld()
    this.answer(held.status, held.headers, held.flow)
    for (const chunk of held.chunks) this.sink.data(chunk)
  }
}

/** A request with some of its messages only. */
export const withMessages = (request: Request, messages: Body["messages"]): Request => ({
  ...request,
  body: { isBatch: true, messages },
  bytes: Buffer.from(JSON.stringify(messages))
})

/** After these errors another try may succeed, and nothing was sent. */
const unreached: ReadonlySet<UpstreamError["reason"]> = new Set(["Unreachable", "ConnectTimeout"])

/** Whether a message says something about what only one upstream session knows of. */
export const isBound = ({ method }: Message): boolean => method === undefined || bound.has(method)

const bound: ReadonlySet<string> = new Set([
  "notifications/initialized",
  "notifications/progress",
  "notifications/cancelled"
])
