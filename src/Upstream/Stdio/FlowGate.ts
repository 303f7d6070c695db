/** Combines the back-pressure of several readers. Their source is paused while at least one reader pauses it. */
import type { Flow } from "../../Upstream.js"

export class FlowGate {
  private readonly pausedBy = new Set<object>()

  constructor(private readonly source: Flow) {}

  pause(reader: object): void {
    this.pausedBy.add(reader)
    this.source.pause()
  }

  /** Unpauses the source if no other reader pauses it. Has no effect if this reader has not paused it. */
  unpause(reader: object): void {
    if (this.pausedBy.delete(reader) && this.pausedBy.size === 0) this.source.unpause()
  }
}
