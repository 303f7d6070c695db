/** Writes the response to a client that reads lines, one message per line. */
import { createParser, type EventSourceParser } from "eventsource-parser"
import type { ClientResponse } from "../ClientResponse.js"
import { hasType, type Headers } from "../internal/headers.js"
import { lineOf } from "../internal/lines.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import { type Message, parseMessages, type RequestId } from "../Protocol.js"
import { type ProxyError, toJsonRpc, UpstreamError } from "../ProxyError.js"
import type { Flow } from "../Upstream.js"

/** Writes lines to the client. Pauses the flow of a line while the client does not read. */
export interface LineWriter {
  readonly write: (line: Buffer, flow?: Flow) => void
}

export class StdioResponse implements ClientResponse {
  private status = 0
  private flow: Flow | undefined
  private readonly chunks: Array<Uint8Array> = []
  private readonly decoder = new TextDecoder()
  /** The parser of an event stream; `undefined` for other bodies. */
  private events: EventSourceParser | undefined

  constructor(
    /** The name of the upstream. */
    private readonly upstream: string,
    private readonly output: LineWriter,
    private pending: ReadonlyArray<RequestId>,
    /** Called once, after the last line. */
    private readonly onSettled: () => void
  ) {}

  /** The ids of the requests without a response. */
  get pendingIds(): ReadonlyArray<RequestId> {
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
    const [message] = parseMessages(body)
    for (const id of this.pending) this.fail(id, message?.error)
    this.pending = []
    flushed?.()
  }

  error(error: ProxyError): void {
    for (const id of this.pending) this.write(toJsonRpc(error, id))
    this.pending = []
  }

  settled(): void {
    this.onSettled()
  }

  private pass(json: Buffer): void {
    const messages = parseMessages(json)
    if (messages.length === 0) return
    const answered = messages.filter(({ method }) => method === undefined).map(({ id }) => id)
    this.pending = this.pending.filter((id) => !answered.includes(id))
    this.write(json)
  }

  /** Fails one request. An error in the body gets the id of the request, because the body may have another id. */
  private fail(id: RequestId, error: unknown): void {
    if (error !== undefined) {
      const response: Message = { jsonrpc: "2.0", id, error }
      return this.write(JSON.stringify(response))
    }
    const { upstream } = this
    const reason =
      this.status < 400
        ? new UpstreamError({ reason: "NoResponse", upstream })
        : new UpstreamError({ reason: "HttpError", upstream, detail: String(this.status) })
    this.write(toJsonRpc(reason, id))
  }

  private write(json: Buffer | string): void {
    this.output.write(lineOf(json), this.flow)
  }
}
