/**
 * Writes a stream from its log to the client that reads it, no faster than the client reads. The upstream is read
 * whether or not a client is there.
 */
import type { ClientResponse } from "../ClientResponse.js"
import { MAX_LENGTH } from "../EventTracker/EventId.js"
import { eventCost } from "../EventTracker/Retention.js"
import type { StreamEvent, StreamLog } from "../EventTracker/StreamLog.js"
import type { Deadline, Deadlines, Expirable } from "../internal/deadlines.js"
import type { MutableHeaders } from "../internal/headers.js"
import { NO_SLOT, type SlotSetItem } from "../internal/slotSet.js"
import { withEventId, withoutEventId, withoutIdAndRetry } from "../Protocol/SseEvents.js"
import { frame, FRAME_END, KEEP_ALIVE } from "../Protocol/SseFrames.js"
import { EventsEvicted, toJsonRpc } from "../ProxyError.js"
import type { TelemetryListener } from "../Telemetry.js"
import type { Flow, StreamPart } from "../Upstream.js"
import { type Backlog, noUnreadEvents, type UnreadEvents } from "./Backlog.js"

/** What the writers of a session have in common. */
export interface StreamWriterDeps {
  readonly deadlines: Deadlines
  readonly telemetry: TelemetryListener
  /** How long a stream may be silent before a comment is sent, in milliseconds. */
  readonly keepAlive: number
  /** How long clients are told to wait before they reconnect, in milliseconds. */
  readonly retry: number
  /** True if streams begin with a priming event, which holds an id alone. */
  readonly hasPrimingEvents: boolean
  /** The most that is retained for a session. At half of it the upstream is paused. */
  readonly limits: UnreadEvents
  /** The unread events of all streams of the session. */
  readonly backlog: Backlog
}

/** The source of a stream. */
export interface StreamSource extends Flow {
  /** Notifies the source that a client has reconnected, or has disconnected. */
  readonly readerChanged?: (hasReader: boolean) => void
}

/** How long a client that does not read may block the session's other streams, in milliseconds. It can reconnect. */
const BLOCKING_TIMEOUT = 5_000

/** The line of an event's id, in bytes, at most. */
const ID_LINE = "id: \n".length + MAX_LENGTH

/** Sent in place of evicted events of a standalone stream, where no request can be answered with an error. */
const EVICTED = Buffer.from(": some events are no longer kept\n\n")

type Reader =
  /** Nobody reads, since this time in milliseconds since 1970. */
  | { readonly type: "absent"; readonly since: number }
  | { readonly type: "reading"; readonly response: ClientResponse }
  /** The client does not take more for now. */
  | { readonly type: "paused"; readonly response: ClientResponse }
  /** Events were evicted before the client read them. Nothing more is written; nobody reads since this time. */
  | { readonly type: "failed"; readonly since: number }

export class StreamWriter implements Flow, Expirable, SlotSetItem {
  slot = NO_SLOT
  private reader: Reader = { type: "absent", since: 0 }
  /** The sequence number of the last event that the client was sent. */
  private position = 0
  /** The events that the client has not read, as the session's backlog counts them. */
  private unread: UnreadEvents = noUnreadEvents
  private isUpstreamPaused = false
  /** True if the client has the beginning of an event that passes in pieces. */
  private isMidEvent = false
  private readonly deadline: Deadline

  constructor(
    readonly log: StreamLog,
    private readonly deps: StreamWriterDeps,
    private readonly source: StreamSource,
    /** Called when the stream has ended and nobody reads it: the log holds what is left to deliver. */
    private readonly ended: (writer: StreamWriter) => void
  ) {
    this.deadline = deps.deadlines.create(this)
  }

  get hasReader(): boolean {
    return this.response !== undefined
  }

  /** True if a client reads, and does not wait for the rest of an event. */
  get takesEvents(): boolean {
    return this.hasReader && !this.isMidEvent
  }

  /** True if the client has an event id to reconnect with. */
  get isResumable(): boolean {
    return this.deps.hasPrimingEvents || this.log.lastSequence > 0
  }

  /** How long nobody has read the stream, in milliseconds. */
  get absence(): number {
    return "since" in this.reader ? this.now - this.reader.since : 0
  }

  /** Opens the response to the first client. */
  open(response: ClientResponse, status: number, headers: MutableHeaders): void {
    this.reader = { type: "reading", response }
    response.head(status, headers, this)
    // The priming event lets a client reconnect before the first event (2025-11-25). Older clients reject it.
    const { hasPrimingEvents, keepAlive, retry } = this.deps
    if (hasPrimingEvents) this.write(Buffer.from(`id: ${this.log.idAt(0)}\nretry: ${retry}\ndata: \n\n`))
    else this.deadline.set(keepAlive)
    if (this.log.lastSequence > 0) this.writeUnread()
  }

  /** Continues behind an event, for a client that has reconnected. Its older connection ends. */
  resume(response: ClientResponse, headers: MutableHeaders, position: number): void {
    this.dismiss()
    // A stream that is read is not removed for its age.
    this.log.beginReplay()
    this.reader = { type: "reading", response }
    this.source.readerChanged?.(true)
    this.position = position
    response.head(200, headers, this)
    this.deadline.set(this.deps.keepAlive)
    if (this.log.hasEvicted(position)) return this.reportEvicted()
    this.deps.telemetry.eventsReplayed(this.log.lastSequence - position)
    this.writeUnread()
  }

  /** Writes a part of the upstream's stream. */
  add(bytes: Buffer, part: StreamPart): void {
    switch (part.type) {
      case "event":
        return this.append(bytes, part.id)
      case "cursor":
        return this.log.setCursor(part.id)
      case "piece":
        return this.appendPiece(bytes, part)
      case "break":
        return this.cutEvent()
      case "complete":
        return
    }
  }

  /** Appends an event to the log and writes it. `upstreamId` is the upstream's id of it. */
  append(event: Buffer, upstreamId: string | undefined): void {
    if (this.reader.type === "failed") return
    this.cutEvent()
    // Rather than evict events that the client has not read, write them all and pause the upstream.
    const isUrgent = this.isPaused && this.isAtLimit({ frame: event, upstreamId })
    if (isUrgent) this.flush()
    const logged = this.log.append(event, upstreamId)
    if (!this.hasReader) return
    if (isUrgent || !this.isPaused) this.writeEvent(logged)
    if (isUrgent) this.pauseUpstream()
    else if (this.isPaused) this.noteUnread()
  }

  /** Moves undelivered events to another stream. */
  moveUndelivered(to: StreamWriter): void {
    for (let next = this.log.after(this.position); next !== undefined; next = this.log.after(next.sequence)) {
      to.append(withoutEventId(next.frame), next.upstreamId)
    }
    this.position = this.log.lastSequence
    this.log.clear()
  }

  /** Ends the stream. */
  end(): void {
    this.cutEvent()
    this.log.end()
    if (!this.hasReader) this.ended(this)
    else if (!this.isPaused) this.finish()
  }

  /** Notes that a client has disconnected. */
  disconnect(response: ClientResponse): void {
    if (this.response === response) this.detach()
  }

  /** Ends the client's response. The client can reconnect. */
  dismiss(): void {
    const { response } = this
    this.detach()
    response?.end()
  }

  /** Ends the client's response, for the client to reconnect to another process. */
  suspend(): void {
    // A client that has half an event drops it and requests it again.
    if (this.takesEvents) this.write(Buffer.from(`retry: ${this.deps.retry}\n\n`))
    this.dismiss()
  }

  pause(): void {
    if (this.response !== undefined) this.reader = { type: "paused", response: this.response }
    this.deadline.clear()
  }

  unpause(): void {
    if (this.response === undefined) return
    this.reader = { type: "reading", response: this.response }
    this.writeUnread()
  }

  expire(): void {
    const isBlocking = this.isUpstreamPaused && this.source.isShared === true && !this.log.hasEnded
    if (isBlocking) this.dismiss()
    // A comment inside an event would become part of it.
    else if (this.isMidEvent) this.deadline.set(this.deps.keepAlive)
    else this.write(KEEP_ALIVE)
  }

  /** The response of the client that reads. */
  private get response(): ClientResponse | undefined {
    return "response" in this.reader ? this.reader.response : undefined
  }

  private get isPaused(): boolean {
    return this.reader.type === "paused"
  }

  private get now(): number {
    return this.deps.deadlines.clock.unsafeCurrentTimeMillis()
  }

  /** Writes a piece of an event that is too large to be logged. A client that misses a piece cannot get it again. */
  private appendPiece(piece: Buffer, { isFirst, isLast }: { isFirst: boolean; isLast: boolean }): void {
    if (this.reader.type === "failed") return
    if (isFirst) this.startEvent(piece)
    else if (this.isMidEvent) this.write(piece)
    if (isLast) this.isMidEvent = false
    if (this.isPaused) this.pauseUpstream()
  }

  private startEvent(piece: Buffer): void {
    this.cutEvent()
    this.flush()
    this.log.skip()
    if (!this.hasReader) return
    this.isMidEvent = true
    this.position = this.log.lastSequence
    this.write(withEventId(this.log.idAt(this.position), withoutIdAndRetry(piece)))
  }

  /** Ends an event of which the rest will not come. */
  private cutEvent(): void {
    if (!this.isMidEvent) return
    this.isMidEvent = false
    this.write(FRAME_END)
  }

  /** Writes from the log until the client takes no more. */
  private writeUnread(): void {
    for (let next = this.log.after(this.position); next !== undefined; next = this.log.after(this.position)) {
      this.writeEvent(next)
      if (this.isPaused) return this.noteUnread()
    }
    if (this.log.hasEvicted(this.position)) return this.dismiss()
    this.updateBacklog(noUnreadEvents)
    this.unpauseUpstream()
    if (this.log.hasEnded) this.finish()
    else this.deadline.set(this.deps.keepAlive)
  }

  /** Counts what a paused client has not read, and pauses the upstream if that is too much. */
  private noteUnread(): void {
    if (this.log.hasEvicted(this.position)) return this.dismiss()
    this.updateBacklog({
      events: this.log.lastSequence - this.position,
      bytes: this.log.bytesAfter(this.position)
    })
    if (this.deps.backlog.reaches(this.deps.limits, 1 / 2)) this.pauseUpstream()
  }

  private updateBacklog(unread: UnreadEvents): void {
    this.deps.backlog.update(this.unread, unread)
    this.unread = unread
  }

  /** Writes everything from the log, though the client is paused. */
  private flush(): void {
    if (this.log.hasEvicted(this.position)) return this.dismiss()
    for (let next = this.log.after(this.position); next !== undefined; next = this.log.after(this.position)) {
      this.writeEvent(next)
    }
    this.updateBacklog(noUnreadEvents)
  }

  private writeEvent(event: StreamEvent): void {
    this.position = event.sequence
    this.write(event.frame)
  }

  private write(bytes: Buffer): void {
    this.deadline.set(this.deps.keepAlive)
    this.response?.data(bytes)
  }

  /** Fails the stream's requests, because their events were evicted. A standalone stream continues with what is left. */
  private reportEvicted(): void {
    const { requests } = this.log
    if (requests.length === 0) {
      this.write(EVICTED)
      this.position = this.log.evictedUpTo
      return this.writeUnread()
    }
    for (const id of requests) this.write(frame(toJsonRpc(new EventsEvicted(), id)))
    this.log.remove()
    const { response } = this
    this.detach()
    this.reader = { type: "failed", since: this.now }
    response?.end()
  }

  private finish(): void {
    const { log, response } = this
    const { replayCount } = log
    this.detach()
    response?.end(() => {
      // A client that has reconnected since reads the stream again.
      if (log.replayCount === replayCount) log.markDelivered()
    })
  }

  /** True if another event would exceed the limits of this stream, or of the session with its other unread events. */
  private isAtLimit(event: Omit<StreamEvent, "sequence">): boolean {
    const { backlog, limits } = this.deps
    return eventCost(event) + ID_LINE + this.unread.bytes > limits.bytes || backlog.reaches(limits, 3 / 4)
  }

  private detach(): void {
    const { hasReader } = this
    if (hasReader) this.reader = { type: "absent", since: this.now }
    this.isMidEvent = false
    this.updateBacklog(noUnreadEvents)
    this.deadline.clear()
    this.unpauseUpstream()
    if (hasReader) this.source.readerChanged?.(false)
    if (this.log.hasEnded) this.ended(this)
  }

  private pauseUpstream(): void {
    if (this.source.isShared === true) this.deadline.set(BLOCKING_TIMEOUT)
    if (this.isUpstreamPaused) return
    this.isUpstreamPaused = true
    this.source.pause()
  }

  private unpauseUpstream(): void {
    if (!this.isUpstreamPaused) return
    this.isUpstreamPaused = false
    this.source.unpause()
  }
}
