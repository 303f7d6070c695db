/**
 * Who is told what a child says. Its messages come in one line after the other, and only responses say what they
 * belong to; each goes to exactly one answer (Transports, "Multiple Connections").
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
import { type PendingResponseOptions, PendingResponse } from "./PendingResponse.js"
import type { FlowGate } from "./FlowGate.js"
import { PendingMessages } from "./PendingMessages.js"

export class MessageRouter {
  /** The answers to POSTs, oldest first. */
  private readonly replies = new Set<PendingResponse>()
  /** The streams that the client has opened, oldest first. */
  private readonly streams = new Set<PendingResponse>()
  private readonly calls = new Map<RequestId, PendingResponse>()
  private readonly tokens = new Map<RequestId, PendingResponse>()
  private readonly waiting: PendingMessages

  constructor(
    private readonly gate: FlowGate,
    /** Tells the child that nobody can be asked what its request asks. */
    refuse: (id: RequestId) => void
  ) {
    this.waiting = new PendingMessages(refuse)
  }

  /** Whether a request with one of these ids is in flight already: its response could not be told apart. */
  hasIdConflict(body: Body): boolean {
    const ids = requestIds(body)
    return new Set(ids).size < ids.length || ids.some((id) => this.calls.has(id))
  }

  /** Waits for the responses to these requests. */
  addRequests(body: Body, how: Pick<PendingResponseOptions, "accepted" | "limit">, sink: Sink): Abort {
    const ids = requestIds(body)
    const asked: PendingResponseOptions = { ...how, ids, isBatch: body.isBatch }
    const reply = new PendingResponse(asked, sink, this.gate, (over) => this.forget(over))
    this.replies.add(reply)
    for (const id of ids) this.calls.set(id, reply)
    for (const token of progressTokens(body)) this.tokens.set(token, reply)
    reply.begin()
    if (reply.isOpen) for (const line of this.waiting.takeRequests()) reply.tell(line)
    return () => reply.abort()
  }

  /** Opens a stream for what belongs to no request. */
  openStream(sink: Sink): Abort {
    const accepted = { json: false, stream: true }
    const stream = new PendingResponse({ ids: [], isBatch: false, accepted }, sink, this.gate, (over) =>
      this.streams.delete(over)
    )
    this.streams.add(stream)
    stream.begin()
    for (const line of this.waiting.takeAll()) stream.tell(line)
    return () => stream.abort()
  }

  /** The child says something. False when it answers what nobody has asked. */
  route(message: Message, line: Buffer): boolean {
    if (message.method === undefined) return this.respond(message, line)
    const reply = this.addressee(message)
    if (reply === undefined) this.waiting.add(message, line)
    else reply.tell(line)
    return true
  }

  /** The child says nothing more. */
  fail(error: UpstreamError): void {
    for (const reply of [...this.replies, ...this.streams]) reply.fail(error)
  }

  private respond({ id }: Message, line: Buffer): boolean {
    const reply = id === undefined || id === null ? undefined : this.calls.get(id)
    if (reply === undefined || id === undefined || id === null) return false
    this.calls.delete(id)
    reply.respond(id, line)
    return true
  }

  /**
   * The answer that a message belongs to, as far as that can be told; else the newest stream. Without a stream, a
   * request goes to the oldest answer: two calls that wait for what they ask would otherwise wait for ever.
   */
  private addressee(message: Message): PendingResponse | undefined {
    const token = progressToken(message)
    const stream = Array.from(this.streams).at(-1)
    if (token !== undefined) {
      const reply = this.tokens.get(token)
      return reply?.isOpen === true ? reply : stream
    }
    const open = Array.from(this.replies).filter(({ isOpen }) => isOpen)
    if (open.length === 1 && this.replies.size === 1) return open[0]
    return stream ?? (message.id === undefined ? undefined : open[0])
  }

  private forget(reply: PendingResponse): void {
    this.replies.delete(reply)
    for (const id of reply.pending) this.calls.delete(id)
    for (const [token, owner] of this.tokens) if (owner === reply) this.tokens.delete(token)
  }
}
