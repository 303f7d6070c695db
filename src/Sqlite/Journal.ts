/** What becomes of one log, on its way to a SQLite file. */
import { NO_SLOT } from "../internal/slotSet.js"
import type { Journal } from "../EventTracker/MemoryLog.js"
import type { MemoryStream, StoredStream } from "../EventTracker/StreamLog.js"
import type { Rows } from "./eventRows.js"

/** What the journals of a file share. */
export interface Desk {
  readonly rows: Rows
  /** Those that have something to write. */
  readonly waiting: Set<SqliteJournal>
  /** So many rows more wait, or less. */
  readonly wait: (rows: number) => void
  /** Writes at once what waits; false when that failed. */
  readonly flush: () => boolean
  /** The journal writes nothing any more; its log is to be removed, or stays as it is. */
  readonly finished: (journal: SqliteJournal, isClosed: boolean) => void
}

/** The part of a stream that is in the file. */
interface Written {
  /** Up to where its events were written. */
  readonly last: number
  /** The place behind which they are still there. */
  readonly before: number
}

/**
 * Reads what is new from the streams themselves, when it is time to write: what has come and gone in between costs
 * nothing, and neither does a stream that was begun and delivered whole.
 */
export class SqliteJournal implements Journal {
  /** The streams that are not in the file as they are now, and how many rows that makes. */
  private readonly changes = new Map<MemoryStream, number>()
  private readonly written: Map<number, Written>
  private isFinished = false

  constructor(
    /** The log's row. */
    readonly log: number,
    /** How many streams there have been. */
    private count: number,
    stored: ReadonlyArray<StoredStream>,
    private readonly desk: Desk
  ) {
    this.written = new Map(
      stored.map(({ events, last, number }) => [
        number,
        { last, before: (events[0]?.sequence ?? last + 1) - 1 }
      ])
    )
  }

  changed(stream: MemoryStream): void {
    if (this.isFinished) return
    if (stream.number > this.count) this.count = stream.number
    const rows = this.changes.get(stream)
    if (isWanted(stream) || this.written.has(stream.number)) {
      this.changes.set(stream, (rows ?? 0) + 1)
      if (this.changes.size === 1) this.desk.waiting.add(this)
      this.desk.wait(1)
    } else if (rows !== undefined) {
      this.changes.delete(stream)
      this.desk.wait(-rows)
    }
  }

  suspended(): void {
    if (this.isFinished) return
    this.desk.flush()
    this.finish(false)
  }

  closed(): void {
    if (!this.isFinished) this.finish(true)
  }

  /** Writes what waits. What it gives is to be called when that will last. */
  write(): () => void {
    const settled = new Map<number, Written | undefined>()
    if (this.changes.size > 0 && !this.desk.rows.advance(this.log, this.count)) {
      // The session's record has gone, and the log with it.
      return () => this.finish(false)
    }
    for (const stream of this.changes.keys()) settled.set(stream.number, this.store(stream))
    return () => {
      this.changes.clear()
      for (const [number, written] of settled) {
        if (written === undefined) this.written.delete(number)
        else this.written.set(number, written)
      }
    }
  }

  private store(stream: MemoryStream): Written | undefined {
    const { log } = this
    const { rows } = this.desk
    const { evictedUpTo, lastSequence, number } = stream
    const written = this.written.get(number)
    if (!isWanted(stream)) {
      if (written !== undefined) rows.removeStream(log, number)
      return undefined
    }
    rows.putStream(log, stream)
    if (written !== undefined && written.before < evictedUpTo && written.before < written.last)
      rows.evict(log, number, evictedUpTo)
    const from = Math.max(written?.last ?? 0, evictedUpTo)
    for (let event = stream.after(from); event !== undefined; event = stream.after(event.sequence))
      rows.addEvent(log, number, event)
    return { last: lastSequence, before: evictedUpTo }
  }

  private finish(isClosed: boolean): void {
    this.isFinished = true
    for (const rows of this.changes.values()) this.desk.wait(-rows)
    this.changes.clear()
    this.desk.waiting.delete(this)
    this.desk.finished(this, isClosed)
  }
}

/**
 * Whether somebody may still miss something of the stream. Of one that answers requests and has said nothing, an id
 * tells all that there is to tell.
 */
const isWanted = (stream: MemoryStream): boolean =>
  stream.slot !== NO_SLOT &&
  !stream.isRetired &&
  (stream.lastSequence > 0 || stream.cursor !== undefined || stream.requests.length === 0)
