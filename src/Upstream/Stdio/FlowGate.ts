/** Several readers of one source, which flows while none of them has closed it. */
import type { Flow } from "../../Upstream.js"

export class FlowGate {
  private readonly closedBy = new Set<object>()

  constructor(private readonly source: Flow) {}

  close(reader: object): void {
    this.closedBy.add(reader)
    this.source.pause()
  }

  /** Harmless for one that has not closed it. */
  open(reader: object): void {
    if (this.closedBy.delete(reader) && this.closedBy.size === 0) this.source.unpause()
  }
}
