/** The events of one stream. */
import { type SlotSetItem, NO_SLOT } from "../internal/slotSet.js"
import { withEventId } from "../Protocol/SseEvents.js"
import type { RequestId } from "../Protocol.js"
import * as EventId from "./EventId.js"
import type { RestoredStream } from "./LogOrigin.js"
import { eventCost, type RetainedEvent, type ScheduledRemoval } from "./Retention.js"
import type { SessionLog } from "./SessionLog.js"

/** An event as clients receive it, with its event id. */
export interface StreamEvent {
  /** The number of the event in its stream. The first event has 1. */
  readonly sequence: number
  readonly frame: Buffer
  /** The id that the upstream gave to the event. */
  readonly upstreamId: string | undefined
}

/**
 * An ordered log of events. A position in it is the sequence of the event before the position; 0 is the beginning.
 * Limits evict the oldest events first.
 */
export class StreamLog implements SlotSetItem {
  slot = NO_SLOT
  private events: Array<RetainedEvent> = []
  /** The number of evicted events at the beginning of the array. */
  private evictedCount = 0
  private last = 0
  /** The cost of all events that were ever appended. */
  private totalCost = 0
  private isEnded = false
  private removal: ScheduledRemoval | undefined
  private replays = 0
  private upstreamCursor: string | undefined
  private earlierEnds = NO_ENDS
  private idAffixes: EventId.IdAffixes | undefined

  constructor(
    readonly number: number,
    /** The requests that the stream answers; empty for a standalone stream. */
    readonly requests: ReadonlyArray<RequestId>,
    private readonly session: SessionLog
  ) {}

  /** Restores the state that an earlier process stored. */
  restore({ cursor, ends, events, hasEnded, lastSequence }: RestoredStream): void {
    for (const { frame, sequence, upstreamId } of events) {
      this.last = sequence
      this.add(frame, upstreamId)
    }
    this.last = lastSequence
    this.upstreamCursor = cursor
    this.isEnded = hasEnded
    this.earlierEnds = ends
  }

  /** The sequence of the newest event; 0 if there was none. */
  get lastSequence(): number {
    return this.last
  }

  /** The sequence up to which all events are evicted. */
  get evictedUpTo(): number {
    return (this.events[this.evictedCount]?.sequence ?? this.last + 1) - 1
  }

  get hasEnded(): boolean {
    return this.isEnded
  }

  /** The upstream's id of the last event, from which the upstream can resume the stream. */
  get cursor(): string | undefined {
    return this.upstreamCursor
  }

  /** True if the end of the stream was written to a client. */
  get isDelivered(): boolean {
    return this.removal !== undefined
  }

  /** The number of times that a client has resumed the stream. */
  get replayCount(): number {
    return this.replays
  }

  /** The last sequence of the stream at the end of each earlier generation. */
  get ends(): ReadonlyMap<number, number> {
    return this.earlierEnds
  }

  /** The last sequence at the end of an earlier generation; `undefined` if the stream was not stored then. */
  endOf(generation: number): number | undefined {
    return this.earlierEnds.get(generation)
  }

  /** Returns the event id of a position. */
  idAt(sequence: number): string {
    this.idAffixes ??= EventId.affixesOf(this.session.idPrefix, this)
    return EventId.format(this.idAffixes, sequence)
  }

  /** Appends an event. An event above the limits is returned but not retained, and evicts all events before it. */
  append(frame: Buffer, upstreamId: string | undefined): StreamEvent {
    this.last++
    this.upstreamCursor = upstreamId ?? this.upstreamCursor
    const event = this.add(withEventId(this.idAt(this.last), frame), upstreamId)
    this.session.changed(this)
    return event
  }

  /** Sets the upstream's cursor without an event. `undefined` clears it. */
  setCursor(upstreamId: string | undefined): void {
    this.upstreamCursor = upstreamId
    this.session.changed(this)
  }

  /** Assigns a sequence to an event that cannot be replayed, and evicts all events before it. */
  skip(): void {
    this.last++
    this.clear()
  }

  /** Returns the event after a position; `undefined` if there is none or if it is evicted. */
  after(sequence: number): StreamEvent | undefined {
    return this.retainedAfter(sequence)
  }

  /** Returns the cost of the retained events after a position. */
  bytesAfter(sequence: number): number {
    const next = this.retainedAfter(sequence)
    return next === undefined ? 0 : this.totalCost - next.offset + eventCost(next)
  }

  /** True if the event after a position is evicted. */
  hasEvicted(sequence: number): boolean {
    return sequence < this.last && this.after(sequence) === undefined
  }

  /** Marks the stream as ended. No event follows. */
  end(): void {
    this.isEnded = true
    this.idAffixes = undefined
    this.session.changed(this)
  }

  /** Marks the stream as delivered to its client. It is removed after the retention time. */
  markDelivered(): void {
    if (this.removal !== undefined) return
    this.removal = this.session.retention.scheduleRemoval(this, this.session.usage)
    this.session.changed(this)
  }

  /** Notes that a client resumes the stream. The stream is retained until it is delivered again. */
  beginReplay(): void {
    this.replays++
    this.cancelRemoval()
  }

  /** Evicts the oldest event. Removes the stream with its last event, if the stream is delivered. */
  evict(): void {
    const oldest = this.events[this.evictedCount]
    if (oldest === undefined) return
    this.session.retention.drop(oldest, this.session.usage)
    this.evictedCount++
    if (this.evictedCount === this.events.length || this.evictedCount >= MAX_EVICTED) {
      this.events.splice(0, this.evictedCount)
      this.evictedCount = 0
    }
    if (this.events.length === 0 && this.removal !== undefined) this.remove()
    else this.session.changed(this)
  }

  /** Evicts all events. */
  clear(): void {
    for (const event of this.events) this.session.retention.drop(event, this.session.usage)
    this.events = []
    this.evictedCount = 0
    this.session.changed(this)
  }

  /** Evicts all events and removes the stream from its session. */
  remove(): void {
    this.replays++
    this.cancelRemoval()
    this.clear()
    this.session.removed(this)
  }

  private retainedAfter(sequence: number): RetainedEvent | undefined {
    const first = this.events[this.evictedCount]
    return first === undefined || sequence + 1 < first.sequence
      ? undefined
      : this.events[this.evictedCount + sequence + 1 - first.sequence]
  }

  private cancelRemoval(): void {
    if (this.removal === undefined) return
    this.session.retention.cancelRemoval(this.removal, this.session.usage)
    this.removal = undefined
    this.session.changed(this)
  }

  private add(frame: Buffer, upstreamId: string | undefined): RetainedEvent {
    const { retention, usage } = this.session
    this.totalCost += eventCost({ frame, upstreamId })
    const event: RetainedEvent = {
      stream: this,
      sequence: this.last,
      frame,
      offset: this.totalCost,
      upstreamId,
      isQueued: true
    }
    if (!retention.retain(event, usage)) {
      this.clear()
      event.isQueued = false
    } else if (this.events.length > 0) this.events.push(event)
    // Most streams have one event. The first push to an array would allocate space for sixteen.
    else this.events = [event]
    return event
  }
}

/** Iterates over the retained events of a stream after a position, oldest first. */
export const retainedEvents = function* (log: StreamLog, after = 0): Iterable<StreamEvent> {
  for (
    let next = log.after(Math.max(after, log.evictedUpTo));
    next !== undefined;
    next = log.after(next.sequence)
  )
    yield next
}

const NO_ENDS: ReadonlyMap<number, number> = new Map()

/** The number of evicted events after which they are removed from the array. */
const MAX_EVICTED = 64
