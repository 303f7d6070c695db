/**
 * Assigns the messages of a child to HTTP responses. A child writes all messages to one pipe, and only JSON-RPC
 * responses name the request that they belong to. Each message goes to exactly one HTTP response (2025-11-25,
 * Transports, "Multiple Connections").
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
import { PendingResponse, type PendingResponseOptions } from "./PendingResponse.js"

export class MessageRouter {
  /** The responses to POST requests, oldest first. */
  private readonly responses = new Set<PendingResponse>()
  /** The responses to GET requests, oldest first. */
  private readonly streams = new Set<PendingResponse>()
  private readonly byRequestId = new Map<RequestId, PendingResponse>()
  private readonly byProgressToken = new Map<RequestId, PendingResponse>()
  private readonly pendingMessages: PendingMessages

  constructor(
    private readonly gate: FlowGate,
    /** Sends the child an error response to a request that no client can receive. */
    rejectRequest: (id: RequestId) => void
  ) {
    this.pendingMessages = new PendingMessages(rejectRequest)
  }

  /** True if one of the request ids occurs twice or is in flight, because responses would be ambiguous. */
  hasIdConflict(body: Body): boolean {
    const ids = requestIds(body)
    return new Set(ids).size < ids.length || ids.some((id) => this.byRequestId.has(id))
  }

  /** Waits for the child's responses to the requests of a POST. */
  addRequests(body: Body, options: Pick<PendingResponseOptions, "accepted" | "timeout">, sink: Sink): Abort {
    const ids = requestIds(body)
    const response: PendingResponse = new PendingResponse(
      { ...options, ids, isBatch: body.isBatch },
      sink,
      this.gate,
      () => this.remove(response)
    )
    this.responses.add(response)
    for (const id of ids) this.byRequestId.set(id, response)
    for (const token of progressTokens(body)) this.byProgressToken.set(token, response)
    response.start()
    if (response.isStreamable) {
      for (const line of this.pendingMessages.takeRequests()) response.addMessage(line)
    }
    return () => response.abort()
  }

  /** Opens a standalone stream, which receives messages that belong to no request. */
  openStream(sink: Sink): Abort {
    const options = { ids: [], isBatch: false, accepted: { json: false, stream: true } }
    const stream: PendingResponse = new PendingResponse(options, sink, this.gate, () =>
      this.streams.delete(stream)
    )
    this.streams.add(stream)
    stream.start()
    for (const line of this.pendingMessages.takeAll()) stream.addMessage(line)
    return () => stream.abort()
  }

  /** Routes a message of the child. False if it is a response whose request is not in flight. */
  route(message: Message, line: Buffer): boolean {
    if (message.method === undefined) return this.routeResponse(message, line)
    const target = this.targetOf(message)
    if (target === undefined) this.pendingMessages.add(message, line)
    else target.addMessage(line)
    return true
  }

  /** Ends all HTTP responses, because the child has ended. */
  fail(error: UpstreamError): void {
    for (const response of [...this.responses, ...this.streams]) response.fail(error)
  }

  private routeResponse({ id }: Message, line: Buffer): boolean {
    if (id === undefined || id === null) return false
    const response = this.byRequestId.get(id)
    if (response === undefined) return false
    this.byRequestId.delete(id)
    response.addResponse(id, line)
    return true
  }

  /**
   * The HTTP response for a request or notification of the child: the one with the progress token, or else the only one
   * in flight, or else the newest stream. Without a stream, a request goes to the oldest response. Otherwise two calls
   * that both wait for a request of the child would never end.
   */
  private targetOf(message: Message): PendingResponse | undefined {
    const token = progressToken(message)
    const stream = Array.from(this.streams).at(-1)
    if (token !== undefined) {
      const response = this.byProgressToken.get(token)
      return response?.isStreamable === true ? response : stream
    }
    const streamable = Array.from(this.responses).filter(({ isStreamable }) => isStreamable)
    if (streamable.length === 1 && this.responses.size === 1) return streamable[0]
    return stream ?? (message.id === undefined ? undefined : streamable[0])
  }

  private remove(response: PendingResponse): void {
    this.responses.delete(response)
    for (const id of response.unansweredIds) this.byRequestId.delete(id)
    for (const [token, owner] of this.byProgressToken) {
      if (owner === response) this.byProgressToken.delete(token)
    }
  }
}
