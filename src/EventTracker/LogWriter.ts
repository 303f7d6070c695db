/** Tracks the streams of one log that differ from their stored state. */
import * as Effect from "effect/Effect"
import { NO_SLOT } from "../internal/slotSet.js"
import type { DurableLogs } from "./DurableLogs.js"
import type { LogChange, StoredEvent, StreamChange } from "./EventStorage.js"
import { encodeEnds, encodeRequests, type LogOrigin } from "./LogOrigin.js"
import { retainedEvents, type StreamLog } from "./StreamLog.js"

/** The events of a stream that are stored. */
interface StoredRange {
  /** All events up to this sequence were written. */
  readonly writtenUpTo: number
  /** Events up to this sequence may be stored. It is higher than `writtenUpTo` after a failed write. */
  readonly storedUpTo: number
  /** All events up to this sequence are removed. */
  readonly evictedUpTo: number
}

/** A change that is being written to the storage. */
export interface PendingChange {
  readonly writer: LogWriter
  readonly change: LogChange
  /** Marks everything that the change contains as dirty again. */
  readonly failed: () => void
}

/**
 * Reads new events from the streams when the next write begins. Events that are evicted before are never written, and
 * neither is a stream that is created and delivered before.
 */
export class LogWriter {
  /** The streams that differ from their stored state, with the number of rows that each needs. */
  private dirty = new Map<StreamLog, number>()
  private readonly stored: Map<number, StoredRange>
  private readonly secret: string
  private readonly generation: number
  private streamCount: number
  private streams: Iterable<StreamLog> = []
  /** False if the storage has no log of the session, so the next change creates it. */
  private isStored = true
  private isFinished = false

  constructor(
    readonly session: string,
    { generation, secret, streamCount, streams }: LogOrigin,
    private readonly logs: DurableLogs
  ) {
    this.secret = secret
    this.generation = generation
    this.streamCount = streamCount
    this.stored = new Map(
      streams.map(({ events, lastSequence, number }) => [
        number,
        rangeUpTo(lastSequence, (events[0]?.sequence ?? lastSequence + 1) - 1)
      ])
    )
  }

  /** Sets the streams of the log, which are written again if the storage loses the log. */
  follow(streams: Iterable<StreamLog>): void {
    this.streams = streams
  }

  /** Marks a stream as dirty. */
  changed(stream: StreamLog): void {
    if (this.isFinished) return
    if (stream.number > this.streamCount) this.streamCount = stream.number
    const rows = this.dirty.get(stream)
    if (isNeeded(stream) || this.stored.has(stream.number)) {
      this.dirty.set(stream, (rows ?? 0) + 1)
      if (this.dirty.size === 1) this.logs.dirty.add(this)
      this.logs.markDirty(1)
    } else if (rows !== undefined) {
      this.dirty.delete(stream)
      this.logs.markDirty(-rows)
    }
  }

  /** Returns all dirty state as one change, and marks it as clean. */
  collect(): PendingChange {
    const { dirty, generation, isStored, secret, session, streamCount } = this
    const streams: Array<StreamChange> = []
    const removedStreams: Array<number> = []
    const ranges = new Map<number, StoredRange>()
    for (const stream of dirty.keys()) {
      const { evictedUpTo, lastSequence, number } = stream
      const range = this.stored.get(number)
      if (isNeeded(stream)) {
        streams.push(toChange(stream, range))
        this.stored.set(number, rangeUpTo(lastSequence, evictedUpTo))
        ranges.set(number, { ...(range ?? NO_RANGE), storedUpTo: lastSequence })
      } else if (range !== undefined) {
        removedStreams.push(number)
        this.stored.delete(number)
        ranges.set(number, { ...range, writtenUpTo: 0 })
      }
    }
    this.dirty = new Map()
    this.isStored = true
    return {
      writer: this,
      change: {
        session,
        secret,
        generation,
        kind: isStored ? "update" : "create",
        streamCount,
        streams,
        removedStreams
      },
      failed: () => {
        this.restore(dirty, ranges)
        if (!isStored) this.markMissing()
      }
    }
  }

  /** Marks the whole log as dirty, because the storage does not have it any more. */
  reopen(): void {
    if (this.isFinished) return
    this.stored.clear()
    // The rows of the rejected change are still counted, so only the streams are marked.
    for (const stream of this.streams) this.dirty.set(stream, this.dirty.get(stream) ?? 0)
    this.markMissing()
  }

  /** Writes all dirty state and stops. If the write fails, the dirty state is lost. */
  get suspend(): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.isFinished
        ? Effect.void
        : Effect.zipRight(
            Effect.ignore(this.logs.flush),
            Effect.sync(() => this.finish())
          )
    )
  }

  /** Removes the log from the storage and stops. */
  close(): void {
    if (this.isFinished) return
    this.finish()
    this.logs.remove(this.session)
  }

  /** Stops. Changes from now on are not written. */
  finish(): void {
    if (this.isFinished) return
    this.isFinished = true
    let rows = 0
    for (const count of this.dirty.values()) rows += count
    this.dirty.clear()
    this.logs.finished(this, rows)
  }

  /** A log without streams is created too, so that another process can open its next generation. */
  private markMissing(): void {
    if (this.isFinished) return
    this.isStored = false
    this.logs.dirty.add(this)
  }

  /** Marks the streams of a failed write as dirty again. Their rows are still counted. */
  private restore(dirty: ReadonlyMap<StreamLog, number>, ranges: ReadonlyMap<number, StoredRange>): void {
    if (this.isFinished) return
    for (const [stream, rows] of dirty) this.dirty.set(stream, (this.dirty.get(stream) ?? 0) + rows)
    for (const [number, range] of ranges) this.stored.set(number, range)
    if (this.dirty.size > 0) this.logs.dirty.add(this)
  }
}

/**
 * True if the stream must be stored. A delivered stream need not be, nor a stream that answers requests and has no
 * event, because its event ids hold the requests.
 */
const isNeeded = (stream: StreamLog): boolean =>
  stream.slot !== NO_SLOT &&
  !stream.isDelivered &&
  (stream.lastSequence > 0 || stream.cursor !== undefined || stream.requests.length === 0)

const toChange = (stream: StreamLog, range: StoredRange = NO_RANGE): StreamChange => {
  const { cursor, ends, evictedUpTo, hasEnded, lastSequence, number, requests } = stream
  const isEvicting = range.evictedUpTo < evictedUpTo && range.evictedUpTo < range.storedUpTo
  return {
    number,
    requests: encodeRequests(requests),
    ends: encodeEnds(ends),
    cursor,
    lastSequence,
    hasEnded,
    evictUpTo: isEvicting ? evictedUpTo : undefined,
    events: Array.from(retainedEvents(stream, range.writtenUpTo), toStored)
  }
}

/** Copies an event, because eviction replaces the frame of the original. */
const toStored = ({ frame, sequence, upstreamId }: StoredEvent): StoredEvent => ({
  sequence,
  frame,
  upstreamId
})

const rangeUpTo = (sequence: number, evictedUpTo: number): StoredRange => ({
  writtenUpTo: sequence,
  storedUpTo: sequence,
  evictedUpTo
})

const NO_RANGE: StoredRange = rangeUpTo(0, 0)
