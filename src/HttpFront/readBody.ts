/** Reads the body of a request, with limits on its size and time. */
import type { IncomingMessage } from "node:http"
import { BadRequest, type LimitReached } from "../ProxyError.js"
import type { Deadline, Deadlines, Expirable } from "../internal/deadlines.js"

export interface BodyLimits {
  /** The maximum size of a body, in bytes. */
  readonly maxBody: number
  /** The maximum time without data, in milliseconds. */
  readonly stallTimeout: number
  readonly deadlines: Deadlines
}

/** The response to the request whose body is read. */
export interface BodyReceiver {
  /** Reserves memory for more bytes of the body. Returns an error if the budget is exhausted. */
  readonly reserve: (bytes: number) => LimitReached | undefined
  readonly error: (error: BadRequest | LimitReached) => void
}

/** Calls `done` with the body, or `error` of the receiver. Returns a function that stops reading. */
export const readBody = (
  request: IncomingMessage,
  limits: BodyLimits,
  receiver: BodyReceiver,
  done: (bytes: Buffer) => void
): (() => void) => {
  if (Number(request.headers["content-length"]) > limits.maxBody) {
    receiver.error(new BadRequest({ reason: "TooLarge" }))
    return () => {}
  }
  const body = new BodyReader(limits, receiver, done)
  request.on("data", (chunk: Buffer) => body.take(chunk)).on("end", () => body.end())
  return () => body.stop()
}

/** The number of chunks that are merged into one, because each chunk has an overhead of about 200 bytes. */
const MERGED = 256

class BodyReader implements Expirable {
  private chunks: Array<Buffer> = []
  private readonly deadline: Deadline
  private merged = 0
  private length = 0
  private isStopped = false

  constructor(
    private readonly limits: BodyLimits,
    private readonly receiver: BodyReceiver,
    private readonly done: (bytes: Buffer) => void
  ) {
    this.deadline = limits.deadlines.create(this)
    this.deadline.set(limits.stallTimeout)
  }

  take(chunk: Buffer): void {
    if (this.isStopped) return
    this.length += chunk.length
    const rejection =
      this.length > this.limits.maxBody
        ? new BadRequest({ reason: "TooLarge" })
        : this.receiver.reserve(chunk.length)
    if (rejection !== undefined) return this.reject(rejection)
    this.chunks.push(chunk)
    if (this.chunks.length - this.merged === MERGED) this.merge()
    this.deadline.set(this.limits.stallTimeout)
  }

  end(): void {
    if (this.isStopped) return
    this.stop()
    const { chunks } = this
    const [first] = chunks
    // The request references this object until its response ends.
    this.chunks = []
    this.done(chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks))
  }

  stop(): void {
    this.isStopped = true
    this.deadline.clear()
  }

  expire(): void {
    this.reject(new BadRequest({ reason: "BodyTimeout" }))
  }

  /** Merges the latest chunks into one. */
  private merge(): void {
    this.chunks.push(Buffer.concat(this.chunks.splice(this.merged)))
    this.merged++
  }

  private reject(error: BadRequest | LimitReached): void {
    this.stop()
    this.receiver.error(error)
  }
}
