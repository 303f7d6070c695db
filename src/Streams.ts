/** The streams of a session that its client can reconnect to. */
import { type ClientResponse, type Disconnect, refuse } from "./ClientResponse.js"
import type { SessionLog, StreamLog } from "./EventTracker.js"
import type { MutableHeaders } from "./internal/headers.js"
import { SlotSet } from "./internal/slotSet.js"
import { EVENT_STREAM } from "./Protocol/SseFrames.js"
import type { RequestId } from "./Protocol.js"
import { BadRequest } from "./ProxyError.js"
import { type StreamSource, StreamWriter, type StreamWriterDeps } from "./Streams/StreamWriter.js"
import { type Flow, noFlow } from "./Upstream.js"
import { streaming, toClient } from "./Upstream/headers.js"

/** A position in a standalone stream at which a client reconnects. */
export interface Reconnection {
  readonly writer: StreamWriter
  readonly sequence: number
  /** True if the client has missed events. */
  readonly hasMissedEvents: boolean
}

/** The maximum number of older standalone streams without a reader that are kept. */
const MAX_UNREAD_STREAMS = 4

export class Streams {
  /** The streams that answer requests, and that have not ended or have a reader. */
  private readonly answers = new SlotSet<StreamWriter>()
  /** The client's standalone streams, oldest first. */
  private readonly standalone = new Set<StreamWriter>()

  constructor(
    readonly log: SessionLog,
    private readonly deps: StreamWriterDeps,
    /** The session's id, for the head of each response. */
    private readonly sessionId: string
  ) {}

  /** The number of standalone streams that a client reads. */
  get openStandalone(): number {
    let count = 0
    for (const { hasReader } of this.standalone) if (hasReader) count++
    return count
  }

  /** True if a client reads any stream. */
  get hasReader(): boolean {
    return this.openStandalone > 0 || this.answers.count(({ hasReader }) => hasReader) > 0
  }

  /** Creates a stream that answers these requests. */
  openAnswer(requests: ReadonlyArray<RequestId>, source: StreamSource): StreamWriter {
    return this.continueAnswer(this.log.createStream(requests), source)
  }

  /** Continues a stream that an earlier process opened to answer requests. */
  continueAnswer(log: StreamLog, source: StreamSource): StreamWriter {
    const writer = this.createWriter(log, source)
    this.answers.add(writer)
    return writer
  }

  /**
   * Creates a standalone stream. If no other one has a reader, undelivered events of the newest one move to it. Removes
   * the oldest streams without a reader, so that clients can no longer reconnect to them.
   */
  openStandaloneStream(source: Flow): StreamWriter {
    const unread = Array.from(this.standalone).filter(({ hasReader }) => !hasReader)
    for (const old of unread.slice(0, -MAX_UNREAD_STREAMS)) {
      this.standalone.delete(old)
      old.log.remove()
    }
    const writer = this.createWriter(this.log.createStream([]), source)
    if (this.openStandalone === 0) this.newest?.moveUndelivered(writer)
    this.standalone.add(writer)
    return writer
  }

  /** Continues a standalone stream that an earlier process opened. The client may reconnect to it. */
  continueStandaloneStream(log: StreamLog, source: Flow): void {
    this.standalone.add(this.createWriter(log, source))
  }

  /** True if an event id belongs to a standalone stream, even if its events are evicted or were not stored. */
  isStandalone(eventId: string): boolean {
    return this.log.find(eventId)?.stream?.requests.length === 0
  }

  /** Returns the position in a standalone stream that an event id names. */
  standaloneAt(eventId: string): Reconnection | undefined {
    const position = this.log.find(eventId)
    const writer = Array.from(this.standalone).find(({ log }) => log === position?.stream)
    return position === undefined || writer === undefined
      ? undefined
      : {
          writer,
          sequence: position.sequence,
          hasMissedEvents: position.sequence < writer.log.lastSequence
        }
  }

  /** The upstream's id of the last event, from the newest standalone stream that has one. */
  get cursor(): string | undefined {
    return Array.from(this.standalone).findLast(({ log }) => log.cursor !== undefined)?.log.cursor
  }

  /** The target of unsolicited messages: the newest standalone stream with a reader, or else the newest one. */
  get newest(): StreamWriter | undefined {
    const all = Array.from(this.standalone)
    return all.findLast(({ hasReader }) => hasReader) ?? all.at(-1)
  }

  /** Reconnects a client to the stream that an event id names. */
  resume(eventId: string, response: ClientResponse): Disconnect {
    const position = this.log.find(eventId)
    if (position === undefined) return refuse(response, new BadRequest({ reason: "UnknownEventId" }))
    const { sequence, stream } = position
    if (stream === undefined || (stream.hasEnded && sequence === stream.lastSequence))
      return refuse(response, new BadRequest({ reason: "StreamEnded" }))
    const writer = this.all.find(({ log }) => log === stream) ?? this.createWriter(stream, noFlow)
    response.settled()
    writer.resume(response, this.head, sequence)
    if (writer.hasReader && !this.standalone.has(writer)) this.answers.add(writer)
    return () => writer.disconnect(response)
  }

  /** Reconnects a client to a standalone stream. */
  reconnect(
    { sequence, writer }: Reconnection,
    response: ClientResponse,
    headers: MutableHeaders = this.head
  ): Disconnect {
    response.settled()
    writer.resume(response, headers, sequence)
    return () => writer.disconnect(response)
  }

  /** Opens another standalone stream for a client, while the upstream's stream is open. */
  join(response: ClientResponse, source: Flow): Disconnect {
    const writer = this.openStandaloneStream(source)
    response.settled()
    writer.open(response, 200, this.head)
    return () => writer.disconnect(response)
  }

  /** Notes that the client of a standalone stream has disconnected. */
  disconnect(response: ClientResponse): void {
    for (const writer of this.standalone) writer.disconnect(response)
  }

  /** Ends the responses of the standalone streams, because the upstream's stream has ended. Clients can reconnect. */
  dismissStandalone(): void {
    for (const writer of this.standalone) writer.dismiss()
  }

  /**
   * Sends an event of the proxy itself on an open stream. Without an open stream, an urgent event is appended to the
   * newest standalone stream, for a client that reconnects to it. Any other event is dropped.
   */
  send(event: Buffer, isUrgent: boolean): void {
    const open = this.all.findLast(({ takesEvents }) => takesEvents)
    const writer = open ?? (isUrgent ? this.newest : undefined)
    writer?.append(event, undefined)
  }

  /** Ends all responses, so that clients reconnect to the next process. */
  suspend(): void {
    for (const writer of this.all) writer.suspend()
  }

  /** Ends all responses, because the session ends. */
  close(): void {
    for (const writer of this.all) writer.dismiss()
  }

  /** The header fields of a response to a client that joins or reconnects to a stream. */
  private get head(): MutableHeaders {
    return streaming(toClient({ "content-type": EVENT_STREAM }, this.sessionId))
  }

  private get all(): ReadonlyArray<StreamWriter> {
    return [...this.answers, ...this.standalone]
  }

  private createWriter(log: StreamLog, source: StreamSource): StreamWriter {
    return new StreamWriter(log, this.deps, source, this.forget)
  }

  private readonly forget = (writer: StreamWriter): void => this.answers.delete(writer)
}
