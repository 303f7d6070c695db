/** Several readers of one source, which flows while none of them has closed it. */
import type { Flow } from "../../Upstream.js"

export class FlowGate {
  private readonly pausedBy = new Set<object>()

  constructor(private readonly source: Flow) {}

  pause(reader: object): void {
    this.pausedBy.add(reader)
    this.source.pause()
  }

  /** Harmless for one that has not closed it. */
  unpause(reader: object): void {
    if (this.pausedBy.delete(reader) && this.pausedBy.size === 0) this.source.unpause()
  }
}
