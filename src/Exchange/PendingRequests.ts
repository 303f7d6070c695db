/** The requests of one exchange whose responses somebody waits for: a shutdown waits for them too. */
import type { InFlight } from "../internal/inFlight.js"
import { mayHoldResponse, messages, isPlainResponse } from "../Protocol/SseFrames.js"
import type { RequestId } from "../Protocol.js"

export class PendingRequests {
  private isCounted = false

  constructor(
    /** Those that are neither answered nor cancelled. */
    public ids: ReadonlyArray<RequestId>,
    private readonly flight: InFlight
  ) {}

  get isEmpty(): boolean {
    return this.ids.length === 0
  }

  /** Looks whether frames answer one of them. */
  note(frames: Buffer): void {
    if (this.isEmpty || !mayHoldResponse(frames)) return
    this.ids = unanswered(this.ids, frames)
    if (this.isEmpty) this.leave()
  }

  /** Takes out one that is cancelled. True when it was the last. */
  cancel(id: RequestId): boolean {
    if (!this.ids.includes(id)) return false
    this.ids = this.ids.filter((other) => other !== id)
    return this.isEmpty
  }

  /** Somebody waits, or does so again. */
  enter(): void {
    if (this.isCounted) return
    this.isCounted = true
    this.flight.begin()
  }

  /** Nobody does any more: the client has its responses, wants none, or has gone. */
  leave(): void {
    if (!this.isCounted) return
    this.isCounted = false
    this.flight.end()
  }
}

const unanswered = (ids: ReadonlyArray<RequestId>, frames: Buffer): ReadonlyArray<RequestId> => {
  const [first] = ids
  if (first !== undefined && ids.length === 1 && isPlainResponse(frames, first)) return []
  const responses = messages(frames).filter(({ method }) => method === undefined)
  return ids.filter((id) => !responses.some((response) => response.id === id))
}
