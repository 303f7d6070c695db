/**
 * Writes a stream from its log to the client that reads it, at the speed at which the client reads. The upstream is
 * also read while the stream has no reader.
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

/** The dependencies that the writers of a session share. */
export interface StreamWriterDeps {
  readonly deadlines: Deadlines
  readonly telemetry: TelemetryListener
  /** The silence on a stream after which a comment is sent, in milliseconds. */
  readonly keepAlive: number
  /** The reconnection time that clients receive, in milliseconds. */
  readonly retry: number
  /** True if streams begin with a priming event, which has an id and no data. */
  readonly hasPrimingEvents: boolean
  /** The limits on the retained events of a session. At half of a limit the upstream is paused. */
  readonly limits: UnreadEvents
  /** The unread events of all streams of the session. */
  readonly backlog: Backlog
}

/** The source of a stream. */
export interface StreamSource extends Flow {
  /** Notifies the source that a client has reconnected, or has disconnected. */
  readonly readerChanged?: (hasReader: boolean) => void
}

/** The time after which a client that does not read, and so blocks other streams, is disconnected, in milliseconds. */
const BLOCKING_TIMEOUT = 5_000

/** The maximum length of the line with an event's id, in bytes. */
const ID_LINE = "id: \n".length + MAX_LENGTH

/** The comment in place of evicted events on a standalone stream, which has no request to answer with an error. */
const EVICTED = Buffer.from(": some events are no longer kept\n\n")

type Reader =
  /** No client has read since this time, in milliseconds since 1970. */
  | { readonly type: "absent"; readonly since: number }
  | { readonly type: "reading"; readonly response: ClientResponse }
  /** The client does not read now. */
  | { readonly type: "paused"; readonly response: ClientResponse }
  /** Events were evicted before the client read them, at this time. Nothing more is written. */
  | { readonly type: "failed"; readonly since: number }

export class StreamWriter implements Flow, Expirable, SlotSetItem {
  slot = NO_SLOT
  private reader: Reader = { type: "absent", since: 0 }
  /** The sequence of the last event that was written to the client. */
  private position = 0
  /** The share of this stream in the session's backlog. */
  private unread: UnreadEvents = noUnreadEvents
  private isUpstreamPaused = false
  /** True if the client has received the beginning of an event that passes in pieces. */
  private isMidEvent = false
  private readonly deadline: Deadline

  constructor(
    readonly log: StreamLog,
    private readonly deps: StreamWriterDeps,
    private readonly source: StreamSource,
    /** Called when the stream has ended and has no reader. The log keeps undelivered events. */
    private readonly ended: (writer: StreamWriter) => void
  ) {
    this.deadline = deps.deadlines.create(this)
  }

  get hasReader(): boolean {
    return this.response !== undefined
  }

  /** True if a client reads, and no event is being written in pieces. */
  get takesEvents(): boolean {
    return this.hasReader && !this.isMidEvent
  }

  /** True if the client has an event id to reconnect with. */
  get isResumable(): boolean {
    return this.deps.hasPrimingEvents || this.log.lastSequence > 0
  }

  /** The time since the last client disconnected, in milliseconds; 0 while a client reads. */
  get absence(): number {
    return "since" in this.reader ? this.now - this.reader.since : 0
  }

  /** Opens the response to the first client. */
  open(response: ClientResponse, status: number, headers: MutableHeaders): void {
    this.reader = { type: "reading", response }
    response.head(status, headers, this)
    // With the id of the priming event, a client can reconnect before the first event (2025-11-25). Older clients
    // reject it.
    const { hasPrimingEvents, keepAlive, retry } = this.deps
    if (hasPrimingEvents) this.write(Buffer.from(`id: ${this.log.idAt(0)}\nretry: ${retry}\ndata: \n\n`))
    else this.deadline.set(keepAlive)
    if (this.log.lastSequence > 0) this.writeUnread()
  }

  /** Continues after an event, for a client that has reconnected. Ends the response on its older connection. */
  resume(response: ClientResponse, headers: MutableHeaders, position: number): void {
    this.dismiss()
    // The retention time must not remove a stream while a client reads it.
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

  /** Appends an event to the log and writes it. `upstreamId` is the id that the upstream gave to the event. */
  append(event: Buffer, upstreamId: string | undefined): void {
    if (this.reader.type === "failed") return
    this.cutEvent()
    // Write all unread events and pause the upstream, because appending would evict unread events.
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

  /** Ends the client's response, so that the client reconnects to the next process. */
  suspend(): void {
    // A client drops an incomplete event and requests it again.
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
    // A comment inside an event would become part of the event.
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

  /** Writes a piece of an event that is too large to be logged. The piece cannot be replayed. */
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

  /** Ends an event whose other pieces will not arrive. */
  private cutEvent(): void {
    if (!this.isMidEvent) return
    this.isMidEvent = false
    this.write(FRAME_END)
  }

  /** Writes from the log until the client does not read more. */
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

  /** Counts the unread events of a paused client, and pauses the upstream at half of a limit. */
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

  /** Writes all unread events from the log, even if the client is paused. */
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

  /** Answers the stream's requests with an error, because events were evicted. A standalone stream skips events. */
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
      // If a client has reconnected since, it reads the stream again.
      if (log.replayCount === replayCount) log.markDelivered()
    })
  }

  /** True if this event would cause the eviction of unread events. */
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
