/**
 * What the upstream says outside of requests: its one standalone stream, which feeds all those of the client, whether or
 * not somebody reads them (2025-11-25, Transports, "Listening for Messages from the Server").
 */
import type { ClientResponse, Disconnect } from "../ClientResponse.js"
import { isTransient } from "../internal/backoff.js"
import { first, type Headers, hasType } from "../internal/headers.js"
import { streaming, toClient } from "../Upstream/headers.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import { type Awaiting, StreamReader } from "./StreamReader.js"
import { BadRequest, type ProxyError, type UpstreamError } from "../ProxyError.js"
import { methodLabel } from "../Protocol.js"
import type { Broken } from "./Resumption.js"
import type { Back, Streams } from "../Streams.js"
import type { TelemetryListener, Outcome } from "../Telemetry.js"
import type { Abort, Flow, Request, Sink } from "../Upstream.js"
import type { UpstreamSession } from "../UpstreamSession.js"

/** The session that is fed. */
export interface Fed {
  readonly id: string
  readonly upstream: Pick<UpstreamSession, "exchange" | "listen">
  readonly telemetry: TelemetryListener
  /** Looks what the upstream asks of the client. */
  readonly heard: (frames: Buffer) => void
  /** Goes on with the stream where it has broken at the upstream; tells whether nothing more is to come. */
  readonly resume: (broken: Broken, done: (isComplete: boolean) => void) => Abort
  /** The upstream has failed; called before the client is told. */
  readonly failed: (error: UpstreamError) => void
  /** Something has come to its end; called last. */
  readonly settled: () => void
}

/** A client that waits to be told whether there is such a stream. */
interface Asking {
  readonly answer: ClientResponse
  /** The stream that it comes back to. */
  readonly back: Back | undefined
}

export class StandaloneStream implements Sink, Flow, Awaiting {
  readonly requests = []
  /** Whoever the upstream has been asked for, until it answers. */
  private asking: Asking | undefined
  private intake: StreamReader | undefined
  private isAsked = false
  /** Whether what it was asked with goes on; what has broken goes on elsewhere. */
  private isHeard = false
  private flow: Flow | undefined
  private isPaused = false
  private abort: Abort | undefined
  private startedAt = 0

  constructor(
    private readonly session: Fed,
    private readonly streams: Streams
  ) {}

  /** Whether a client waits for the upstream to say whether it has such a stream. */
  get isAwaited(): boolean {
    return this.asking !== undefined
  }

  get isShared(): boolean {
    return this.flow?.isShared === true
  }

  /** A client opens a standalone stream, or comes back to one. */
  listen(request: Request, answer: ClientResponse): Disconnect {
    const lastEventId = first(request.headers, "last-event-id")
    const back = lastEventId === undefined ? undefined : this.streams.standaloneAt(lastEventId)
    if (back === undefined && this.isAsked) return this.streams.join(answer, this)
    if (back !== undefined && (this.isAsked || back.missed)) {
      // What it has missed is worth more than to know at once whether there is more to come.
      const leave = this.streams.comeBack(back, answer)
      if (!this.isAsked)
        this.ask(undefined, (sink) => this.session.upstream.listen(this.streams.cursor, sink))
      return leave
    }
    const asking: Asking = { answer, back }
    this.ask(asking, (sink) =>
      lastEventId === undefined
        ? this.session.upstream.exchange(request, sink)
        : this.session.upstream.listen(this.streams.cursor, sink)
    )
    return () => this.leave(asking)
  }

  /** The upstream has begun anew: so does its stream, if anybody reads those that it feeds. */
  renew(): void {
    if (this.asking !== undefined) return
    this.abort?.()
    this.rest()
    if (this.streams.attended > 0)
      this.ask(undefined, (sink) => this.session.upstream.listen(undefined, sink))
  }

  /** Gives up the upstream's stream. */
  cut(error: ProxyError): void {
    if (!this.isAsked) return
    this.abort?.()
    if (this.asking === undefined) this.settle("answered")
    else this.refuse(error, "failed")
  }

  head(status: number, headers: Headers, flow: Flow): void {
    const { asking } = this
    this.flow = flow
    if (status >= 300 || !hasType(headers, EVENT_STREAM)) return this.pass(status, headers, asking)
    this.asking = undefined
    const isNew = asking !== undefined && asking.back === undefined
    const intake = this.begin(isNew ? undefined : this.streams.cursor)
    if (this.isPaused) flow.pause()
    const forClient = streaming(toClient(headers, this.session.id))
    if (isNew) {
      this.streams.listening(this).begin(asking.answer, status, forClient)
      return asking.answer.settled()
    }
    intake.restarted(flow)
    if (asking?.back !== undefined) this.streams.comeBack(asking.back, asking.answer, forClient)
  }

  data(chunk: Uint8Array): void {
    if (!this.isHeard) return
    if (this.intake !== undefined) this.intake.data(chunk)
    else this.asking?.answer.data(chunk)
  }

  end(): void {
    if (!this.isHeard) return
    if (this.intake !== undefined) return this.broken(this.intake)
    this.asking?.answer.end()
    this.settle("answered")
  }

  error(error: UpstreamError): void {
    if (!this.isHeard) return
    this.session.failed(error)
    if (this.intake !== undefined) this.broken(this.intake)
    else this.refuse(error, "failed")
  }

  note(frames: Buffer): void {
    this.session.heard(frames)
  }

  follow(flow: Flow): void {
    this.flow = flow
    if (this.isPaused) flow.pause()
  }

  /** Those who read do not keep up. */
  pause(): void {
    this.isPaused = true
    this.flow?.pause()
  }

  unpause(): void {
    this.isPaused = false
    this.flow?.unpause()
  }

  private ask(asking: Asking | undefined, send: (sink: Sink) => Abort): void {
    this.isAsked = true
    this.isHeard = true
    this.asking = asking
    this.startedAt = performance.now()
    const abort = send(this)
    if (this.isAsked && this.isHeard) this.abort ??= abort
    else abort()
  }

  /** What is no stream goes to whoever waits for it, as it is. */
  private pass(status: number, headers: Headers, asking: Asking | undefined): void {
    if (asking === undefined) {
      this.abort?.()
      return this.settle("rejected")
    }
    const { answer, back } = asking
    // Not with the upstream's own words: a 404 would tell the client that its session is over.
    if (back !== undefined && unknown.has(status)) {
      this.abort?.()
      return this.refuse(new BadRequest({ reason: "StreamEnded" }), "rejected")
    }
    if (back !== undefined && isTransient(status)) {
      this.abort?.()
      this.asking = undefined
      this.streams.comeBack(back, answer)
      return this.broken(this.begin(this.streams.cursor))
    }
    answer.head(status, toClient(headers, this.session.id), this)
  }

  /** Reads what comes for the streams that are open, behind an event. */
  private begin(lastEventId: string | undefined): StreamReader {
    const { log } = this.streams
    this.intake = new StreamReader(this, false, () => this.streams.newest, log, this.session.telemetry)
    this.intake.lastEventId = lastEventId
    return this.intake
  }

  private broken(intake: StreamReader): void {
    this.isHeard = false
    this.abort = this.session.resume(intake, () => {
      if (this.intake === intake) this.settle("answered")
    })
  }

  private leave(asking: Asking): void {
    if (this.asking !== asking) return this.streams.leave(asking.answer)
    this.abort?.()
    this.settle("disconnected")
  }

  private refuse(error: ProxyError, outcome: Outcome): void {
    this.asking?.answer.error(error)
    this.settle(outcome)
  }

  /** Nothing feeds the client's streams any more: they end, and whoever comes back has the upstream asked again. */
  private settle(outcome: Outcome): void {
    if (!this.isAsked) return
    const { asking } = this
    this.rest()
    this.session.telemetry.exchangeEnded(methodLabel(undefined), outcome, performance.now() - this.startedAt)
    this.streams.dismiss()
    this.session.settled()
    asking?.answer.settled()
  }

  private rest(): void {
    this.isAsked = false
    this.isHeard = false
    this.asking = undefined
    this.intake?.close()
    this.intake = undefined
    this.flow = undefined
    this.abort = undefined
  }
}

/** With what an upstream refuses to go on with a stream. */
const unknown: ReadonlySet<number> = new Set([400, 404, 405])
