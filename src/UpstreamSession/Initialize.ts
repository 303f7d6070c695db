/**
 * The answer to `initialize`, which is held back until its session is stored: only then may the client know
 * the session's id.
 */
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
  type Request,
  type Sink,
  noFlow,
  type Upstream
} from "../Upstream.js"

/** How much of an answer to `initialize` is held, in bytes. */
const MAX_HELD = 4 * 1024 * 1024

/** An answer of which enough is known to open a session, or to see that there will be none. */
export interface HeldAnswer {
  /** What was settled; `undefined` when the upstream refused, with an HTTP status or a JSON-RPC error. */
  readonly result: InitializeResult | undefined
  /** Passes on what is held, and from then on whatever comes. */
  readonly release: (sink: Sink) => void
  /** Passes on what is held, and gives up the rest. */
  readonly finish: (sink: Sink) => void
  readonly abort: Abort
}

/**
 * Sends `initialize` and holds the answer: a JSON answer whole, a stream up to its first message. An
 * interruption gives the exchange up. Fails when the upstream does, or when what it says is not MCP.
 */
export const relay = (
  upstream: Upstream,
  request: Request,
  deadlines: Deadlines
): Effect.Effect<HeldAnswer, UpstreamError> =>
  Effect.async((resume) => {
    const held = new Holding(upstream.name, deadlines, resume)
    held.sent(upstream.exchange(request, held))
    return Effect.sync(() => held.giveUp())
  })

class Holding implements Sink, HeldAnswer, Expirable {
  result: InitializeResult | undefined
  abort: Abort = () => {}
  private status = 0
  private headers: Headers = {}
  private flow: Flow = noFlow
  private chunks: Array<Uint8Array> = []
  private heldBytes = 0
  private splitter: FrameSplitter | undefined
  private isSettled = false
  private readonly deadline: Deadline
  private isEnded = false
  private failure: UpstreamError | undefined
  private sink: Sink | undefined

  constructor(
    private readonly upstream: string,
    deadlines: Deadlines,
    private readonly resume: (result: Effect.Effect<HeldAnswer, UpstreamError>) => void
  ) {
    this.deadline = deadlines.create(this)
  }

  head(status: number, headers: Headers, flow: Flow): void {
    this.status = status
    this.headers = headers
    this.flow = flow
    if (status < 300 && hasType(headers, EVENT_STREAM)) this.splitter = new FrameSplitter()
    // A stream may be silent for as long as the server works on its answer.
    else this.deadline.set(BODY_STALL)
  }

  data(chunk: Uint8Array): void {
    if (this.sink !== undefined) return this.sink.data(chunk)
    this.chunks.push(chunk)
    this.heldBytes += chunk.length
    if (this.heldBytes > MAX_HELD) return this.refuse("NotMcp", `an answer of more than ${MAX_HELD} bytes`)
    if (this.isSettled) return
    if (this.splitter === undefined) return this.deadline.set(BODY_STALL)
    const frames = this.splitter.push(chunk)
    if (frames !== undefined) this.read(messages(frames))
  }

  end(): void {
    if (this.sink !== undefined) return this.sink.end()
    this.isEnded = true
    if (this.isSettled) return
    if (this.status >= 300) return this.settle(Effect.succeed(this))
    if (this.splitter === undefined) this.read(parseMessages(Buffer.concat(this.chunks)))
    if (!this.isSettled)
      this.refuse("NotMcp", `${this.status} ${mediaType(this.headers) ?? "without a body"}`)
  }

  error(error: UpstreamError): void {
    if (this.sink !== undefined) return this.sink.error(error)
    this.failure = error
    this.settle(Effect.fail(error))
  }

  expire(): void {
    this.refuse("Stalled")
  }

  release(sink: Sink): void {
    sink.head(this.status, this.headers, this.flow)
    for (const chunk of this.chunks) sink.data(chunk)
    this.chunks = []
    this.sink = sink
    if (this.failure !== undefined) sink.error(this.failure)
    else if (this.isEnded) sink.end()
  }

  finish(sink: Sink): void {
    this.release(sink)
    if (this.isEnded || this.failure !== undefined) return
    this.abort()
    sink.end()
  }

  /** The request is on its way; the sink may have heard all of the answer already. */
  sent(abort: Abort): void {
    this.abort = abort
    if (this.failure !== undefined) abort()
  }

  /** Nobody waits for the answer any more. */
  giveUp(): void {
    this.deadline.clear()
    this.abort()
  }

  /** The first response among these settles it; until one comes, more is awaited. */
  private read(messages: ReadonlyArray<Message>): void {
    const response = messages.find(({ method }) => method === undefined)
    if (response === undefined) return
    if (response.error !== undefined) return this.settle(Effect.succeed(this))
    if (!isInitializeResult(response.result)) return this.refuse("NotMcp", "a result without protocolVersion")
    this.result = response.result
    this.settle(Effect.succeed(this))
  }

  private refuse(reason: "NotMcp" | "Stalled", detail?: string): void {
    this.abort()
    this.error(new UpstreamError({ reason, upstream: this.upstream, detail }))
  }

  private settle(result: Effect.Effect<HeldAnswer, UpstreamError>): void {
    if (this.isSettled) return
    this.isSettled = true
    this.deadline.clear()
    this.resume(result)
  }
}
