/** Writes a response to an HTTP client, at the speed at which the client reads. */
import type { ServerResponse } from "node:http"
import type { ClientResponse, Disconnect } from "../ClientResponse.js"
import type { Budget } from "../internal/budget.js"
import type { Deadline, Expirable } from "../internal/deadlines.js"
import { hasType, type MutableHeaders } from "../internal/headers.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import type { RequestId } from "../Protocol.js"
import { type ClientError, errorLabel, LimitReached, type ProxyError, toJsonRpc } from "../ProxyError.js"
import type { TelemetryListener } from "../Telemetry.js"
import { type Flow, noFlow } from "../Upstream.js"
import type { BodyLimits, BodyReceiver } from "./readBody.js"

/** The dependencies of all responses of an HTTP front. */
export interface HttpResponseDeps extends BodyLimits {
  /** The bytes of all request bodies in memory. A body counts until its request is settled and its response closed. */
  readonly budget: Budget
  readonly telemetry: TelemetryListener
}

/** The time that a client may continue to send a body after an error response, in milliseconds. */
const LINGER = 5_000

/** The maximum size of a stream's first part that is sent together with its head, in bytes. */
const MAX_FIRST_PART = 64 * 1024

/**
 * The phase of a response. The head of a response leads from `waiting` to `headHeld` or, for a stream, to `firstTick`.
 * Afterwards `streaming` and `paused` alternate. Every phase may lead to `ended`, with a short response or an error, and
 * to `closed`.
 */
type Phase =
  /** The response has no head yet. */
  | { readonly type: "waiting" }
  /** The head is held until the body begins. An error can still replace the head. */
  | HeadHeld
  /** The head of a stream and the first part of its body are held until the end of the tick. */
  | FirstTick
  /** The head is sent. */
  | { readonly type: "streaming" }
  /** The client does not read, so the upstream is paused. */
  | { readonly type: "paused" }
  /** The response is complete, but not yet sent. */
  | { readonly type: "ended" }
  /** The response is sent, or its connection is closed. */
  | { readonly type: "closed" }

interface Head {
  readonly status: number
  readonly headers: MutableHeaders
}

interface HeadHeld extends Head {
  readonly type: "headHeld"
}

interface FirstTick extends Head {
  readonly type: "firstTick"
  readonly chunks: Array<Uint8Array>
  bytes: number
}

// Phases without data are shared, so that a response does not allocate them.
const waiting: Phase = { type: "waiting" }
const streaming: Phase = { type: "streaming" }
const paused: Phase = { type: "paused" }
const ended: Phase = { type: "ended" }
const closed: Phase = { type: "closed" }

export class HttpResponse implements ClientResponse, BodyReceiver, Expirable {
  /** The id of the request, for an error response. */
  requestId: RequestId | undefined
  /** Called when the client disconnects before the response is sent. */
  onDisconnect: Disconnect | undefined
  private phase: Phase = waiting
  /** The flow of the upstream's answer, from its head to its end. */
  private flow: Flow = noFlow
  /** The bytes of the request's body that count against the budget. */
  private reserved = 0
  /** True until the request is settled, because it may have to be sent again. */
  private isRequestHeld = false
  private readonly deadline: Deadline

  constructor(
    private readonly response: ServerResponse,
    private readonly deps: HttpResponseDeps,
    /** The CORS headers of the response. */
    private readonly grants: MutableHeaders | undefined
  ) {
    this.deadline = deps.deadlines.create(this)
    const close = () => this.close()
    response.on("close", close)
    if (this.isQueued) {
      // A queued response emits no `close` when its connection closes. Each of the many that may be queued on one
      // connection adds a listener.
      const { socket } = response.req
      socket.setMaxListeners(0).once("close", close)
      response.once("close", () => socket.off("close", close))
    }
  }

  /** True while earlier responses on the connection are not complete (pipelining). Nothing of this one is sent yet. */
  get isQueued(): boolean {
    return this.response.socket === null
  }

  /** Reserves bytes of the budget for the request's body. */
  reserve(bytes: number): LimitReached | undefined {
    const { budget } = this.deps
    if (!budget.reserve(bytes, this.reserved))
      return new LimitReached({ limit: "max-buffered", bound: budget.limit })
    this.reserved += bytes
    this.deps.telemetry.bytesReceived(bytes)
    return undefined
  }

  /** Keeps the reserved bytes until `settled`, even if the client disconnects. */
  holdRequest(): void {
    this.isRequestHeld = true
  }

  settled(): void {
    this.isRequestHeld = false
    this.releaseBytes()
  }

  head(status: number, headers: MutableHeaders, flow: Flow): void {
    if (this.phase.type === "closed") return
    this.flow = flow
    if (!hasType(headers, EVENT_STREAM)) {
      this.phase = { type: "headHeld", status, headers }
      return
    }
    // Most streams end in the tick of their head, and can be sent with their length. Others may be silent for a long
    // time.
    this.phase = { type: "firstTick", status, headers, chunks: [], bytes: 0 }
    process.nextTick(flush, this)
  }

  data(chunk: Uint8Array): void {
    const { phase } = this
    this.deps.telemetry.bytesSent(chunk.length)
    switch (phase.type) {
      case "headHeld":
        this.sendHead(phase)
        return this.write(chunk)
      case "firstTick":
        phase.chunks.push(chunk)
        phase.bytes += chunk.length
        if (phase.bytes > MAX_FIRST_PART) this.flush()
        return
      case "streaming":
      case "paused":
        this.write(chunk)
    }
  }

  /** Sends the head of a stream and the held part of its body, at the end of the first tick. */
  flush(): void {
    const { phase } = this
    if (phase.type !== "firstTick") return
    this.sendHead(phase)
    if (this.response.destroyed) return
    if (phase.chunks.length === 0) this.response.flushHeaders()
    for (const chunk of phase.chunks) this.write(chunk)
  }

  end(flushed?: () => void): void {
    const { phase } = this
    if (flushed !== undefined) this.response.prependOnceListener("finish", () => this.finished(flushed))
    // The flow may belong to another response before the client has read this one.
    this.flow = noFlow
    switch (phase.type) {
      case "headHeld":
        this.sendHead(phase)
        return this.finish()
      case "firstTick":
        return this.sendWhole(phase)
      default:
        this.finish()
    }
  }

  error(error: ProxyError): void {
    if (this.phase.type === "ended") return
    this.deps.telemetry.errorReturned(errorLabel(error))
    if (this.phase.type === "firstTick" && this.phase.chunks.length > 0) this.flush()
    if (this.phase.type === "streaming" || this.phase.type === "paused") return this.expire()
    this.json(error.status, toJsonRpc(error, this.requestId), errorHeaders(error))
  }

  /** Closes the connection of a client that does not read, or that does not stop sending. */
  expire(): void {
    this.response.destroy()
  }

  /** Responds with a JSON document of the proxy. */
  json(status: number, json: string, headers?: MutableHeaders): void {
    if (this.phase.type === "closed") return
    const bytes = Buffer.from(json)
    this.writeHead(status, {
      ...headers,
      "content-type": "application/json",
      "content-length": String(bytes.length)
    })
    this.deps.telemetry.bytesSent(bytes.length)
    this.response.write(bytes)
    this.endAfterRequest()
  }

  /** Responds without a body. */
  empty(status: number, headers: MutableHeaders): void {
    if (this.phase.type === "closed") return
    this.writeHead(status, headers)
    this.endAfterRequest()
  }

  private sendHead({ headers, status }: Head): void {
    this.phase = streaming
    this.writeHead(status, headers)
  }

  /** Sends a stream that ended in the tick of its head. */
  private sendWhole({ bytes, chunks, headers, status }: FirstTick): void {
    const [first] = chunks
    headers["content-length"] = String(bytes)
    this.writeHead(status, headers)
    this.finish(chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks))
  }

  private write(chunk: Uint8Array): void {
    if (this.response.write(chunk) || this.response.destroyed || this.phase.type === "paused") return
    this.phase = paused
    this.flow.pause()
    this.response.once("drain", () => this.drained())
    this.expectRead()
  }

  private writeHead(status: number, headers: MutableHeaders): void {
    const { grants } = this
    if (grants === undefined) return void this.response.writeHead(status, headers)
    const { vary } = headers
    this.response.writeHead(status, {
      ...headers,
      ...grants,
      vary: vary === undefined ? "Origin" : `${vary}, Origin`
    })
  }

  /** Ends the response after the request has arrived, because a client may not read while it sends. */
  private endAfterRequest(): void {
    const { req: request } = this.response
    if (request.complete) return this.finish()
    this.phase = ended
    this.deadline.set(LINGER)
    request.once("end", () => this.finish()).resume()
  }

  private finish(body?: Uint8Array): void {
    if (this.phase.type === "closed") return
    this.phase = ended
    this.response.end(body)
    if (this.response.writableLength > 0) this.expectRead()
  }

  /** Node also emits `finish` for a response that it discards with its connection. */
  private finished(flushed: () => void): void {
    if (!this.response.req.socket.destroyed) flushed()
  }

  private close(): void {
    if (this.phase.type === "closed") return
    this.phase = closed
    this.deadline.clear()
    this.releaseBytes()
    if (!this.response.writableFinished) this.onDisconnect?.()
  }

  /** Returns the reserved bytes to the budget when neither the client nor the upstream needs the request. */
  private releaseBytes(): void {
    if (this.isRequestHeld || this.phase.type !== "closed") return
    this.deps.budget.release(this.reserved)
    this.reserved = 0
  }

  /** Sets the deadline for the client to read. A client cannot read a queued response yet. */
  private expectRead(): void {
    if (!this.isQueued) this.deadline.set(this.deps.stallTimeout)
  }

  private drained(): void {
    this.deadline.clear()
    if (this.phase.type !== "paused") return
    this.phase = streaming
    this.flow.unpause()
  }
}

const flush = (response: HttpResponse): void => response.flush()

const errorHeaders = ({ allow, retryAfter, status }: ClientError): MutableHeaders => ({
  ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
  ...(allow === undefined ? {} : { allow }),
  ...(status === 413 || status === 408 ? { connection: "close" } : {})
})
