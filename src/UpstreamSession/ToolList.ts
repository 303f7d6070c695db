/** Stores a digest of the server's tools and compares it with the tools of another session. */
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import { hasProperty } from "effect/Predicate"
import type { Headers } from "../internal/headers.js"
import { MessageDecorator } from "../Interceptor/MessageDecorator.js"
import type { Body, Message } from "../Protocol.js"
import type { Lease, Sink } from "../Upstream.js"
import { request } from "./request.js"

const METHOD = "tools/list"

export class ToolList {
  private digest: string | undefined

  /** Wraps the sink of a request for the first page of the list. Returns other sinks unchanged. */
  observe(body: Body | undefined, sink: Sink): Sink {
    const message = body?.messages[0]
    if (message?.method !== METHOD || hasCursor(message)) return sink
    return new ToolListReader(sink, (digest) => {
      this.digest = digest
    })
  }

  /** Succeeds with true if a new session has other tools, or if the tools cannot be compared. */
  differs(lease: Lease, headers: Headers): Effect.Effect<boolean> {
    if (this.digest === undefined) return Effect.succeed(true)
    return request(lease, { jsonrpc: "2.0", id: `shadowcat/${METHOD}`, method: METHOD }, headers).pipe(
      Effect.map(({ response }) => response === undefined || digestOf(response) !== this.digest),
      Effect.orElseSucceed(() => true)
    )
  }
}

class ToolListReader extends MessageDecorator {
  constructor(
    next: Sink,
    private readonly found: (digest: string) => void
  ) {
    super(next)
  }

  protected override message(message: Message): void {
    const digest = digestOf(message)
    if (digest !== undefined) this.found(digest)
  }
}

const hasCursor = ({ params }: Message): boolean => hasProperty(params, "cursor")

const digestOf = ({ method, result }: Message): string | undefined =>
  method === undefined && hasProperty(result, "tools")
    ? createHash("sha256").update(JSON.stringify(result.tools)).digest("base64url")
    : undefined
