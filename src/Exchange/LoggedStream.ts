/** An event stream that is logged, and written to whichever connection reads it. */
import { asBuffer, EMPTY } from "../internal/bytes.js"
import { EventTagger } from "../Streams/EventTagger.js"
import type { PendingRequests } from "../Streams/PendingRequests.js"
import type { StreamWriter } from "../Streams/StreamWriter.js"
import type { Flow, StreamPart } from "../Upstream.js"

export class LoggedStream {
  readonly type = "logged"
  /** True if every request is answered, and no event is incomplete. */
  isComplete = false
  /** Splits bytes into events if no `StreamReader` has done so. */
  private tagger: EventTagger | undefined

  constructor(
    public flow: Flow,
    readonly writer: StreamWriter,
    private readonly pending: PendingRequests
  ) {}

  add(chunk: Uint8Array, part: StreamPart | undefined): void {
    if (part !== undefined) return this.addPart(asBuffer(chunk), part)
    this.tagger ??= new EventTagger()
    this.tagger.push(chunk, (bytes, part) => this.addPart(bytes, part))
    if (this.pending.mayBeAnswered) this.addPart(EMPTY, { type: "complete" })
  }

  private addPart(bytes: Buffer, part: StreamPart): void {
    if (part.type === "event") this.pending.note(bytes)
    else if (part.type === "complete") this.isComplete = true
    else if (part.type === "piece") {
      this.isComplete = false
      if (part.isLast) this.pending.noteUnreadable()
    }
    this.writer.add(bytes, part)
  }
}
