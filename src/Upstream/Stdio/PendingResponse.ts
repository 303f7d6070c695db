/** The answer to one POST or GET, made of what the child says: JSON, or a stream of server-sent events. */
import type { AcceptedTypes } from "../../Protocol/Accept.js"
import { EVENT_STREAM, frame } from "../../Protocol/SseFrames.js"
import type { RequestId } from "../../Protocol.js"
import type { UpstreamError } from "../../ProxyError.js"
import { type Flow, type Sink } from "../../Upstream.js"
import type { FlowGate } from "./FlowGate.js"

/** What a client waits for in one POST. */
export interface PendingResponseOptions {
  /** The requests; none for a stream that the client opens. */
  readonly ids: ReadonlyArray<RequestId>
  readonly isBatch: boolean
  readonly accepted: AcceptedTypes
  /** What an `initialize` fails with when it is not answered in time; it does not become a stream in time either. */
  readonly timeout?: { readonly millis: number; readonly error: UpstreamError }
}

/** After so many milliseconds an answer becomes a stream: a client could not resume a long one otherwise. */
const JSON_PATIENCE = 1_000

export class PendingResponse implements Flow {
  /** A child says everything on one stream. */
  readonly isShared = true
  private readonly unanswered: Set<RequestId>
  private readonly responses: Array<Buffer> = []
  private isStream = false
  private isOver = false
  private timer: NodeJS.Timeout | undefined

  constructor(
    private readonly asked: PendingResponseOptions,
    private readonly sink: Sink,
    private readonly valve: FlowGate,
    /** Called once, when nothing more is to come. */
    private readonly over: (reply: PendingResponse) => void
  ) {
    this.unanswered = new Set(asked.ids)
  }

  /** The requests that the child has not answered. */
  get pending(): ReadonlySet<RequestId> {
    return this.unanswered
  }

  /** Whether it can carry more than responses. */
  get isOpen(): boolean {
    return !this.isOver && (this.isStream || this.asked.accepted.stream)
  }

  /** Begins to wait, or to stream where the client would not take anything else. */
  begin(): void {
    const { accepted, ids, timeout } = this.asked
    if (timeout !== undefined) this.timer = setTimeout(() => this.fail(timeout.error), timeout.millis)
    if (ids.length === 0 || !accepted.json) this.stream()
    else if (accepted.stream) this.timer ??= setTimeout(() => this.stream(), JSON_PATIENCE)
  }

  /** The response to one of its requests. */
  respond(id: RequestId, line: Buffer): void {
    this.unanswered.delete(id)
    if (this.isStream) this.sink.data(frame(line))
    else this.responses.push(line)
    if (this.unanswered.size > 0) return
    if (!this.isStream) this.answer()
    this.settle()
    this.sink.end()
  }

  /** Something else that the child says meanwhile. */
  tell(line: Buffer): void {
    this.stream()
    // Whoever was told the head may have given up at once.
    if (!this.isOver) this.sink.data(frame(line))
  }

  /** There will be no more answers. */
  fail(error: UpstreamError): void {
    if (this.isOver) return
    this.settle()
    // A stream without requests has nobody who waits for an answer.
    if (this.asked.ids.length === 0) this.sink.end()
    else this.sink.error(error)
  }

  /** Nobody listens any more. */
  abort(): void {
    if (!this.isOver) this.settle()
  }

  pause(): void {
    if (!this.isOver) this.valve.pause(this)
  }

  unpause(): void {
    this.valve.unpause(this)
  }

  private stream(): void {
    if (this.isStream || this.isOver) return
    this.isStream = true
    if (this.asked.timeout === undefined) clearTimeout(this.timer)
    this.sink.head(200, { "content-type": EVENT_STREAM }, this)
    for (const response of this.responses) this.sink.data(frame(response))
  }

  private answer(): void {
    const json = this.asked.isBatch ? batch(this.responses) : Buffer.concat(this.responses)
    this.sink.head(200, { "content-type": "application/json", "content-length": String(json.length) }, this)
    this.sink.data(json)
  }

  private settle(): void {
    this.isOver = true
    clearTimeout(this.timer)
    this.valve.unpause(this)
    this.over(this)
  }
}

const batch = (responses: ReadonlyArray<Buffer>): Buffer =>
  Buffer.concat([
    Buffer.from("["),
    ...responses.flatMap((response, index) => (index === 0 ? [response] : [Buffer.from(","), response])),
    Buffer.from("]")
  ])
