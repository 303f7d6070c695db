/** Sends a request of the proxy itself and waits for its response. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { hasType, type Headers } from "../internal/headers.js"
import { EVENT_STREAM, FrameSplitter, messages } from "../Protocol/SseFrames.js"
import { type Message, parseMessages } from "../Protocol.js"
import { UpstreamError } from "../ProxyError.js"
import { type Abort, nothingToAbort, type Request, type Sink, type Upstream } from "../Upstream.js"

/** The upstream's answer to a request of the proxy itself. */
export interface Reply {
  readonly status: number
  /** The JSON-RPC response, if there was one. */
  readonly response: Message | undefined
  /** The body; empty for an event stream. */
  readonly body: Uint8Array
}

/** The maximum time of a request. */
const TIMEOUT = Duration.seconds(10)

/** The maximum size of an answer, in bytes. */
const MAX_ANSWER = 4 * 1024 * 1024

/** Returns the POST that carries a message of the proxy itself, with additional header fields. */
export const requestFor = (message: Message, headers: Headers): Request => ({
  method: "POST",
  headers: {
    ...headers,
    "content-type": "application/json",
    accept: "application/json, text/event-stream"
  },
  bytes: Buffer.from(JSON.stringify(message)),
  body: { isBatch: false, messages: [message] }
})

/**
 * Sends a message and waits for its response, or for the end of an answer without one. Fails with `Stalled` after 10 s.
 * An interruption aborts the exchange.
 */
export const request = (
  upstream: Upstream,
  message: Message,
  headers: Headers
): Effect.Effect<Reply, UpstreamError> =>
  Effect.async<Reply, UpstreamError>((resume) => {
    const reader = new ReplyReader(message, resume)
    reader.sent(upstream.exchange(requestFor(message, headers), reader))
    return Effect.sync(() => reader.abort())
  }).pipe(
    Effect.timeoutFail({
      duration: TIMEOUT,
      onTimeout: () => new UpstreamError({ reason: "Stalled", upstream: upstream.name })
    })
  )

class ReplyReader implements Sink {
  private status = 0
  private splitter: FrameSplitter | undefined
  private chunks: Array<Uint8Array> = []
  private length = 0
  private isOver = false
  private abortExchange: Abort = nothingToAbort

  constructor(
    private readonly message: Message,
    private readonly resume: (result: Effect.Effect<Reply, UpstreamError>) => void
  ) {}

  head(status: number, headers: Headers): void {
    this.status = status
    if (hasType(headers, EVENT_STREAM)) this.splitter = new FrameSplitter()
  }

  data(chunk: Uint8Array): void {
    if (this.isOver) return
    this.length += chunk.length
    if (this.length > MAX_ANSWER) return this.settle(undefined)
    if (this.splitter === undefined) return void this.chunks.push(chunk)
    const frames = this.splitter.push(chunk)
    const response = frames === undefined ? undefined : this.find(messages(frames))
    if (response !== undefined) this.settle(response)
  }

  end(): void {
    if (this.isOver) return
    const body = Buffer.concat(this.chunks)
    this.settle(this.find(parseMessages(body)), body)
  }

  error(error: UpstreamError): void {
    this.isOver = true
    this.resume(Effect.fail(error))
  }

  /** Notes how to abort the exchange, which may be over already. */
  sent(abort: Abort): void {
    this.abortExchange = abort
    if (this.isOver) abort()
  }

  abort(): void {
    this.isOver = true
    this.abortExchange()
  }

  /** Finds the response to the request. An error response may have no id. */
  private find(all: ReadonlyArray<Message>): Message | undefined {
    return all.find(({ id, method }) => method === undefined && (id === this.message.id || id == null))
  }

  private settle(response: Message | undefined, body: Uint8Array = new Uint8Array()): void {
    this.abort()
    this.resume(Effect.succeed({ status: this.status, response, body }))
  }
}
