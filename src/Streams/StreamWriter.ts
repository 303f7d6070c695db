/**
 * Brings a stream from its log to whoever reads it at the moment, no faster than it is read. The upstream is read on
 * meanwhile, whether or not there is a reader.
 */
import { MAX_LENGTH } from "../EventTracker/EventId.js"
import { eventCost } from "../EventTracker/Retention.js"
import type { StreamEvent, StreamLog } from "../EventTracker/StreamLog.js"
import type { ClientResponse } from "../ClientResponse.js"
import { type Amount, type Backlog, nothing } from "./Backlog.js"
import { type Slotted, NO_SLOT } from "../internal/slotSet.js"
import type { Deadline, Deadlines, Expirable } from "../internal/deadlines.js"
import { withId, withoutId, withoutPlace } from "../Protocol/SseEvents.js"
import type { MutableHeaders } from "../internal/headers.js"
import { BORDER, frame, KEEP_ALIVE } from "../Protocol/SseFrames.js"
import { EventsLost, toJsonRpc } from "../ProxyError.js"
import type { TelemetryListener } from "../Telemetry.js"
import type { Flow } from "../Upstream.js"

/** What the deliveries of a session have in common. */
export interface Terms {
  readonly deadlines: Deadlines
  readonly telemetry: TelemetryListener
  /** How long a stream may be silent before a comment is sent, in milliseconds. */
  readonly keepAlive: number
  /** How long clients are told to wait before they come back, in milliseconds. */
  readonly retry: number
  /** Whether streams begin with an event that holds an id alone. */
  readonly isPrimed: boolean
  /** How many events are kept of a session, and how many bytes of them: half of that makes the upstream wait. */
  readonly bounds: Amount
  /** What the readers of all streams of the session have not been told. */
  readonly backlog: Backlog
}

/** What fills a stream. */
export interface Source extends Flow {
  /** Hears that somebody comes back to read, or has left. */
  readonly attended?: (isAttended: boolean) => void
}

/** Where a piece of an event stands in it. */
export interface Piece {
  readonly isFirst: boolean
  readonly isLast: boolean
}

export class StreamWriter implements Flow, Expirable, Slotted {
  slot = NO_SLOT
  private reader: ClientResponse | undefined
  /** The number of the last event that the reader was told. */
  private position = 0
  /** What the reader has not been told, as it counts in the session's backlog. */
  private unread: Amount = nothing
  private isPaused = false
  private isUpstreamPaused = false
  private isLost = false
  /** Whether the reader has been told the beginning of an event, and waits for the rest. */
  private isMidEvent = false
  /** Since when nobody has read it, if nobody does, in milliseconds since 1970. */
  private leftAt = 0
  private readonly deadline: Deadline

  constructor(
    readonly log: StreamLog,
    private readonly terms: Terms,
    private readonly upstream: Source,
    /** Called when the stream has ended and nobody reads it: what there is to deliver is in the log. */
    private readonly rests: (delivery: StreamWriter) => void
  ) {
    this.deadline = terms.deadlines.of(this)
  }

  get isAttended(): boolean {
    return this.reader !== undefined
  }

  /** Whether somebody reads it who does not wait for the rest of an event. */
  get takesEvents(): boolean {
    return this.reader !== undefined && !this.isMidEvent
  }

  /** Whether its client has been given an id to come back with. */
  get isKnown(): boolean {
    return this.terms.isPrimed || this.log.lastSequence > 0
  }

  /** How long nobody has read it, in milliseconds. */
  get absence(): number {
    return this.reader === undefined ? this.now - this.leftAt : 0
  }

  /** Begins, with a first reader. */
  begin(reader: ClientResponse, status: number, headers: MutableHeaders): void {
    this.reader = reader
    reader.head(status, headers, this)
    // With an id the client can come back even before the first event (2025-11-25); older ones choke on it.
    const { isPrimed, retry } = this.terms
    if (isPrimed) this.write(Buffer.from(`id: ${this.log.idAt(0)}\nretry: ${retry}\ndata: \n\n`))
    else this.deadline.set(this.terms.keepAlive)
    if (this.log.lastSequence > 0) this.pump()
  }

  /** Goes on from a place with a reader that has come back; one that is still there is let go of. */
  comeBack(reader: ClientResponse, headers: MutableHeaders, position: number): void {
    this.dismiss()
    // What is being read is not let go of for its age.
    this.log.beginReplay()
    this.reader = reader
    this.upstream.attended?.(true)
    this.position = position
    reader.head(200, headers, this)
    this.deadline.set(this.terms.keepAlive)
    if (this.log.hasEvicted(position)) return this.tellLost()
    this.terms.telemetry.replayed(this.log.lastSequence - position)
    this.pump()
  }

  /** The upstream has said something. */
  append(event: Buffer, upstreamId: string | undefined): void {
    if (this.isLost) return
    this.breakOff()
    // What is about to be let go of goes out to a reader that is there, however slow it is, and the upstream waits.
    const isUrgent = this.isPaused && this.isAtBound({ frame: event, upstreamId })
    if (isUrgent) this.flush()
    const logged = this.log.append(event, upstreamId)
    if (this.reader === undefined) return
    if (isUrgent || !this.isPaused) this.pass(logged)
    if (isUrgent) this.pauseUpstream()
    else if (this.isPaused) this.wait()
  }

  /** Leaves to another stream what nobody has been told here. */
  handOver(other: StreamWriter): void {
    for (let next = this.log.after(this.position); next !== undefined; next = this.log.after(next.sequence)) {
      other.append(withoutId(next.frame), next.upstreamId)
    }
    this.position = this.log.lastSequence
    this.log.clear()
  }

  /** Passes on a piece of an event that is too large to be held: who does not get it now never will. */
  passPiece(piece: Buffer, { isFirst, isLast }: Piece): void {
    if (this.isLost) return
    if (isFirst) this.beginPieces(piece)
    else if (this.isMidEvent) this.write(piece)
    if (isLast) this.isMidEvent = false
    if (this.isPaused) this.pauseUpstream()
  }

  private beginPieces(piece: Buffer): void {
    this.breakOff()
    this.flush()
    this.log.skip()
    if (this.reader === undefined) return
    this.isMidEvent = true
    this.position = this.log.lastSequence
    this.write(withId(this.log.idAt(this.position), withoutPlace(piece)))
  }

  /** The rest of an event will not come. */
  breakOff(): void {
    if (!this.isMidEvent) return
    this.isMidEvent = false
    this.write(BORDER)
  }

  /** Nothing more is to come. */
  end(): void {
    this.breakOff()
    this.log.end()
    if (this.reader === undefined) this.rests(this)
    else if (!this.isPaused) this.finish()
  }

  /** A reader has gone. */
  leave(reader: ClientResponse): void {
    if (this.reader === reader) this.letGo()
  }

  /** Ends the reader's answer; it may come back. */
  dismiss(): void {
    const { reader } = this
    this.letGo()
    reader?.end()
  }

  /** Ends the reader's answer, for it to come back to another process. */
  suspend(): void {
    // Half of an event is let go of by its client, which asks for it again.
    if (this.takesEvents) this.write(Buffer.from(`retry: ${this.terms.retry}\n\n`))
    this.dismiss()
  }

  /** The reader takes no more for now. */
  pause(): void {
    this.isPaused = true
    this.deadline.clear()
  }

  unpause(): void {
    this.isPaused = false
    this.pump()
  }

  expire(): void {
    const holdsUp = this.isUpstreamPaused && this.upstream.isShared === true && !this.log.hasEnded
    if (holdsUp) this.dismiss()
    // A comment inside of an event would become part of it.
    else if (this.isMidEvent) this.deadline.set(this.terms.keepAlive)
    else this.write(KEEP_ALIVE)
  }

  /** Reads on from the log, until the reader takes no more. */
  private pump(): void {
    for (let next = this.log.after(this.position); next !== undefined; next = this.log.after(this.position)) {
      this.pass(next)
      if (this.isPaused) return this.wait()
    }
    if (this.log.hasEvicted(this.position)) return this.dismiss()
    this.count(nothing)
    this.resumeUpstream()
    if (this.log.hasEnded) this.finish()
    else this.deadline.set(this.terms.keepAlive)
  }

  /** The reader takes no more for now: with too much behind it, the upstream has to wait too. */
  private wait(): void {
    if (this.log.hasEvicted(this.position)) return this.dismiss()
    this.count({
      events: this.log.lastSequence - this.position,
      bytes: this.log.bytesAfter(this.position)
    })
    if (this.terms.backlog.reaches(this.terms.bounds, 1 / 2)) this.pauseUpstream()
  }

  private count(unread: Amount): void {
    this.terms.backlog.replace(this.unread, unread)
    this.unread = unread
  }

  private flush(): void {
    if (this.log.hasEvicted(this.position)) return this.dismiss()
    for (let next = this.log.after(this.position); next !== undefined; next = this.log.after(this.position)) {
      this.pass(next)
    }
    this.count(nothing)
  }

  private pass(event: StreamEvent): void {
    this.position = event.sequence
    this.write(event.frame)
  }

  private write(bytes: Buffer): void {
    this.deadline.set(this.terms.keepAlive)
    this.reader?.data(bytes)
  }

  /** What was let go of cannot be told any more; for a standalone stream what is left is still worth having. */
  private tellLost(): void {
    const { requests } = this.log
    if (requests.length === 0) {
      this.write(LOST)
      this.position = this.log.evictedUpTo
      return this.pump()
    }
    for (const id of requests) this.write(frame(toJsonRpc(new EventsLost(), id)))
    this.isLost = true
    this.log.remove()
    this.dismiss()
  }

  private finish(): void {
    const { log, reader } = this
    const { replayCount } = log
    this.letGo()
    reader?.end(() => {
      // Who has come back since reads it once more.
      if (log.replayCount === replayCount) log.markDelivered()
    })
  }

  /** Whether another event would be more than is kept, for this stream or, with what others hold back, for the session. */
  private isAtBound(event: Omit<StreamEvent, "sequence">): boolean {
    const { backlog, bounds } = this.terms
    return eventCost(event) + ID_LINE + this.unread.bytes > bounds.bytes || backlog.reaches(bounds, 3 / 4)
  }

  private get now(): number {
    return this.terms.deadlines.clock.unsafeCurrentTimeMillis()
  }

  private letGo(): void {
    const wasRead = this.reader !== undefined
    this.reader = undefined
    this.isPaused = false
    this.isMidEvent = false
    this.count(nothing)
    this.deadline.clear()
    this.resumeUpstream()
    if (wasRead) {
      this.leftAt = this.now
      this.upstream.attended?.(false)
    }
    if (this.log.hasEnded) this.rests(this)
  }

  private pauseUpstream(): void {
    if (this.upstream.isShared === true) this.deadline.set(PATIENCE)
    if (this.isUpstreamPaused) return
    this.isUpstreamPaused = true
    this.upstream.pause()
  }

  private resumeUpstream(): void {
    if (!this.isUpstreamPaused) return
    this.isUpstreamPaused = false
    this.upstream.unpause()
  }
}

/** How long others wait, in milliseconds, for a reader that takes nothing; it has to come back then. */
const PATIENCE = 5_000

/** There is no request that an error could answer. */
const LOST = Buffer.from(": some of what came meanwhile is no longer kept\n\n")

/** The line of an event's id, in bytes, at most. */
const ID_LINE = "id: \n".length + MAX_LENGTH
