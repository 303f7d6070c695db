/** Writes what an upstream answers to a client that reads lines: each message is one. */
import { createParser, type EventSourceParser } from "eventsource-parser"
import type { ClientResponse } from "../ClientResponse.js"
import { hasType, type Headers } from "../internal/headers.js"
import { lineOf } from "../internal/lines.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import { type Message, parseMessages, type RequestId } from "../Protocol.js"
import { type ProxyError, toJsonRpc, UpstreamError } from "../ProxyError.js"
import type { Flow } from "../Upstream.js"

/** Where lines go. Flows are stopped while it takes no more. */
export interface LineWriter {
  readonly write: (line: Buffer, flow?: Flow) => void
}

export class StdioResponse implements ClientResponse {
  private status = 0
  private flow: Flow | undefined
  private readonly chunks: Array<Uint8Array> = []
  private readonly decoder = new TextDecoder()
  private events: EventSourceParser | undefined

  constructor(
    /** The upstream's name. */
    private readonly upstream: string,
    private readonly output: LineWriter,
    /** The requests that the client waits for. */
    private pending: ReadonlyArray<RequestId>,
    /** Called last. */
    private readonly done: () => void
  ) {}

  /** The requests that have not been answered yet. */
  get awaited(): ReadonlyArray<RequestId> {
    return this.pending
  }

  head(status: number, headers: Headers, flow: Flow): void {
    this.status = status
    this.flow = flow
    if (hasType(headers, EVENT_STREAM)) {
      this.events = createParser({ onEvent: ({ data }) => this.pass(Buffer.from(data)) })
    }
  }

  data(chunk: Uint8Array): void {
    if (this.events === undefined) this.chunks.push(chunk)
    else this.events.feed(this.decoder.decode(chunk, { stream: true }))
  }

  end(flushed?: () => void): void {
    const body = Buffer.concat(this.chunks)
    if (this.status < 400) this.pass(body)
    const [refusal] = parseMessages(body)
    for (const id of this.pending) this.refuse(id, refusal?.error)
    this.pending = []
    flushed?.()
  }

  error(error: ProxyError): void {
    for (const id of this.pending) this.line(toJsonRpc(error, id))
    this.pending = []
  }

  settled(): void {
    this.done()
  }

  private pass(json: Buffer): void {
    const messages = parseMessages(json)
    if (messages.length === 0) return
    const answered = messages.filter(({ method }) => method === undefined).map(({ id }) => id)
    this.pending = this.pending.filter((id) => !answered.includes(id))
    this.line(json)
  }

  /** An error of HTTP says nothing of the requests in the body: each is told what it was. */
  private refuse(id: RequestId, error: unknown): void {
    if (error !== undefined) {
      const response: Message = { jsonrpc: "2.0", id, error }
      return this.line(JSON.stringify(response))
    }
    const { upstream } = this
    const reason =
      this.status < 400
        ? new UpstreamError({ reason: "NoResponse", upstream })
        : new UpstreamError({ reason: "HttpError", upstream, detail: String(this.status) })
    this.line(toJsonRpc(reason, id))
  }

  private line(json: Buffer | string): void {
    this.output.write(lineOf(json), this.flow)
  }
}
