/** A client's request on its way to the upstream session of the moment: to another one, if that is lost. */
import type { Headers } from "./internal/headers.js"
import { type Body, type Message, type RequestId, requestIds } from "./Protocol.js"
import type { UpstreamError } from "./ProxyError.js"
import { bodyDeniesSession } from "./Recovery.js"
import { type Abort, type Flow, type Lease, type Request, type Sink, still } from "./Upstream.js"

/** Whoever knows which upstream session is that of the moment. */
export interface Attempted {
  /** Whether a session that is lost is replaced. */
  readonly recovers: boolean
  /** The upstream has answered. */
  readonly answered: () => void
  /**
   * The upstream has not carried out the request: it denies the session, or may be denying it, or could not be reached
   * and has told nothing.
   */
  readonly failed: (attempt: Attempt, lease: Lease, what: Failure) => void
  /** It is of no interest any more. */
  readonly dropped: (attempt: Attempt) => void
}

export type Failure = "denied" | "doubtful" | "unreached"

/** How much of an answer is held that may deny a session, in bytes. */
const MAX_DENIAL = 64 * 1024

/** An answer that is held until it is known what it means. */
interface Held {
  readonly status: number
  readonly headers: Headers
  readonly flow: Flow
  readonly chunks: Array<Uint8Array>
  bytes: number
}

export class Attempt implements Sink {
  private lease: Lease | undefined
  /** Whether it was sent within a session, which can be denied. */
  private isInSession = false
  private abortSent: Abort | undefined
  private held: Held | undefined
  private isDenied = false
  /** Whether what was sent last is given up: nothing of it is of interest. */
  private isGivenUp = false

  constructor(
    private readonly session: Attempted,
    private request: Request,
    private readonly sink: Sink,
    /** How it is sent, unless as the client sent it. */
    private readonly sends?: (lease: Lease, sink: Sink) => Abort
  ) {}

  send(lease: Lease): void {
    this.lease = lease
    this.isInSession = lease.sessionId() !== undefined
    this.isDenied = false
    this.held = undefined
    this.isGivenUp = false
    this.abortSent = undefined
    const abort = this.sends?.(lease, this) ?? lease.exchange(this.request, this)
    if (this.isGivenUp) abort()
    else this.abortSent = abort
  }

  /** Once more, to another session: without what only the old one had to do with. */
  sendAnew(lease: Lease): void {
    const { body } = this.request
    const messages = body?.messages.filter((message) => !isBound(message))
    if (body === undefined || messages === undefined || messages.length === body.messages.length) {
      return this.send(lease)
    }
    const [first, ...others] = messages
    if (first === undefined) return this.accept()
    const left: Body = { isBatch: true, messages: [first, ...others] }
    this.request = { ...this.request, body: left, bytes: Buffer.from(JSON.stringify(left.messages)) }
    this.send(lease)
  }

  /** The session is as it was: what was held is the answer. */
  goOn(lease: Lease): void {
    const { held } = this
    if (held === undefined) return this.send(lease)
    this.release(held)
    this.sink.end()
  }

  /** Answers what needs no answer of the upstream. */
  accept(): void {
    this.sink.head(202, { "content-length": "0" }, still)
    this.sink.end()
  }

  /** Whether it waits for nothing but the responses to these requests. */
  waitsOnlyFor(id: RequestId): boolean {
    const ids = this.request.body === undefined ? [] : requestIds(this.request.body)
    return ids.length === 1 && ids[0] === id
  }

  abort(): void {
    this.giveUp()
    this.session.dropped(this)
  }

  head(status: number, headers: Headers, flow: Flow): void {
    if (this.isGivenUp) return
    // That a stream can be had says little: a child that ends again and again gives one each time.
    if (status < 400) {
      if (this.request.method === "POST") this.session.answered()
    } else if (this.isInSession && (status === 404 || status === 400)) {
      // A 404 to a GET may as well come from a server that has no such stream.
      this.isDenied = status === 404 && this.request.method === "POST"
      if (this.session.recovers) {
        this.held = { status, headers, flow, chunks: [], bytes: 0 }
        return this.isDenied ? this.fail("denied") : undefined
      }
    }
    this.sink.head(status, headers, flow)
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
      if (this.isDenied) this.fail("denied")
    } else if (held.status === 404 || bodyDeniesSession(Buffer.concat(held.chunks))) {
      this.fail("doubtful")
    } else {
      this.release(held)
      this.sink.end()
    }
  }

  error(error: UpstreamError): void {
    if (this.isGivenUp) return
    if (this.held !== undefined) this.release(this.held)
    else if (this.mayWait && unsent.has(error.reason)) return this.fail("unreached")
    this.sink.error(error)
    if (this.isDenied) this.fail("denied")
  }

  /** A stream that cannot be had is asked for again by whoever wants it. */
  private get mayWait(): boolean {
    return this.session.recovers && this.request.method === "POST" && !this.isDenied
  }

  private fail(what: Failure): void {
    if (what === "denied") this.giveUp()
    if (this.lease !== undefined) this.session.failed(this, this.lease, what)
  }

  private giveUp(): void {
    this.isGivenUp = true
    this.held = undefined
    this.abortSent?.()
  }

  private release(held: Held): void {
    this.held = undefined
    this.sink.head(held.status, held.headers, held.flow)
    for (const chunk of held.chunks) this.sink.data(chunk)
  }
}

/** With these errors nothing was sent. */
const unsent: ReadonlySet<UpstreamError["reason"]> = new Set(["Unreachable", "ConnectTimeout"])

/** Whether a message says something about what only one upstream session knows of. */
export const isBound = ({ method }: Message): boolean => method === undefined || bound.has(method)

const bound: ReadonlySet<string> = new Set([
  "notifications/initialized",
  "notifications/progress",
  "notifications/cancelled"
])
