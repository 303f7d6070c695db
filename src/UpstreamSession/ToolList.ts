/** What the server's tools were when the client last listed them, to see whether another session has others. */
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import { hasProperty } from "effect/Predicate"
import { hasType, type Headers } from "../internal/headers.js"
import { EVENT_STREAM, messages } from "../Protocol/SseFrames.js"
import { request } from "./request.js"
import { type Body, type Message, parseMessages } from "../Protocol.js"
import type { UpstreamError } from "../ProxyError.js"
import type { Flow, Lease, Sink } from "../Upstream.js"

const METHOD = "tools/list"

/** A longer list is not looked at, in bytes. */
const MAX_LIST = 1024 * 1024

export class ToolList {
  private digest: string | undefined

  /** Looks at the answer to the first page of a list; every other answer is left alone. */
  tap(body: Body | undefined, sink: Sink): Sink {
    const message = body?.messages[0]
    if (message?.method !== METHOD || hasCursor(message)) return sink
    return new Tap(sink, (found) => {
      this.digest = digestOf(found)
    })
  }

  /** Whether a new session has other tools, as far as can be told. */
  differ(lease: Lease): Effect.Effect<boolean> {
    if (this.digest === undefined) return Effect.succeed(true)
    return request(lease, { jsonrpc: "2.0", id: `shadowcat/${METHOD}`, method: METHOD }).pipe(
      Effect.map(({ response }) => digestOf(response === undefined ? [] : [response]) !== this.digest),
      Effect.orElseSucceed(() => true)
    )
  }
}

class Tap implements Sink {
  private readonly chunks: Array<Uint8Array> = []
  private bytes = 0
  private isStream = false

  constructor(
    private readonly sink: Sink,
    private readonly found: (messages: ReadonlyArray<Message>) => void
  ) {}

  head(status: number, headers: Headers, flow: Flow): void {
    this.isStream = hasType(headers, EVENT_STREAM)
    this.sink.head(status, headers, flow)
  }

  data(chunk: Uint8Array): void {
    this.bytes += chunk.length
    if (this.bytes <= MAX_LIST) this.chunks.push(chunk)
    this.sink.data(chunk)
  }

  end(): void {
    const all = Buffer.concat(this.chunks)
    if (this.bytes <= MAX_LIST) this.found(this.isStream ? messages(all) : parseMessages(all))
    this.sink.end()
  }

  error(error: UpstreamError): void {
    this.sink.error(error)
  }
}

const hasCursor = ({ params }: Message): boolean => hasProperty(params, "cursor")

const digestOf = (messages: ReadonlyArray<Message>): string | undefined => {
  const result = messages.find(({ method, result }) => method === undefined && result !== undefined)?.result
  return hasProperty(result, "tools")
    ? createHash("sha256").update(JSON.stringify(result.tools)).digest("base64url")
    : undefined
}
