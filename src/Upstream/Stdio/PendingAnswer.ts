/** The answer to one POST or GET, built from the child's messages: a JSON body or an event stream. */
import type { AcceptedTypes } from "../../Protocol/Accept.js"
import { EVENT_STREAM, frame } from "../../Protocol/SseFrames.js"
import type { RequestId } from "../../Protocol.js"
import type { UpstreamError } from "../../ProxyError.js"
import { type Flow, type Sink } from "../../Upstream.js"
import type { FlowGate } from "./FlowGate.js"

export interface PendingAnswerOptions {
  /** The ids of the requests in the POST. Empty for a standalone stream. */
  readonly ids: ReadonlyArray<RequestId>
  readonly isBatch: boolean
  readonly accepted: AcceptedTypes
  /** The time limit of `initialize`. An answer with a time limit does not become a stream after `STREAM_DELAY`. */
  readonly timeout?: { readonly millis: number; readonly error: UpstreamError }
}

/** The time after which an answer becomes a stream, in milliseconds. A client cannot resume a JSON body. */
const STREAM_DELAY = 1_000

type State =
  /** The head is not sent. JSON-RPC responses are collected in the order in which the child writes them. */
  | { readonly type: "buffering"; readonly responses: Array<Buffer> }
  /** The head of an event stream is sent. */
  | { readonly type: "streaming" }
  /** The answer has ended, failed or was aborted. */
  | { readonly type: "done" }

export class PendingAnswer implements Flow {
  /** True, because all answers of a child share one pipe. */
  readonly isShared = true
  private readonly unanswered: Set<RequestId>
  private state: State = { type: "buffering", responses: [] }
  private timeoutTimer: NodeJS.Timeout | undefined
  private streamTimer: NodeJS.Timeout | undefined

  constructor(
    private readonly options: PendingAnswerOptions,
    private readonly sink: Sink,
    private readonly gate: FlowGate,
    /** Called once, when the answer is done. */
    private readonly onDone: () => void
  ) {
    this.unanswered = new Set(options.ids)
  }

  /** The ids of the requests without a response. */
  get unansweredIds(): ReadonlySet<RequestId> {
    return this.unanswered
  }

  /** True if the answer is a stream or can become one, so that it can carry requests and notifications. */
  get isStreamable(): boolean {
    const { type } = this.state
    return type === "streaming" || (type === "buffering" && this.options.accepted.stream)
  }

  /** Starts the timers, or a stream if the client accepts no JSON. */
  start(): void {
    const { accepted, ids, timeout } = this.options
    if (timeout !== undefined) {
      this.timeoutTimer = setTimeout(() => this.fail(timeout.error), timeout.millis)
    }
    if (ids.length === 0 || !accepted.json) this.startStream()
    else if (accepted.stream && timeout === undefined) {
      this.streamTimer = setTimeout(() => this.startStream(), STREAM_DELAY)
    }
  }

  /** Adds the JSON-RPC response to one of the requests. The last one ends the answer. */
  addResponse(id: RequestId, line: Buffer): void {
    const { state } = this
    this.unanswered.delete(id)
    if (state.type === "buffering") {
      state.responses.push(line)
      if (this.unanswered.size === 0) this.sendJson(state.responses)
    } else this.sink.data(frame(line))
    if (this.unanswered.size > 0) return
    this.finish()
    this.sink.end()
  }

  /** Adds a request or notification of the child. The answer becomes a stream. */
  addMessage(line: Buffer): void {
    this.startStream()
    // The sink may abort the answer when it receives the head.
    if (this.state.type === "streaming") this.sink.data(frame(line))
  }

  /** Fails the answer with an error, or ends a standalone stream. */
  fail(error: UpstreamError): void {
    if (this.state.type === "done") return
    this.finish()
    // A standalone stream has no request that the error could answer.
    if (this.options.ids.length === 0) this.sink.end()
    else this.sink.error(error)
  }

  /** Stops the answer. The sink is not called again. */
  abort(): void {
    if (this.state.type !== "done") this.finish()
  }

  pause(): void {
    if (this.state.type !== "done") this.gate.pause(this)
  }

  unpause(): void {
    this.gate.unpause(this)
  }

  private startStream(): void {
    const { state } = this
    if (state.type !== "buffering") return
    this.state = { type: "streaming" }
    clearTimeout(this.streamTimer)
    this.sink.head(200, { "content-type": EVENT_STREAM }, this)
    for (const response of state.responses) this.sink.data(frame(response))
  }

  private sendJson(responses: ReadonlyArray<Buffer>): void {
    const json = this.options.isBatch ? toBatch(responses) : Buffer.concat(responses)
    this.sink.head(200, { "content-type": "application/json", "content-length": String(json.length) }, this)
    this.sink.data(json)
  }

  private finish(): void {
    this.state = { type: "done" }
    clearTimeout(this.timeoutTimer)
    clearTimeout(this.streamTimer)
    this.gate.unpause(this)
    this.onDone()
  }
}

const toBatch = (responses: ReadonlyArray<Buffer>): Buffer =>
  Buffer.concat([
    Buffer.from("["),
    ...responses.flatMap((response, index) => (index === 0 ? [response] : [Buffer.from(","), response])),
    Buffer.from("]")
  ])
