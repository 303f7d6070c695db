/** The requests of one exchange without a response. */
import { isPlainResponse, mayHoldResponse, messages } from "../Protocol/SseFrames.js"
import type { RequestId } from "../Protocol.js"

export class PendingRequests {
  private hasUnreadableEvent = false

  constructor(
    /** The requests that are neither answered nor cancelled. */
    public ids: ReadonlyArray<RequestId>
  ) {}

  get isEmpty(): boolean {
    return this.ids.length === 0
  }

  /** True if every response has passed, or may have passed in an event that was too large to be parsed. */
  get mayBeAnswered(): boolean {
    return this.isEmpty || this.hasUnreadableEvent
  }

  /** Notes an event that passed without being parsed. */
  noteUnreadable(): void {
    this.hasUnreadableEvent = true
  }

  /** Notes the responses in these frames. */
  note(frames: Buffer): void {
    if (this.isEmpty || !mayHoldResponse(frames)) return
    this.ids = unanswered(this.ids, frames)
  }

  /** Removes a cancelled request. Returns true if it was the last one. */
  cancel(id: RequestId): boolean {
    if (!this.ids.includes(id)) return false
    this.ids = this.ids.filter((other) => other !== id)
    return this.isEmpty
  }
}

const unanswered = (ids: ReadonlyArray<RequestId>, frames: Buffer): ReadonlyArray<RequestId> => {
  const [first] = ids
  if (first !== undefined && ids.length === 1 && isPlainResponse(frames, first)) return []
  const responses = messages(frames).filter(({ method }) => method === undefined)
  return ids.filter((id) => !responses.some((response) => response.id === id))
}
