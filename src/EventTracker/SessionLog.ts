/** The streams of one session, and the positions in them that event ids name. */
import * as Effect from "effect/Effect"
import { SlotSet } from "../internal/slotSet.js"
import { Window } from "../internal/window.js"
import type { FrameBudget } from "../Protocol/SseFrames.js"
import type { RequestId } from "../Protocol.js"
import * as EventId from "./EventId.js"
import { type LogOrigin, newOrigin } from "./LogOrigin.js"
import type { LogWriter } from "./LogWriter.js"
import { type Retention, SessionUsage } from "./Retention.js"
import { StreamLog } from "./StreamLog.js"

/** The position in a stream up to which a client has read. */
export interface StreamPosition {
  /** `undefined` for a stream that has ended and that was delivered completely. */
  readonly stream: StreamLog | undefined
  /** The sequence of the last event that the client has read. */
  readonly sequence: number
}

/** The log of a session. It also reserves memory for incomplete events. */
export class SessionLog implements FrameBudget {
  /** True if the upstream uses the same id in several streams. Only ids of the same stream are duplicates then. */
  hasPerStreamIds = false
  /** The streams that an earlier process created and did not end, oldest first. */
  readonly unfinished: ReadonlyArray<StreamLog>
  /** The first part of all event ids of this generation. */
  readonly idPrefix: string
  readonly usage = new SessionUsage()
  private readonly secret: string
  private readonly generation: number
  /** The number of streams before this generation. */
  private readonly earlierStreams: number
  private streamCount: number
  private readonly streams = new SlotSet<StreamLog>()
  /** Streams of earlier generations that were never stored, by generation and number. */
  private lost: Map<string, StreamLog> | undefined
  private upstreamIds = new Window()

  constructor(
    readonly retention: Retention,
    origin: LogOrigin = newOrigin(),
    /** Writes changes to the storage; `undefined` for a log in memory. */
    private readonly writer?: LogWriter
  ) {
    this.secret = origin.secret
    this.generation = origin.generation
    this.earlierStreams = origin.streamCount
    this.streamCount = origin.streamCount
    this.idPrefix = EventId.prefixOf(origin)
    const restored = origin.streams.map((stored) => {
      const stream = new StreamLog(stored.number, stored.requests, this)
      this.streams.add(stream)
      stream.restore(stored)
      for (const { upstreamId } of stored.events) {
        if (upstreamId !== undefined && !this.upstreamIds.add(upstreamId)) this.hasPerStreamIds = true
      }
      return stream
    })
    writer?.follow(this.streams)
    this.unfinished = restored.filter(({ hasEnded }) => !hasEnded)
  }

  /** Creates the log of a stream that answers requests, or of a standalone stream if there are none. */
  createStream(requests: ReadonlyArray<RequestId>): StreamLog {
    if (this.streams.size >= MAX_STREAMS) this.removeEmpty()
    const stream = new StreamLog(++this.streamCount, requests, this)
    this.streams.add(stream)
    this.writer?.changed(stream)
    return stream
  }

  /** Finds the position that an event id names. Returns `undefined` for an id that was never issued in this session. */
  find(eventId: string): StreamPosition | undefined {
    const id = EventId.parse(eventId)
    if (id === undefined || id.secret !== this.secret || id.generation > this.generation) return undefined
    const stream = Array.from(this.streams).find(({ number }) => number === id.number)
    // Another stream with the same number has other requests in its ids.
    const isOther = stream !== undefined && eventId !== EventId.idOf({ ...id, requests: stream.requests })
    if (id.generation < this.generation) return isOther ? this.lostPosition(id) : this.findEarlier(id, stream)
    return isOther ? undefined : this.findCurrent(id, stream)
  }

  /** Stores an event id of the upstream. Returns false for a duplicate: an id among the last 1,000. */
  addUpstreamId(upstreamId: string): boolean {
    return this.upstreamIds.add(upstreamId)
  }

  hold(bytes: number, held: number): boolean {
    return this.retention.hold(bytes, held)
  }

  release(bytes: number): void {
    this.retention.release(bytes)
  }

  /** Clears the ids and cursors of the upstream, because another upstream session has replaced the lost one. */
  reset(): void {
    this.upstreamIds = new Window()
    this.hasPerStreamIds = false
    for (const stream of this.streams) stream.setCursor(undefined)
  }

  /** Writes the log to its storage, so that another process can open it, and releases its memory. */
  get suspend(): Effect.Effect<void> {
    return Effect.zipRight(
      this.writer?.suspend ?? Effect.void,
      Effect.sync(() => this.removeAll())
    )
  }

  /** Removes the log, because the session has ended. */
  close(): void {
    this.writer?.close()
    this.removeAll()
  }

  /** Notes that a stream has changed. */
  changed(stream: StreamLog): void {
    this.writer?.changed(stream)
  }

  /** Notes that a stream was removed. */
  removed(stream: StreamLog): void {
    this.streams.delete(stream)
    this.writer?.changed(stream)
  }

  private removeAll(): void {
    for (const stream of this.streams) stream.remove()
  }

  private removeEmpty(): void {
    for (const stream of this.streams)
      if (stream.hasEnded && stream.evictedUpTo === stream.lastSequence) stream.remove()
  }

  /** Finds the position of an id that this generation issued. */
  private findCurrent(
    { number, sequence }: EventId.EventId,
    stream: StreamLog | undefined
  ): StreamPosition | undefined {
    if (stream === undefined) return number <= this.streamCount ? { stream, sequence } : undefined
    return sequence <= stream.lastSequence ? { stream, sequence } : undefined
  }

  /** Finds the position of an id that an earlier generation issued, even if its stream was not stored. */
  private findEarlier(id: EventId.EventId, stream: StreamLog | undefined): StreamPosition {
    const { generation, number, sequence } = id
    if (number > this.earlierStreams) return this.lostPosition(id)
    // A client that has read no event of a stream has not read its end, so the stream was not delivered.
    if (stream === undefined) return sequence === 0 ? this.lostPosition(id) : { stream, sequence }
    const end = stream.endOf(generation)
    if (end === undefined) return this.lostPosition(id)
    if (sequence <= end) return { stream, sequence }
    // The event was issued but not stored. Only a standalone stream can continue with the events that are stored.
    return { stream, sequence: stream.requests.length === 0 ? end : BEFORE_ALL }
  }

  /**
   * Returns a position in a stream that was not stored. The event id holds its requests; all its events count as
   * evicted.
   */
  private lostPosition({ generation, number, requests }: EventId.EventId): StreamPosition {
    const key = `${generation}.${number}`
    const lost = (this.lost ??= new Map<string, StreamLog>())
    const known = lost.get(key)
    const stream = known ?? new StreamLog(++this.streamCount, requests, this)
    if (known === undefined) {
      if (lost.size < MAX_STREAMS) lost.set(key, stream)
      this.streams.add(stream)
    }
    return { stream: stream.slot < 0 ? undefined : stream, sequence: BEFORE_ALL }
  }
}

/** The position before the beginning of a stream: `hasEvicted` is true for it. */
const BEFORE_ALL = -1

/** The number of streams above which streams without events are removed. */
const MAX_STREAMS = 4_096
