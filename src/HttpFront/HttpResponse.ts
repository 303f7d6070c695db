/** Writes an answer to an HTTP client, no faster than the client reads. */
import type { ServerResponse } from "node:http"
import type { ClientResponse, Disconnect } from "../ClientResponse.js"
import type { Budget } from "../internal/budget.js"
import type { BodyReceiver, BodyLimits } from "./readBody.js"
import type { Deadline, Expirable } from "../internal/deadlines.js"
import { hasType, type MutableHeaders } from "../internal/headers.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import type { RequestId } from "../Protocol.js"
import { type ClientError, errorLabel, LimitReached, type ProxyError, toJsonRpc } from "../ProxyError.js"
import type { TelemetryListener } from "../Telemetry.js"
import type { Flow } from "../Upstream.js"

/** What all answers of a front have in common. */
export interface HttpResponseDeps extends BodyLimits {
  /** The bytes of request bodies that are held at once: each until it is relayed and its response is closed. */
  readonly budget: Budget
  readonly telemetry: TelemetryListener
}

/** How long a client may go on sending a body that nobody will read, in milliseconds. */
const LINGER = 5_000

/** How much of a stream may go out in one piece with its head, in bytes. */
const MAX_EARLY = 64 * 1024

export class HttpResponse implements ClientResponse, BodyReceiver, Expirable {
  /** The request that an error would answer. */
  requestId: RequestId | undefined
  /** Whom to tell when the client goes away. */
  onDisconnect: Disconnect | undefined
  private flow: Flow | undefined
  private isPaused = false
  /** The head waits for the body, or for the end of this tick, and in that time what comes of the body with it. */
  private heldHead: { readonly status: number; readonly headers: MutableHeaders } | undefined
  private early: Array<Uint8Array> | undefined
  private earlyBytes = 0
  private reserved = 0
  private isHeld = false
  private isClosed = false
  private readonly deadline: Deadline

  constructor(
    private readonly response: ServerResponse,
    private readonly terms: HttpResponseDeps,
    /** The CORS grants, for web pages. */
    private readonly grants: MutableHeaders | undefined
  ) {
    this.deadline = terms.deadlines.create(this)
    const close = () => this.close()
    response.on("close", close)
    if (this.isQueued) {
      // A pipelined response that still waits for its turn is not told when the connection closes. There may be
      // many of them, each with its listener.
      const { socket } = response.req
      socket.setMaxListeners(0).once("close", close)
      response.once("close", () => socket.off("close", close))
    }
  }

  /** Whether it still waits for its turn, behind other responses on its connection: nothing of it has gone out. */
  get isQueued(): boolean {
    return this.response.socket === null
  }

  /** Makes room for bytes of the request's body, or says that there is none. */
  reserve(bytes: number): LimitReached | undefined {
    const { budget } = this.terms
    if (!budget.reserve(bytes, this.reserved))
      return new LimitReached({ limit: "max-buffered", bound: budget.bound })
    this.reserved += bytes
    this.terms.telemetry.bytesReceived(bytes)
    return undefined
  }

  /** The request is about to be relayed: its bytes are held until that is settled, whether or not the client stays. */
  holdRequest(): void {
    this.isHeld = true
  }

  settled(): void {
    this.isHeld = false
    this.release()
  }

  head(status: number, headers: MutableHeaders, flow: Flow): void {
    this.flow = flow
    // It goes out with the body: if that never comes, there can still be an error in its place.
    this.heldHead = { status, headers }
    if (!hasType(headers, EVENT_STREAM)) return
    // A stream may stay silent for long after its head; most are over in the same tick, and their length is known then.
    this.early = []
    process.nextTick(flush, this)
  }

  /** The tick is over in which the head of a stream came. */
  flush(): void {
    const chunks = this.early
    this.early = undefined
    if (chunks === undefined || this.response.destroyed) return
    this.releaseHead()
    if (chunks.length === 0) this.response.flushHeaders()
    for (const chunk of chunks) this.write(chunk)
  }

  data(chunk: Uint8Array): void {
    this.terms.telemetry.bytesSent(chunk.length)
    if (this.early !== undefined) return this.hasten(this.early, chunk)
    this.releaseHead()
    this.write(chunk)
  }

  /** What comes in the first tick is held back for it to go out at once, unless it is much. */
  private hasten(early: Array<Uint8Array>, chunk: Uint8Array): void {
    early.push(chunk)
    this.earlyBytes += chunk.length
    if (this.earlyBytes > MAX_EARLY) this.flush()
  }

  private write(chunk: Uint8Array): void {
    if (this.response.write(chunk) || this.response.destroyed || this.isPaused) return
    this.isPaused = true
    this.flow?.pause()
    this.response.once("drain", () => this.resume())
    this.expectRead()
  }

  end(flushed?: () => void): void {
    if (flushed !== undefined) this.response.prependOnceListener("finish", () => this.finished(flushed))
    // Whoever filled it may be filling another by the time that this one is read.
    this.flow = undefined
    if (this.early === undefined) {
      this.releaseHead()
      this.response.end()
    } else this.endAtOnce(this.early)
    if (this.response.writableLength > 0) this.expectRead()
  }

  error(error: ProxyError): void {
    if (this.response.writableEnded) return
    this.terms.telemetry.errorReturned(errorLabel(error))
    if (this.early !== undefined && this.early.length > 0) this.flush()
    if (this.response.headersSent) return this.expire()
    this.heldHead = undefined
    this.early = undefined
    this.json(error.status, toJsonRpc(error, this.requestId), errorHeaders(error))
  }

  /** The client does not read, or does not stop sending: its connection is closed. */
  expire(): void {
    this.response.destroy()
  }

  /** Answers with a document of the proxy's own. */
  json(status: number, json: string, headers?: MutableHeaders): void {
    const bytes = Buffer.from(json)
    this.writeHead(status, {
      ...headers,
      "content-type": "application/json",
      "content-length": String(bytes.length)
    })
    this.terms.telemetry.bytesSent(bytes.length)
    this.response.write(bytes)
    this.endAfterRequest()
  }

  /** Answers without a body. */
  empty(status: number, headers: MutableHeaders): void {
    this.writeHead(status, headers)
    this.endAfterRequest()
  }

  /** The whole stream has come in the tick of its head. */
  private endAtOnce(chunks: ReadonlyArray<Uint8Array>): void {
    const [first] = chunks
    const body = chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks)
    this.early = undefined
    if (this.heldHead !== undefined) this.heldHead.headers["content-length"] = String(body.length)
    this.releaseHead()
    this.response.end(body)
  }

  private releaseHead(): void {
    if (this.heldHead === undefined) return
    const { headers, status } = this.heldHead
    this.heldHead = undefined
    this.writeHead(status, headers)
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

  /**
   * Ends the response when the request has arrived whole, for a connection that is closed on a client that is
   * still sending takes the answer with it.
   */
  private endAfterRequest(): void {
    const { req: request } = this.response
    if (request.complete) return this.end()
    this.deadline.set(LINGER)
    request.once("end", () => this.end()).resume()
  }

  /** Node says so, too, of what is thrown away with its connection, which it has not detached yet. */
  private finished(flushed: () => void): void {
    if (!this.response.req.socket.destroyed) flushed()
  }

  private close(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.deadline.clear()
    this.release()
    if (!this.response.writableFinished) this.onDisconnect?.()
  }

  /** Gives the room for the request's bytes back, once nobody holds them any more. */
  private release(): void {
    if (this.isHeld || !this.isClosed) return
    this.terms.budget.release(this.reserved)
    this.reserved = 0
  }

  /** A pipelined response that still waits for its turn is not one that the client does not read. */
  private expectRead(): void {
    if (!this.isQueued) this.deadline.set(this.terms.stallTimeout)
  }

  private resume(): void {
    this.isPaused = false
    this.deadline.clear()
    this.flow?.unpause()
  }
}

const flush = (answer: HttpResponse): void => answer.flush()

const errorHeaders = ({ allow, retryAfter, status }: ClientError): MutableHeaders => ({
  ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
  ...(allow === undefined ? {} : { allow }),
  ...(status === 413 || status === 408 ? { connection: "close" } : {})
})
