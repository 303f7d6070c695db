/** Tells what has come lately. */

/** How many ids are remembered. */
const SIZE = 1_000

export class Window {
  private readonly seen = new Set<string>()

  /** Notes an id. False when it is one of the latest already. */
  add(id: string): boolean {
    if (this.seen.has(id)) return false
    this.seen.add(id)
    const [oldest] = this.seen
    if (this.seen.size > SIZE && oldest !== undefined) this.seen.delete(oldest)
    return true
  }
}
