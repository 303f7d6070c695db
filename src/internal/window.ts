/** The latest event ids, for the detection of duplicates. */

/** The number of ids that a window holds. */
const SIZE = 1_000

export class Window {
  private readonly ids = new Set<string>()

  /** Adds an id, and evicts the oldest one beyond 1,000. Returns false if the window holds the id already. */
  add(id: string): boolean {
    if (this.ids.has(id)) return false
    this.ids.add(id)
    const [oldest] = this.ids
    if (this.ids.size > SIZE && oldest !== undefined) this.ids.delete(oldest)
    return true
  }
}
