/** A decorator of answers that reads messages, not bytes. */
import { asBuffer } from "../internal/bytes.js"
import { type Headers, isReadable } from "../internal/headers.js"
import { EVENT_STREAM, FrameSplitter, messages } from "../Protocol/SseFrames.js"
import { type Message, parseMessages } from "../Protocol.js"
import type { Flow, StreamPart } from "../Upstream.js"
import { SinkDecorator } from "../Upstream/SinkDecorator.js"

/** The longest JSON answer that is decoded, in bytes. */
const MAX_JSON = 4 * 1024 * 1024

/**
 * Forwards an answer unchanged and calls `message` with each JSON-RPC message in it. It does so before it forwards the
 * event that holds the message, or the end of a JSON answer. It does not decode a JSON answer of more than 4 MiB, an event
 * that passes in pieces, or a compressed answer. To change an answer, override `data` of a `SinkDecorator`.
 */
export abstract class MessageDecorator extends SinkDecorator {
  private decoder: JsonBody | EventStream | undefined

  protected abstract message(message: Message): void

  override head(status: number, headers: Headers, flow: Flow): void {
    if (isReadable(headers, EVENT_STREAM)) this.decoder = new EventStream()
    else if (isReadable(headers, "application/json")) this.decoder = new JsonBody()
    super.head(status, headers, flow)
  }

  override data(chunk: Uint8Array, part?: StreamPart): void {
    for (const message of this.decoder?.push(chunk, part) ?? []) this.message(message)
    super.data(chunk, part)
  }

  override end(): void {
    for (const message of this.decoder?.end() ?? []) this.message(message)
    super.end()
  }
}

const none: ReadonlyArray<Message> = []

class JsonBody {
  private chunks: Array<Uint8Array> = []
  private length = 0

  push(chunk: Uint8Array): ReadonlyArray<Message> {
    this.length += chunk.length
    if (this.length <= MAX_JSON) this.chunks.push(chunk)
    else this.chunks = []
    return none
  }

  end(): ReadonlyArray<Message> {
    return this.length <= MAX_JSON ? parseMessages(Buffer.concat(this.chunks)) : none
  }
}

class EventStream {
  private readonly splitter = new FrameSplitter()

  push(chunk: Uint8Array, part: StreamPart | undefined): ReadonlyArray<Message> {
    if (part === undefined) {
      const frames = this.splitter.push(chunk)
      return frames === undefined ? none : messages(frames)
    }
    return part.type === "event" ? messages(asBuffer(chunk)) : none
  }

  end(): ReadonlyArray<Message> {
    return none
  }
}
