/** Relays `initialize`, and holds the answer until the session is stored: the client must not get the id before. */
import * as Effect from "effect/Effect"
import type { Deadline, Deadlines, Expirable } from "../internal/deadlines.js"
import { hasType, type Headers, mediaType } from "../internal/headers.js"
import { EVENT_STREAM, FrameSplitter, messages } from "../Protocol/SseFrames.js"
import { isInitializeResult, type InitializeResult, type Message, parseMessages } from "../Protocol.js"
import { UpstreamError } from "../ProxyError.js"
import {
  type Abort,
  BODY_STALL,
  type Flow,
  ignoreAnswer,
  noFlow,
  nothingToAbort,
  type Request,
  type Sink,
  type StreamPart,
  type Upstream
} from "../Upstream.js"
import { SinkDecorator } from "../Upstream/SinkDecorator.js"

/** The maximum size of a held answer to `initialize`, in bytes. */
const MAX_HELD = 4 * 1024 * 1024

/** A held answer. Its result, or the refusal of the upstream, has been read. */
export interface HeldAnswer {
  /** The negotiated result; `undefined` if the upstream refused, with an HTTP status or a JSON-RPC error. */
  readonly result: InitializeResult | undefined
  /** Passes on the held part of the answer, and then the rest. */
  readonly release: (sink: Sink) => void
  /** Passes on the held part of the answer, and aborts the rest. */
  readonly finish: (sink: Sink) => void
  readonly abort: Abort
}

/**
 * Sends `initialize` and holds the answer. Succeeds when a JSON answer is complete, or when a stream has its first
 * response. An interruption aborts the exchange. Fails if the upstream fails, or if its answer is not MCP.
 */
export const relayInitialize = (
  upstream: Upstream,
  request: Request,
  deadlines: Deadlines
): Effect.Effect<HeldAnswer, UpstreamError> =>
  Effect.async((resume) => {
    const holder = new AnswerHolder(upstream.name, deadlines, resume)
    holder.sent(upstream.exchange(request, holder))
    return Effect.sync(() => holder.interrupt())
  })

/** The phase of the answer. */
type Phase =
  | { readonly type: "reading" }
  /** The caller has the result. The rest of the answer is still held. */
  | { readonly type: "known" }
  | { readonly type: "ended" }
  | { readonly type: "failed"; readonly error: UpstreamError }
  /** The answer is forwarded to the next sink. */
  | { readonly type: "released" }

const reading: Phase = { type: "reading" }
const known: Phase = { type: "known" }
const ended: Phase = { type: "ended" }
const released: Phase = { type: "released" }

class AnswerHolder extends SinkDecorator implements HeldAnswer, Expirable {
  result: InitializeResult | undefined
  abort: Abort = nothingToAbort
  private phase = reading
  private status = 0
  private headers: Headers = {}
  private flow: Flow = noFlow
  private chunks: Array<{ readonly chunk: Uint8Array; readonly part: StreamPart | undefined }> = []
  private length = 0
  private splitter: FrameSplitter | undefined
  private readonly deadline: Deadline

  constructor(
    private readonly upstream: string,
    deadlines: Deadlines,
    private readonly resume: (result: Effect.Effect<HeldAnswer, UpstreamError>) => void
  ) {
    super(ignoreAnswer)
    this.deadline = deadlines.create(this)
  }

  override head(status: number, headers: Headers, flow: Flow): void {
    this.status = status
    this.headers = headers
    this.flow = flow
    if (status < 300 && hasType(headers, EVENT_STREAM)) this.splitter = new FrameSplitter()
    // A stream may be silent while the server works on its response.
    else this.deadline.set(BODY_STALL)
  }

  override data(chunk: Uint8Array, part?: StreamPart): void {
    if (this.phase.type === "released") return super.data(chunk, part)
    this.chunks.push({ chunk, part })
    this.length += chunk.length
    if (this.length > MAX_HELD) return this.refuse("NotMcp", `an answer of more than ${MAX_HELD} bytes`)
    if (this.phase.type !== "reading") return
    if (this.splitter === undefined) return this.deadline.set(BODY_STALL)
    const frames = this.splitter.push(chunk)
    if (frames !== undefined) this.read(messages(frames))
  }

  override end(): void {
    if (this.phase.type === "released") return super.end()
    if (this.phase.type === "reading") this.readWhole()
    if (this.phase.type === "known") this.phase = ended
  }

  override error(error: UpstreamError): void {
    if (this.phase.type === "released") return super.error(error)
    const isAwaited = this.phase.type === "reading"
    this.phase = { type: "failed", error }
    if (isAwaited) this.settle(Effect.fail(error))
  }

  expire(): void {
    this.refuse("Stalled")
  }

  release(sink: Sink): void {
    const { phase } = this
    sink.head(this.status, this.headers, this.flow)
    for (const { chunk, part } of this.chunks) sink.data(chunk, part)
    this.chunks = []
    this.next = sink
    this.phase = released
    if (phase.type === "failed") sink.error(phase.error)
    else if (phase.type === "ended") sink.end()
  }

  finish(sink: Sink): void {
    const isOver = this.phase.type === "ended" || this.phase.type === "failed"
    this.release(sink)
    if (isOver) return
    this.abort()
    sink.end()
  }

  /** Notes how to abort the exchange, which may have failed already. */
  sent(abort: Abort): void {
    this.abort = abort
    if (this.phase.type === "failed") abort()
  }

  interrupt(): void {
    this.deadline.clear()
    this.abort()
  }

  private readWhole(): void {
    if (this.status >= 300) return this.succeed()
    if (this.splitter === undefined)
      this.read(parseMessages(Buffer.concat(this.chunks.map(({ chunk }) => chunk))))
    if (this.phase.type === "reading")
      this.refuse("NotMcp", `${this.status} ${mediaType(this.headers) ?? "without a body"}`)
  }

  /** Reads the first response, if these messages have one. */
  private read(messages: ReadonlyArray<Message>): void {
    const response = messages.find(({ method }) => method === undefined)
    if (response === undefined) return
    if (response.error !== undefined) return this.succeed()
    if (!isInitializeResult(response.result)) return this.refuse("NotMcp", "a result without protocolVersion")
    this.result = response.result
    this.succeed()
  }

  private succeed(): void {
    this.phase = known
    this.settle(Effect.succeed(this))
  }

  private refuse(reason: "NotMcp" | "Stalled", detail?: string): void {
    this.abort()
    this.error(new UpstreamError({ reason, upstream: this.upstream, detail }))
  }

  private settle(result: Effect.Effect<HeldAnswer, UpstreamError>): void {
    this.deadline.clear()
    this.resume(result)
  }
}
