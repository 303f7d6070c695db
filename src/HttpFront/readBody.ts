/** Reads the body of a client's request, bounded in bytes and in time. */
import type { IncomingMessage } from "node:http"
import { BadRequest, type LimitReached } from "../ProxyError.js"
import type { Deadline, Deadlines, Expirable } from "../internal/deadlines.js"

export interface BodyLimits {
  /** The most bytes that one body may have. */
  readonly maxBody: number
  /** How long nothing may arrive, in milliseconds. */
  readonly stallTimeout: number
  readonly deadlines: Deadlines
}

/** Whoever answers the request. */
export interface BodyReceiver {
  /** Makes room for so many more bytes of the body, or says why there is none. */
  readonly reserve: (bytes: number) => LimitReached | undefined
  readonly error: (error: BadRequest | LimitReached) => void
}

/**
 * Calls `done` with the body, or tells the answerer what is wrong with it. Returns what ends the reading, for when
 * the client goes away.
 */
export const readBody = (
  request: IncomingMessage,
  bounds: BodyLimits,
  answerer: BodyReceiver,
  done: (bytes: Buffer) => void
): (() => void) => {
  if (Number(request.headers["content-length"]) > bounds.maxBody) {
    answerer.error(new BadRequest({ reason: "TooLarge" }))
    return () => {}
  }
  const body = new Body(bounds, answerer, done)
  request.on("data", (chunk: Buffer) => body.take(chunk)).on("end", () => body.end())
  return () => body.stop()
}

/** Each chunk costs about two hundred bytes beside its own, so small ones are merged, this many at a time. */
const MERGED = 256

class Body implements Expirable {
  private chunks: Array<Buffer> = []
  private readonly deadline: Deadline
  private merged = 0
  private length = 0
  private isOver = false

  constructor(
    private readonly bounds: BodyLimits,
    private readonly answerer: BodyReceiver,
    private readonly done: (bytes: Buffer) => void
  ) {
    this.deadline = bounds.deadlines.create(this)
    this.deadline.set(bounds.stallTimeout)
  }

  take(chunk: Buffer): void {
    if (this.isOver) return
    this.length += chunk.length
    const wrong =
      this.length > this.bounds.maxBody
        ? new BadRequest({ reason: "TooLarge" })
        : this.answerer.reserve(chunk.length)
    if (wrong !== undefined) return this.refuse(wrong)
    this.chunks.push(chunk)
    if (this.chunks.length - this.merged === MERGED) this.merge()
    this.deadline.set(this.bounds.stallTimeout)
  }

  end(): void {
    if (this.isOver) return
    this.stop()
    const { chunks } = this
    const [first] = chunks
    // The request, and this with it, lives on until it is answered.
    this.chunks = []
    this.done(chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks))
  }

  stop(): void {
    this.isOver = true
    this.deadline.clear()
  }

  expire(): void {
    this.refuse(new BadRequest({ reason: "BodyTimeout" }))
  }

  /** Replaces the latest chunks by one. */
  private merge(): void {
    this.chunks.push(Buffer.concat(this.chunks.splice(this.merged)))
    this.merged++
  }

  private refuse(error: BadRequest | LimitReached): void {
    this.stop()
    this.answerer.error(error)
  }
}
