/** The streams of one session in this process's memory, and what names a place in them. */
import { randomBytes } from "node:crypto"
import { Bag } from "../internal/bag.js"
import { Window } from "../internal/window.js"
import type { RequestId } from "../Protocol.js"
import { Account, type Ledger } from "./Ledger.js"
import { MemoryStream, type Owner } from "./MemoryStream.js"
import type { Place, SessionLog, StreamLog } from "./SessionLog.js"

export class MemoryLog implements SessionLog, Owner {
  readonly account = new Account()
  /**
   * What begins every id of this session: nobody can guess another's, and since it is drawn anew whenever a log is
   * opened, no id is issued twice, not even after a restart.
   */
  private readonly epoch = randomBytes(9).toString("base64url")
  private readonly streams = new Bag<MemoryStream>()
  private count = 0
  private seen = new Window()

  constructor(readonly ledger: Ledger) {}

  stream(requests: ReadonlyArray<RequestId>): StreamLog {
    if (this.streams.size >= MAX_STREAMS) this.forgetEmpty()
    const stream = new MemoryStream(++this.count, requests, this)
    this.streams.add(stream)
    return stream
  }

  find(eventId: string): Place | undefined {
    const [, epoch, number = "", place = ""] = pattern.exec(eventId) ?? []
    if (epoch !== this.epoch) return undefined
    const sequence = parseInt(place, 36)
    const wanted = parseInt(number, 36)
    const stream = Array.from(this.streams).find(({ number }) => number === wanted)
    if (stream === undefined) return wanted <= this.count ? { stream, sequence } : undefined
    return sequence <= stream.last ? { stream, sequence } : undefined
  }

  idOf(stream: number, sequence: number): string {
    return `${this.epoch}.${stream.toString(36)}.${sequence.toString(36)}`
  }

  isNew(upstreamId: string): boolean {
    return this.seen.isNew(upstreamId)
  }

  renew(): void {
    this.seen = new Window()
  }

  forget(stream: MemoryStream): void {
    this.streams.delete(stream)
  }

  private forgetEmpty(): void {
    for (const stream of this.streams)
      if (stream.hasEnded && stream.beforeOldest === stream.last) stream.forget()
  }

  close(): void {
    for (const stream of this.streams) stream.forget()
  }
}

/** So many streams are remembered of which nothing is left, to be told from those that were delivered whole. */
const MAX_STREAMS = 4_096

const pattern = /^([\w-]{12})\.([1-9a-z][0-9a-z]*)\.(0|[1-9a-z][0-9a-z]*)$/
