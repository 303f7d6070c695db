/** Reads all answers of one session, and resumes broken streams. The session's interceptors wrap this upstream. */
import type { SessionLog } from "../EventTracker.js"
import type { Headers } from "../internal/headers.js"
import { SlotSet } from "../internal/slotSet.js"
import { type Body, cancelledNotification, cancelledRequestId, type RequestId } from "../Protocol.js"
import {
  type Abort,
  ignoreAnswer,
  nothingToAbort,
  type Request,
  type Sink,
  type Upstream
} from "../Upstream.js"
import type { UpstreamSession } from "../UpstreamSession.js"
import { requestFor } from "../UpstreamSession/request.js"
import { StreamReader, type StreamReaderDeps } from "./StreamReader.js"

export interface ResumableUpstreamDeps extends Omit<StreamReaderDeps, "upstream" | "log" | "cancel"> {
  readonly upstream: StreamReaderDeps["upstream"] & Pick<UpstreamSession, "ownHeaders">
}

export class ResumableUpstream implements Upstream {
  readonly name: string
  private readonly readers = new SlotSet<StreamReader>()
  private readonly readerDeps: StreamReaderDeps & { log: SessionLog | undefined }

  constructor({ fork, report, telemetry, upstream }: ResumableUpstreamDeps) {
    this.name = upstream.name
    // Each session has this object. Spread syntax would give each a hidden class of its own, of about 300 bytes.
    this.readerDeps = {
      upstream,
      log: undefined,
      telemetry,
      report,
      cancel: (ids) => this.cancel(ids, upstream.ownHeaders),
      fork
    }
  }

  /** Starts to track event streams, with the ids in this log. Without a log, streams are forwarded unchanged. */
  track(log: SessionLog | undefined): void {
    this.readerDeps.log = log
  }

  exchange(request: Request, sink: Sink): Abort {
    if (request.body !== undefined) this.noteCancelled(request.body)
    const reader = new StreamReader(this.readerDeps, request, sink, this.forget)
    this.readers.add(reader)
    return reader.start(request)
  }

  /** Notes that another upstream session has replaced the lost one. Broken streams of the lost one fail. */
  sessionLost(): void {
    for (const reader of this.readers) reader.sessionLost()
  }

  /** Aborts every exchange. */
  close(): void {
    for (const reader of this.readers) reader.abort()
  }

  private readonly forget = (reader: StreamReader): void => this.readers.delete(reader)

  private noteCancelled({ messages }: Body): void {
    for (const message of messages) {
      const id = cancelledRequestId(message)
      if (id !== undefined) for (const reader of this.readers) reader.cancel(id)
    }
  }

  /** Cancels requests that reached the proxy's time limit, because the upstream may still work on them. */
  private cancel(ids: ReadonlyArray<RequestId>, headers: Headers): void {
    for (const id of ids) {
      const message = cancelledNotification(id, "The proxy's time limit for the request has passed")
      let abort: Abort = nothingToAbort
      abort = this.exchange(requestFor(message, headers), {
        ...ignoreAnswer,
        head: () => abort()
      })
    }
  }
}
