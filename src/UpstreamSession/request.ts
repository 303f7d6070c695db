/** A message of the proxy's own, and what comes of it. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { hasType, type Headers } from "../internal/headers.js"
import { EVENT_STREAM, FrameSplitter, messages } from "../Protocol/SseFrames.js"
import { type Message, parseMessages } from "../Protocol.js"
import { UpstreamError } from "../ProxyError.js"
import type { Abort, Lease, Sink } from "../Upstream.js"

export interface Reply {
  readonly status: number
  /** The JSON-RPC response, if there was one. */
  readonly response: Message | undefined
  /** What came, where it is no stream. */
  readonly body: Uint8Array
}

/** How long the upstream may take. */
const PATIENCE = Duration.seconds(10)

/** How much of an answer is looked at, in bytes. */
const MAX_ANSWER = 4 * 1024 * 1024

/** Sends a message and waits for its response, or for the end of an answer without one; for 10 s at most. */
export const request = (lease: Lease, message: Message): Effect.Effect<Reply, UpstreamError> =>
  Effect.async<Reply, UpstreamError>((resume) => {
    const listening = new Listening(message, resume)
    listening.sent(lease.send(message, listening))
    return Effect.sync(() => listening.giveUp())
  }).pipe(
    Effect.timeoutFail({
      duration: PATIENCE,
      onTimeout: () => new UpstreamError({ reason: "Stalled", upstream: lease.name })
    })
  )

class Listening implements Sink {
  private status = 0
  private splitter: FrameSplitter | undefined
  private chunks: Array<Uint8Array> = []
  private bytes = 0
  private isOver = false
  private abort: Abort = () => {}

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
    this.bytes += chunk.length
    if (this.bytes > MAX_ANSWER) return this.settle(undefined)
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

  sent(abort: Abort): void {
    this.abort = abort
    if (this.isOver) abort()
  }

  giveUp(): void {
    this.isOver = true
    this.abort()
  }

  /** An error may name no request. */
  private find(all: ReadonlyArray<Message>): Message | undefined {
    return all.find(({ id, method }) => method === undefined && (id === this.message.id || id == null))
  }

  private settle(response: Message | undefined, body: Uint8Array = new Uint8Array()): void {
    this.giveUp()
    this.resume(Effect.succeed({ status: this.status, response, body }))
  }
}
