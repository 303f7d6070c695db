/** Back-pressure of several readers on one source: the source is paused while any reader pauses it. */
import type { Flow } from "../../Upstream.js"

export class FlowGate {
  private readonly pausedBy = new Set<object>()

  constructor(private readonly source: Flow) {}

  pause(reader: object): void {
    this.pausedBy.add(reader)
    this.source.pause()
  }

  /** Has no effect if this reader has not paused the source. */
  unpause(reader: object): void {
    if (this.pausedBy.delete(reader) && this.pausedBy.size === 0) this.source.unpause()
  }
}
