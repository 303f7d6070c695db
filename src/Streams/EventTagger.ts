/** Splits a stream into events. Used for streams without a `StreamReader`, such as those that an interceptor writes. */
import { readEvents } from "../Protocol/SseEvents.js"
import { FrameSplitter } from "../Protocol/SseFrames.js"
import type { StreamPart } from "../Upstream.js"

export class EventTagger {
  private readonly splitter = new FrameSplitter()

  /** Calls `add` with each part that a chunk completes. */
  push(chunk: Uint8Array, add: (bytes: Buffer, part: StreamPart) => void): void {
    const isFirst = this.splitter.isAtFrameEnd
    const frames = this.splitter.push(chunk)
    if (frames === undefined) return
    const isLast = this.splitter.isAtFrameEnd
    if (!isFirst || !isLast) return add(frames, { type: "piece", isFirst, isLast })
    readEvents(frames, {
      event: (frame, id) => add(frame, { type: "event", id: id === "" ? undefined : id }),
      idOnly: () => {},
      retry: () => {}
    })
  }
}
