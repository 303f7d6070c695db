/**
 * The upstream's standalone stream. Its events go to the standalone streams of the client, with or without a reader
 * (2025-11-25, Transports, "Listening for Messages from the Server").
 */
import type { ClientResponse, Disconnect } from "../ClientResponse.js"
import { isTransient } from "../internal/backoff.js"
import { asBuffer, EMPTY } from "../internal/bytes.js"
import { first, type Headers, isReadable } from "../internal/headers.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import { LAST_EVENT_ID, methodLabel } from "../Protocol.js"
import { BadRequest, type ProxyError, type UpstreamError } from "../ProxyError.js"
import type { Reconnection, Streams } from "../Streams.js"
import type { Outcome, TelemetryListener } from "../Telemetry.js"
import {
  type Abort,
  type Continuation,
  type Flow,
  nothingToAbort,
  type Request,
  type StreamPart,
  type Upstream
} from "../Upstream.js"
import { streaming, toClient } from "../Upstream/headers.js"
import { EventTagger } from "./EventTagger.js"
import type { StreamWriter } from "./StreamWriter.js"

/** The dependencies of a standalone stream. */
export interface StandaloneStreamDeps {
  readonly sessionId: string
  readonly upstream: Upstream
  readonly telemetry: TelemetryListener
  /** Called when the upstream's stream has ended or was refused. */
  readonly settled: () => void
}

/** A client that waits for the upstream's answer to its GET. */
interface WaitingClient {
  readonly response: ClientResponse
  /** The stream that the client reconnects to. */
  readonly reconnection: Reconnection | undefined
}

type State =
  | { readonly type: "closed" }
  /** The upstream has not answered the GET. */
  | { readonly type: "requested"; readonly client: WaitingClient | undefined }
  /** The answer is not an event stream. It is forwarded to the client unchanged. */
  | { readonly type: "passing"; readonly client: WaitingClient; readonly flow: Flow }
  /** The stream is open, or is being resumed. */
  | { readonly type: "open"; readonly flow: Flow }

const closed: State = { type: "closed" }

/** The statuses after which a retry cannot continue a stream. */
const refusals: ReadonlySet<number> = new Set([400, 404, 405])

export class StandaloneStream implements Flow {
  private state: State = closed
  /** The number of the current request. Answers to older requests are ignored. */
  private generation = 0
  private abort: Abort = nothingToAbort
  private startedAt = 0
  private isPaused = false
  /** The stream that receives the pieces of the current event. */
  private pieceTarget: StreamWriter | undefined
  /** Splits bytes into events if no `StreamReader` has done so. */
  private tagger: EventTagger | undefined

  constructor(
    private readonly deps: StandaloneStreamDeps,
    private readonly streams: Streams
  ) {}

  /** True if a client waits for the upstream's answer to its GET. */
  get hasWaitingClient(): boolean {
    return this.waitingClient !== undefined
  }

  /** Opens a standalone stream for a client, or reconnects the client to one. */
  listen(request: Request, response: ClientResponse): Disconnect {
    const lastEventId = first(request.headers, LAST_EVENT_ID)
    const reconnection = lastEventId === undefined ? undefined : this.streams.standaloneAt(lastEventId)
    const isClosed = this.state.type === "closed"
    if (reconnection === undefined && !isClosed) return this.streams.join(response, this)
    if (reconnection !== undefined && (!isClosed || reconnection.hasMissedEvents)) {
      // The client first receives the missed events. The upstream's stream is opened at the same time.
      const disconnect = this.streams.reconnect(reconnection, response)
      if (isClosed) this.request(undefined, this.continuation(this.streams.cursor))
      return disconnect
    }
    const client: WaitingClient = { response, reconnection }
    this.request(client, lastEventId === undefined ? request : this.continuation(this.streams.cursor))
    return () => this.disconnect(client)
  }

  /** Opens the stream again after a failover, if a client reads. */
  renew(): void {
    if (this.hasWaitingClient) return
    this.abort()
    this.reset()
    if (this.streams.openStandalone > 0) this.request(undefined, this.continuation(undefined))
  }

  /** Ends the upstream's stream. A waiting client receives the error. */
  cut(error: ProxyError): void {
    if (this.state.type === "closed") return
    this.abort()
    if (this.hasWaitingClient) this.refuse(error, "failed")
    else this.settle("answered")
  }

  private head(status: number, headers: Headers, flow: Flow): void {
    const client = this.waitingClient
    if (status >= 300 || !isReadable(headers, EVENT_STREAM)) return this.pass(status, headers, flow, client)
    this.state = { type: "open", flow }
    if (this.isPaused) flow.pause()
    if (client === undefined) return
    const { reconnection, response } = client
    const forClient = streaming(toClient(headers, this.deps.sessionId))
    if (reconnection !== undefined) return void this.streams.reconnect(reconnection, response, forClient)
    this.streams.openStandaloneStream(this).open(response, status, forClient)
    response.settled()
  }

  private data(chunk: Uint8Array, part: StreamPart | undefined): void {
    if (this.state.type === "passing") return this.state.client.response.data(chunk)
    if (part !== undefined) return this.add(asBuffer(chunk), part)
    this.tagger ??= new EventTagger()
    this.tagger.push(chunk, (bytes, part) => this.add(bytes, part))
  }

  private add(bytes: Buffer, part: StreamPart): void {
    const isWhole = part.type === "event" || part.type === "cursor"
    // All pieces of an event must go to the same stream.
    if (part.type === "piece" && part.isFirst) this.pieceTarget = this.streams.newest
    const target = isWhole ? this.streams.newest : this.pieceTarget
    target?.add(bytes, part)
  }

  private end(): void {
    if (this.state.type === "passing") this.state.client.response.end()
    this.settle("answered")
  }

  private error(error: UpstreamError): void {
    this.refuse(error, "failed")
  }

  pause(): void {
    this.isPaused = true
    this.flow?.pause()
  }

  unpause(): void {
    this.isPaused = false
    this.flow?.unpause()
  }

  get isShared(): boolean {
    return this.flow?.isShared === true
  }

  private get flow(): Flow | undefined {
    return "flow" in this.state ? this.state.flow : undefined
  }

  private get waitingClient(): WaitingClient | undefined {
    return "client" in this.state ? this.state.client : undefined
  }

  private continuation(lastEventId: string | undefined, mode: Continuation["mode"] = "once"): Request {
    const continues = { requests: [], lastEventId, mode }
    return { method: "GET", headers: {}, bytes: undefined, body: undefined, continues }
  }

  private request(client: WaitingClient | undefined, request: Request): void {
    this.state = { type: "requested", client }
    this.startedAt = performance.now()
    this.abort = nothingToAbort
    const generation = ++this.generation
    const isCurrent = () => generation === this.generation
    const abort = this.deps.upstream.exchange(request, {
      head: (status, headers, flow) => isCurrent() && this.head(status, headers, flow),
      data: (chunk, part) => isCurrent() && this.data(chunk, part),
      end: () => isCurrent() && this.end(),
      error: (error) => isCurrent() && this.error(error)
    })
    if (isCurrent()) this.abort = abort
    else abort()
  }

  /** Handles an answer that is not an event stream. */
  private pass(status: number, headers: Headers, flow: Flow, client: WaitingClient | undefined): void {
    if (client === undefined) {
      this.abort()
      return this.settle("rejected")
    }
    const { reconnection, response } = client
    // The client would take a forwarded 404 for the end of its session.
    if (reconnection !== undefined && refusals.has(status)) {
      this.abort()
      return this.refuse(new BadRequest({ reason: "StreamEnded" }), "rejected")
    }
    if (reconnection !== undefined && isTransient(status)) {
      this.abort()
      this.streams.reconnect(reconnection, response)
      return this.request(undefined, this.continuation(this.streams.cursor, "until resumed"))
    }
    this.state = { type: "passing", client, flow }
    response.head(status, toClient(headers, this.deps.sessionId), this)
  }

  private disconnect(client: WaitingClient): void {
    if (this.waitingClient !== client) return this.streams.disconnect(client.response)
    this.abort()
    this.settle("disconnected")
  }

  private refuse(error: ProxyError, outcome: Outcome): void {
    this.waitingClient?.response.error(error)
    this.settle(outcome)
  }

  /** Ends the client's standalone streams. If a client reconnects, the upstream's stream is opened again. */
  private settle(outcome: Outcome): void {
    if (this.state.type === "closed") return
    const client = this.waitingClient
    this.reset()
    this.deps.telemetry.exchangeEnded(methodLabel(undefined), outcome, performance.now() - this.startedAt)
    this.streams.dismissStandalone()
    this.deps.settled()
    client?.response.settled()
  }

  private reset(): void {
    this.state = closed
    this.generation++
    this.abort = nothingToAbort
    this.pieceTarget?.add(EMPTY, { type: "break" })
    this.pieceTarget = undefined
    this.tagger = undefined
  }
}
