/**
 * Assigns the messages of a child to answers. A child writes all messages to one pipe, and only JSON-RPC responses name
 * the request that they belong to. Each message goes to exactly one answer (2025-11-25, Transports, "Multiple
 * Connections").
 */
import {
  type Body,
  type Message,
  progressToken,
  progressTokens,
  type RequestId,
  requestIds
} from "../../Protocol.js"
import type { UpstreamError } from "../../ProxyError.js"
import type { Abort, Sink } from "../../Upstream.js"
import type { FlowGate } from "./FlowGate.js"
import { PendingMessages } from "./PendingMessages.js"
import { PendingAnswer, type PendingAnswerOptions } from "./PendingAnswer.js"

export class MessageRouter {
  /** The answers to POSTs, oldest first. */
  private readonly answers = new Set<PendingAnswer>()
  /** The answers to GETs, oldest first. */
  private readonly streams = new Set<PendingAnswer>()
  private readonly byRequestId = new Map<RequestId, PendingAnswer>()
  private readonly byProgressToken = new Map<RequestId, PendingAnswer>()
  private readonly pendingMessages: PendingMessages

  constructor(
    private readonly gate: FlowGate,
    /** Sends the child an error response to a request that no client can receive. */
    rejectRequest: (id: RequestId) => void
  ) {
    this.pendingMessages = new PendingMessages(rejectRequest)
  }

  /** True if a request id occurs twice or is in flight. Responses would then be ambiguous. */
  hasIdConflict(body: Body): boolean {
    const ids = requestIds(body)
    return new Set(ids).size < ids.length || ids.some((id) => this.byRequestId.has(id))
  }

  /** Adds an answer for the child's responses to the requests of a POST. */
  addRequests(body: Body, options: Pick<PendingAnswerOptions, "accepted" | "timeout">, sink: Sink): Abort {
    const ids = requestIds(body)
    const answer: PendingAnswer = new PendingAnswer(
      { ...options, ids, isBatch: body.isBatch },
      sink,
      this.gate,
      () => this.remove(answer)
    )
    this.answers.add(answer)
    for (const id of ids) this.byRequestId.set(id, answer)
    for (const token of progressTokens(body)) this.byProgressToken.set(token, answer)
    answer.start()
    if (answer.isStreamable) {
      for (const line of this.pendingMessages.takeRequests()) answer.addMessage(line)
    }
    return () => answer.abort()
  }

  /** Opens a standalone stream, which receives messages that belong to no request. */
  openStream(sink: Sink): Abort {
    const options = { ids: [], isBatch: false, accepted: { json: false, stream: true } }
    const stream: PendingAnswer = new PendingAnswer(options, sink, this.gate, () =>
      this.streams.delete(stream)
    )
    this.streams.add(stream)
    stream.start()
    for (const line of this.pendingMessages.takeAll()) stream.addMessage(line)
    return () => stream.abort()
  }

  /** Routes a message of the child. Returns false for a response whose request is not in flight. */
  route(message: Message, line: Buffer): boolean {
    if (message.method === undefined) return this.routeResponse(message, line)
    const target = this.targetOf(message)
    if (target === undefined) this.pendingMessages.add(message, line)
    else target.addMessage(line)
    return true
  }

  /** Fails all answers, because the child has ended. */
  fail(error: UpstreamError): void {
    for (const answer of [...this.answers, ...this.streams]) answer.fail(error)
  }

  private routeResponse({ id }: Message, line: Buffer): boolean {
    if (id === undefined || id === null) return false
    const answer = this.byRequestId.get(id)
    if (answer === undefined) return false
    this.byRequestId.delete(id)
    answer.addResponse(id, line)
    return true
  }

  /**
   * Returns the answer for a request or notification of the child: the one with the progress token, or else the only
   * one in flight, or else the newest stream. Without a stream, a request goes to the oldest answer, because two calls
   * that both wait for a request of the child would otherwise never end.
   */
  private targetOf(message: Message): PendingAnswer | undefined {
    const token = progressToken(message)
    const stream = Array.from(this.streams).at(-1)
    if (token !== undefined) {
      const answer = this.byProgressToken.get(token)
      return answer?.isStreamable === true ? answer : stream
    }
    const streamable = Array.from(this.answers).filter(({ isStreamable }) => isStreamable)
    if (streamable.length === 1 && this.answers.size === 1) return streamable[0]
    return stream ?? (message.id === undefined ? undefined : streamable[0])
  }

  private remove(answer: PendingAnswer): void {
    this.answers.delete(answer)
    for (const id of answer.unansweredIds) this.byRequestId.delete(id)
    for (const [token, owner] of this.byProgressToken) {
      if (owner === answer) this.byProgressToken.delete(token)
    }
  }
}
