/** Reads a stream of the upstream's, event by event, into the log that it is delivered from. */
import type { StreamWriter } from "./StreamWriter.js"
import type { SessionLog } from "../EventTracker.js"
import { type EventHandler, readEvents } from "../Protocol/SseEvents.js"
import { FrameSplitter, messages } from "../Protocol/SseFrames.js"
import { Window } from "../internal/window.js"
import type { RequestId } from "../Protocol.js"
import type { Broken } from "./Resumption.js"
import type { TelemetryListener } from "../Telemetry.js"
import type { Flow } from "../Upstream.js"

/** Whom the stream is read for. */
export interface Awaiting {
  /** The requests whose responses are still awaited. */
  readonly requests: ReadonlyArray<RequestId>
  /** Looks what the upstream says with a frame. */
  readonly note: (frame: Buffer) => void
  /** The stream goes on, on another connection. */
  readonly follow: (flow: Flow) => void
}

/** How large an event may be, in bytes, to be held until it is whole; a larger one is passed on in pieces. */
const MAX_EVENT = 16 * 1024 * 1024

export class StreamReader implements Broken, EventHandler {
  lastEventId: string | undefined
  retryAfter: number | undefined
  progress = 0
  private splitter: FrameSplitter
  private isResumed = false
  /** The ids of this stream. */
  private own: Window | undefined
  /** Whether an event has passed in pieces, of which nobody knows what it said. */
  private isHoled = false
  private inPieces: StreamWriter | undefined

  constructor(
    private readonly awaiting: Awaiting,
    /** Whether it answers requests, rather than being a standalone stream. */
    private readonly answers: boolean,
    /** Where the next event goes. */
    private readonly target: () => StreamWriter | undefined,
    private readonly log: SessionLog,
    private readonly telemetry: TelemetryListener
  ) {
    this.splitter = new FrameSplitter(MAX_EVENT, log)
  }

  get isComplete(): boolean {
    const isAnswered = this.awaiting.requests.length === 0 || this.isHoled
    return this.answers && isAnswered && !this.isMidEvent
  }

  /** Whether an event is being passed on in pieces. */
  private get isMidEvent(): boolean {
    return !this.splitter.isAtFrameEnd
  }

  /** Whether it can go on after it has broken. */
  get isResumable(): boolean {
    return !this.answers || this.lastEventId !== undefined
  }

  restarted(flow: Flow): void {
    this.close()
    this.splitter = new FrameSplitter(MAX_EVENT, this.log)
    this.isResumed = true
    this.awaiting.follow(flow)
  }

  data(chunk: Uint8Array): void {
    const end = this.isMidEvent ? this.splitter.firstFrameEnd(chunk) : 0
    if (end === 0 || end === chunk.length) return this.read(chunk)
    // What comes behind an event that passes in pieces is no piece of it.
    this.read(chunk.subarray(0, end))
    this.read(chunk.subarray(end))
  }

  private read(chunk: Uint8Array): void {
    const isFirst = !this.isMidEvent
    const frames = this.splitter.push(chunk)
    if (frames === undefined) return
    const isLast = !this.isMidEvent
    if (isFirst && isLast) return readEvents(frames, this)
    // Whoever is told the beginning is told the rest.
    if (isFirst) this.inPieces = this.target()
    this.inPieces?.passPiece(frames, { isFirst, isLast })
    if (isLast) this.isHoled = true
  }

  /** Nothing more is read. */
  close(): void {
    this.splitter.close()
    if (this.isMidEvent) this.inPieces?.breakOff()
  }

  event(frame: Buffer, given: string | undefined): void {
    const id = given === undefined ? undefined : within(given)
    // What belongs to another stream is new there, and no place in this one.
    if (this.isResumed && !this.belongs(frame)) return
    if (id !== undefined && !this.isNews(id)) return
    this.progress++
    this.awaiting.note(frame)
    const target = this.target()
    target?.append(frame, id === "" ? undefined : id)
    if (id === "") target?.log.setCursor(undefined)
  }

  idOnly(given: string): void {
    const id = within(given)
    if (!this.isNews(id)) return
    this.progress++
    this.target()?.log.setCursor(this.lastEventId)
  }

  /** Notes where the stream stands; an empty id takes back the one before (WHATWG HTML, "The Last-Event-ID header"). */
  private isNews(id: string): boolean {
    this.lastEventId = id === "" ? undefined : id
    if (id === "" || !this.isRepeated(id)) return true
    this.telemetry.duplicateDropped()
    return false
  }

  /** Only a stream that goes on is repeated: one that has not broken tells whether ids are those of one stream each. */
  private isRepeated(id: string): boolean {
    const isKnown = !this.log.addUpstreamId(id)
    if (!this.isResumed) this.log.hasPerStreamIds ||= isKnown
    const isOwn = !(this.own ??= new Window()).add(id)
    return this.isResumed && (this.log.hasPerStreamIds ? isOwn : isKnown)
  }

  retry(millis: number): void {
    this.retryAfter = millis
  }

  /** Some servers repeat what was on other streams, and their own marks. */
  private belongs(frame: Buffer): boolean {
    const found = messages(frame)
    return (
      found.length > 0 &&
      found.every(
        ({ id, method }) => method !== undefined || this.awaiting.requests.some((request) => request === id)
      )
    )
  }
}

/** The longest id of the upstream's that is remembered, in characters. */
const MAX_ID = 1_024

/** A longer one counts as none, as an empty one does: it would fit into no header, and into no bound of memory. */
const within = (id: string): string => (id.length > MAX_ID ? "" : id)
