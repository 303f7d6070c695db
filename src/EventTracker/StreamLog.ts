/** The events of one stream, in this process's memory. */
import { type SlotSetItem, NO_SLOT } from "../internal/slotSet.js"
import { withEventId } from "../Protocol/SseEvents.js"
import type { RequestId } from "../Protocol.js"
import * as EventId from "./EventId.js"
import type { StreamLog } from "./SessionLog.js"
import { type Account, eventCost, type Retention, type RetainedEvent, type Expiry } from "./Retention.js"

/** What a stream's log needs of its session's. */
export interface Owner {
  readonly ledger: Retention
  readonly account: Account
  /** What the ids of its events begin with. */
  readonly beginning: string
  /** Something of the stream is not as it was. */
  readonly changed: (stream: MemoryStream) => void
  /** The stream holds nothing more, and nobody misses any of it. */
  readonly forget: (stream: MemoryStream) => void
}

/** A stream as another process has left it. */
export interface StoredStream {
  readonly number: number
  readonly requests: ReadonlyArray<RequestId>
  readonly cursor: string | undefined
  /** The number of the newest event. */
  readonly last: number
  readonly hasEnded: boolean
  /** For each generation that it was begun in or went on in, the number of the newest event then. */
  readonly ends: ReadonlyMap<number, number>
  /** What is kept, oldest first. */
  readonly events: ReadonlyArray<Pick<RetainedEvent, "sequence" | "frame" | "upstreamId">>
}

export class MemoryStream implements StreamLog, SlotSetItem {
  slot = NO_SLOT
  replayCount = 0
  private events: Array<RetainedEvent> = []
  /** How many events at the beginning of the array are no longer kept. */
  private gone = 0
  /** The sequence number of the newest event; the first has 1, for 0 stands before it. */
  private newest = 0
  private written = 0
  private isEnded = false
  private retirement: Expiry | undefined
  private upstreamAt: string | undefined
  private before = NONE
  private ids: EventId.Frame | undefined

  constructor(
    readonly number: number,
    readonly requests: ReadonlyArray<RequestId>,
    private readonly owner: Owner
  ) {}

  /** Takes up what another process has left. */
  restore({ cursor, ends, events, hasEnded, last }: StoredStream): void {
    for (const { frame, sequence, upstreamId } of events) {
      this.newest = sequence
      this.add(frame, upstreamId)
    }
    this.newest = last
    this.upstreamAt = cursor
    this.isEnded = hasEnded
    this.before = ends
  }

  get lastSequence(): number {
    return this.newest
  }

  get hasEnded(): boolean {
    return this.isEnded
  }

  get cursor(): string | undefined {
    return this.upstreamAt
  }

  /** Whether its end has reached a client, as far as is known: nobody will miss it. */
  get isRetired(): boolean {
    return this.retirement !== undefined
  }

  /** For each generation that it went on in before this one, the number of the newest event then. */
  get ends(): ReadonlyMap<number, number> {
    return this.before
  }

  /** The number of the newest event in a generation before this one. */
  endIn(generation: number): number {
    return this.before.get(generation) ?? -1
  }

  idAt(sequence: number): string {
    this.ids ??= EventId.frameOf(this.owner.beginning, this)
    return EventId.format(this.ids, sequence)
  }

  append(frame: Buffer, upstreamId: string | undefined): RetainedEvent {
    this.newest++
    this.upstreamAt = upstreamId ?? this.upstreamAt
    const event = this.add(withEventId(this.idAt(this.newest), frame), upstreamId)
    this.owner.changed(this)
    return event
  }

  setCursor(upstreamId: string | undefined): void {
    this.upstreamAt = upstreamId
    this.owner.changed(this)
  }

  after(sequence: number): RetainedEvent | undefined {
    const first = this.events[this.gone]
    return first === undefined || sequence + 1 < first.sequence
      ? undefined
      : this.events[this.gone + sequence + 1 - first.sequence]
  }

  bytesAfter(sequence: number): number {
    const next = this.after(sequence)
    return next === undefined ? 0 : this.written - next.offset + eventCost(next)
  }

  skip(): void {
    this.newest++
    this.clear()
  }

  get evictedUpTo(): number {
    return (this.events[this.gone]?.sequence ?? this.newest + 1) - 1
  }

  hasEvicted(sequence: number): boolean {
    return sequence < this.newest && this.after(sequence) === undefined
  }

  end(): void {
    this.isEnded = true
    this.ids = undefined
    this.owner.changed(this)
  }

  markDelivered(): void {
    if (this.retirement !== undefined) return
    this.retirement = this.owner.ledger.retire(this, this.owner.account)
    this.owner.changed(this)
  }

  beginReplay(): void {
    this.replayCount++
    if (this.retirement === undefined) return
    this.owner.ledger.cancel(this.retirement, this.owner.account)
    this.retirement = undefined
    this.owner.changed(this)
  }

  remove(): void {
    this.beginReplay()
    this.clear()
    this.owner.forget(this)
  }

  /** Lets go of the oldest event. */
  evict(): void {
    const oldest = this.events[this.gone]
    if (oldest === undefined) return
    this.owner.ledger.drop(oldest, this.owner.account)
    this.gone++
    if (this.gone === this.events.length || this.gone >= TRIMMED) {
      this.events.splice(0, this.gone)
      this.gone = 0
    }
    if (this.events.length === 0 && this.retirement !== undefined) this.remove()
    else this.owner.changed(this)
  }

  clear(): void {
    for (const event of this.events) this.owner.ledger.drop(event, this.owner.account)
    this.events = []
    this.gone = 0
    this.owner.changed(this)
  }

  private add(frame: Buffer, upstreamId: string | undefined): RetainedEvent {
    const { account, ledger } = this.owner
    this.written += eventCost({ frame, upstreamId })
    const event: RetainedEvent = {
      stream: this,
      sequence: this.newest,
      frame,
      offset: this.written,
      upstreamId,
      isKept: true
    }
    if (!ledger.keep(event, account)) {
      this.clear()
      event.isKept = false
    } else if (this.events.length > 0) this.events.push(event)
    // Most streams hold one event, for which an array that is pushed to makes room for sixteen.
    else this.events = [event]
    return event
  }
}

/** The generations before the first. */
const NONE: ReadonlyMap<number, number> = new Map()

/** So many events that are gone are cut off at once. */
const TRIMMED = 64
