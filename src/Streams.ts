/** The streams of a session that its client can come back to. */
import { type ClientResponse, type Disconnect, refuse } from "./ClientResponse.js"
import { StreamWriter, type Source, type Terms } from "./Streams/StreamWriter.js"
import type { SessionLog, StreamLog } from "./EventTracker.js"
import { SlotSet } from "./internal/slotSet.js"
import type { MutableHeaders } from "./internal/headers.js"
import { streaming } from "./Upstream/headers.js"
import { EVENT_STREAM } from "./Protocol/SseFrames.js"
import { type RequestId, SESSION_ID } from "./Protocol.js"
import { BadRequest } from "./ProxyError.js"
import { type Flow, noFlow } from "./Upstream.js"

/** A place in a standalone stream that its client comes back to. */
export interface Back {
  readonly delivery: StreamWriter
  readonly sequence: number
  /** Whether something has come behind it. */
  readonly missed: boolean
}

/** How many standalone streams are kept whose clients have gone. */
const MAX_LEFT = 4

export class Streams {
  /** The streams that answer requests and still go on, and those that have ended and are being read. */
  private readonly answers = new SlotSet<StreamWriter>()
  /** The client's standalone streams, oldest first. */
  private readonly standalone = new Set<StreamWriter>()

  constructor(
    readonly log: SessionLog,
    private readonly terms: Terms,
    /** The session's id, as every answer names it. */
    private readonly id: string
  ) {}

  /** How many clients read a standalone stream. */
  get attended(): number {
    let count = 0
    for (const { isAttended } of this.standalone) if (isAttended) count++
    return count
  }

  /** Whether anybody reads any of them. */
  get isAttended(): boolean {
    return this.attended > 0 || this.answers.count(({ isAttended }) => isAttended) > 0
  }

  /** The stream that answers these requests. */
  answering(requests: ReadonlyArray<RequestId>, upstream: Source): StreamWriter {
    return this.goOn(this.log.createStream(requests), upstream)
  }

  /**
   * A standalone stream of the client's, with what came while it read none. Of those that it has left, only the latest
   * can be come back to.
   */
  listening(upstream: Flow): StreamWriter {
    const left = Array.from(this.standalone).filter(({ isAttended }) => !isAttended)
    for (const old of left.slice(0, -MAX_LEFT)) {
      this.standalone.delete(old)
      old.log.remove()
    }
    const delivery = this.delivery(this.log.createStream([]), upstream)
    if (this.attended === 0) this.newest?.handOver(delivery)
    this.standalone.add(delivery)
    return delivery
  }

  /** A standalone stream that an earlier process has begun; its client may come back. */
  takeUp(log: StreamLog, upstream: Flow): void {
    this.standalone.add(this.delivery(log, upstream))
  }

  /** Goes on with a stream that answers requests, which an earlier process has begun. */
  goOn(log: StreamLog, upstream: Source): StreamWriter {
    const delivery = this.delivery(log, upstream)
    this.answers.add(delivery)
    return delivery
  }

  /** Whether an event id is of a standalone stream, even of one that is not known any more. */
  isStandalone(eventId: string): boolean {
    return this.log.find(eventId)?.stream?.requests.length === 0
  }

  /** The place in a standalone stream that an event id names. */
  standaloneAt(eventId: string): Back | undefined {
    const place = this.log.find(eventId)
    const delivery = Array.from(this.standalone).find(({ log }) => log === place?.stream)
    return place === undefined || delivery === undefined
      ? undefined
      : { delivery, sequence: place.sequence, missed: place.sequence < delivery.log.lastSequence }
  }

  /** The event of the upstream's behind which what feeds the standalone streams goes on. */
  get cursor(): string | undefined {
    return Array.from(this.standalone).findLast(({ log }) => log.cursor !== undefined)?.log.cursor
  }

  /** Where a message goes that answers nothing: to the newest standalone stream that is read, else to the newest. */
  get newest(): StreamWriter | undefined {
    const all = Array.from(this.standalone)
    return all.findLast(({ isAttended }) => isAttended) ?? all.at(-1)
  }

  /** A client comes back to the stream that an event id names. */
  resume(eventId: string, answer: ClientResponse): Disconnect {
    const place = this.log.find(eventId)
    if (place === undefined) return refuse(answer, new BadRequest({ reason: "UnknownEvent" }))
    const { sequence, stream } = place
    if (stream === undefined || (stream.hasEnded && sequence === stream.lastSequence))
      return refuse(answer, new BadRequest({ reason: "StreamEnded" }))
    const delivery = this.all.find(({ log }) => log === stream) ?? this.delivery(stream, noFlow)
    answer.settled()
    delivery.comeBack(answer, this.head, sequence)
    if (delivery.isAttended && !this.standalone.has(delivery)) this.answers.add(delivery)
    return () => delivery.leave(answer)
  }

  /** A client comes back to a standalone stream. */
  comeBack({ delivery, sequence }: Back, answer: ClientResponse, headers = this.head): Disconnect {
    answer.settled()
    delivery.comeBack(answer, headers, sequence)
    return () => delivery.leave(answer)
  }

  /** A client that read a standalone stream has gone. */
  leave(answer: ClientResponse): void {
    for (const delivery of this.standalone) delivery.leave(answer)
  }

  /** The head of a stream that the proxy itself begins. */
  get head(): MutableHeaders {
    return streaming({ "content-type": EVENT_STREAM, [SESSION_ID]: this.id })
  }

  /** A standalone stream beside those that the upstream feeds already. */
  join(answer: ClientResponse, upstream: Flow): Disconnect {
    const delivery = this.listening(upstream)
    answer.settled()
    delivery.begin(answer, 200, this.head)
    return () => delivery.leave(answer)
  }

  /** Nothing feeds the standalone streams any more: whoever comes back has the upstream asked again. */
  dismiss(): void {
    for (const delivery of this.standalone) delivery.dismiss()
  }

  /**
   * Says something of the proxy's own on a stream that is open; where none is, only what must not get lost, to whoever
   * comes back to the newest standalone one.
   */
  tell(event: Buffer, isUrgent: boolean): void {
    const open = this.all.findLast(({ takesEvents }) => takesEvents)
    const delivery = open ?? (isUrgent ? this.newest : undefined)
    delivery?.append(event, undefined)
  }

  /** Whoever reads is to come back to another process. */
  suspend(): void {
    for (const delivery of this.all) delivery.suspend()
  }

  /** Ends everything: nobody can come back. */
  close(): void {
    for (const delivery of this.all) delivery.dismiss()
  }

  private get all(): ReadonlyArray<StreamWriter> {
    return [...this.answers, ...this.standalone]
  }

  private delivery(log: StreamLog, upstream: Source): StreamWriter {
    return new StreamWriter(log, this.terms, upstream, (delivery) => this.answers.delete(delivery))
  }
}
