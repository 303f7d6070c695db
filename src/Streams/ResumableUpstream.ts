/** Reads all answers of one session, and resumes the streams among them. The session's interceptors wrap it. */
import { SlotSet } from "../internal/slotSet.js"
import { type Body, cancelledRequestId } from "../Protocol.js"
import { type Abort, ignoreAnswer, type Request, type Sink, type Upstream } from "../Upstream.js"
import { StreamReader, type StreamReaderDeps } from "./StreamReader.js"

export class ResumableUpstream implements Upstream {
  readonly name: string
  private readonly readers = new SlotSet<StreamReader>()
  private readonly deps: StreamReaderDeps

  constructor(deps: Omit<StreamReaderDeps, "send">) {
    this.name = deps.upstream.name
    this.deps = { ...deps, send: (request) => void this.exchange(request, ignoreAnswer) }
  }

  exchange(request: Request, sink: Sink): Abort {
    if (request.body !== undefined) this.noteCancelled(request.body)
    const reader = new StreamReader(this.deps, request, sink, this.forget)
    this.readers.add(reader)
    return reader.start(request)
  }

  /** Another upstream session has replaced the lost one: broken streams of the lost one fail. */
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
}
