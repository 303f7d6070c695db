/** The streams of one session in this process's memory, and what names a place in them. */
import { randomBytes } from "node:crypto"
import { SlotSet } from "../internal/slotSet.js"
import { Window } from "../internal/window.js"
import type { RequestId } from "../Protocol.js"
import * as EventId from "./EventId.js"
import { Account, type Retention } from "./Retention.js"
import { MemoryStream, type Owner, type StoredStream } from "./StreamLog.js"
import type { StreamPosition, SessionLog, StreamLog } from "./SessionLog.js"

/** What a log goes on from. */
export interface Origin {
  /** What begins every id of the session: nobody can guess another's. */
  readonly secret: string
  /** How often the log was opened before. It is part of every id, so that none is ever issued twice. */
  readonly generation: number
  /** How many streams there were. */
  readonly count: number
  /** Those of which something may still be wanted, oldest first. */
  readonly streams: ReadonlyArray<StoredStream>
}

/** The origin of a new session. */
export const begin = (): Origin => ({
  secret: randomBytes(9).toString("base64url"),
  generation: 0,
  count: 0,
  streams: []
})

/** Hears what becomes of a log, to keep it elsewhere too. */
export interface Journal {
  /** Something of the stream is not as it was. */
  readonly changed: (stream: MemoryStream) => void
  readonly suspended: () => void
  readonly closed: () => void
}

const none: Journal = { changed: () => {}, suspended: () => {}, closed: () => {} }

export class MemoryLog implements SessionLog, Owner {
  readonly account = new Account()
  readonly beginning: string
  hasPerStreamIds = false
  readonly unfinished: ReadonlyArray<StreamLog>
  private readonly streams = new SlotSet<MemoryStream>()
  /** What an earlier process issued and did not live to store, by generation and number. */
  private lost: Map<string, MemoryStream> | undefined
  private seen = new Window()
  private count: number

  constructor(
    readonly ledger: Retention,
    private readonly origin: Origin = begin(),
    private readonly journal: Journal = none
  ) {
    this.beginning = EventId.beginningOf(origin)
    this.count = origin.count
    const restored = origin.streams.map((stored) => {
      const stream = new MemoryStream(stored.number, stored.requests, this)
      this.streams.add(stream)
      stream.restore(stored)
      for (const { upstreamId } of stored.events) {
        if (upstreamId !== undefined && !this.seen.add(upstreamId)) this.hasPerStreamIds = true
      }
      return stream
    })
    this.unfinished = restored.filter(({ hasEnded }) => !hasEnded)
  }

  /** How many streams there have been. */
  get size(): number {
    return this.count
  }

  createStream(requests: ReadonlyArray<RequestId>): StreamLog {
    if (this.streams.size >= MAX_STREAMS) this.forgetEmpty()
    const stream = new MemoryStream(++this.count, requests, this)
    this.streams.add(stream)
    this.journal.changed(stream)
    return stream
  }

  find(eventId: string): StreamPosition | undefined {
    const named = EventId.parse(eventId)
    const { count, generation, secret } = this.origin
    if (named === undefined || named.secret !== secret || named.generation > generation) return undefined
    const { number, sequence } = named
    const isPast = named.generation < generation
    if (isPast && number > count) return this.lostPlace(named)
    const stream = Array.from(this.streams).find((stream) => stream.number === number)
    const isIts = stream === undefined || eventId === EventId.idOf({ ...named, requests: stream.requests })
    if (!isPast && !isIts) return undefined
    // One that was lost may have had the number that another has now.
    if (isPast && (!isIts || stream?.endIn(named.generation) === -1)) return this.lostPlace(named)
    // Who has been told nothing of a stream has not been told its end either.
    if (isPast && stream === undefined && sequence === 0) return this.lostPlace(named)
    if (stream === undefined) return number <= this.count ? { stream, sequence } : undefined
    if (sequence <= (isPast ? stream.endIn(named.generation) : stream.lastSequence))
      return { stream, sequence }
    if (!isPast) return undefined
    // It was issued, and what was behind it then is not known: only a standalone stream goes on from what is.
    return { stream, sequence: stream.requests.length === 0 ? stream.endIn(named.generation) : NOWHERE }
  }

  addUpstreamId(upstreamId: string): boolean {
    return this.seen.add(upstreamId)
  }

  hold(bytes: number, held: number): boolean {
    return this.ledger.hold(bytes, held)
  }

  release(bytes: number): void {
    this.ledger.release(bytes)
  }

  reset(): void {
    this.seen = new Window()
    this.hasPerStreamIds = false
    for (const stream of this.streams) stream.setCursor(undefined)
  }

  changed(stream: MemoryStream): void {
    this.journal.changed(stream)
  }

  forget(stream: MemoryStream): void {
    this.streams.delete(stream)
    this.journal.changed(stream)
  }

  suspend(): void {
    this.journal.suspended()
    this.forgetAll()
  }

  close(): void {
    this.journal.closed()
    this.forgetAll()
  }

  private forgetAll(): void {
    for (const stream of this.streams) stream.remove()
  }

  private forgetEmpty(): void {
    for (const stream of this.streams)
      if (stream.hasEnded && stream.evictedUpTo === stream.lastSequence) stream.remove()
  }

  /** Where a client stands in a stream of which nothing was stored but, in the id, what it was to answer. */
  private lostPlace({ generation, number, requests }: EventId.EventId): StreamPosition {
    const key = `${generation}.${number}`
    const lost = (this.lost ??= new Map<string, MemoryStream>())
    const known = lost.get(key)
    const stream = known ?? new MemoryStream(++this.count, requests, this)
    if (known === undefined) {
      if (lost.size < MAX_STREAMS) lost.set(key, stream)
      this.streams.add(stream)
    }
    return { stream: stream.slot < 0 ? undefined : stream, sequence: NOWHERE }
  }
}

/** Before the first place: everything behind it is missing. */
const NOWHERE = -1

/** So many streams are remembered of which nothing is left, to be told from those that were delivered whole. */
const MAX_STREAMS = 4_096
