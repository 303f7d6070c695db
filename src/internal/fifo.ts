/** A queue whose items may be taken out anywhere: they are only marked, and skipped when it is their turn. */
export interface Queued {
  /** Whether it still counts. */
  isKept: boolean
}

export class Fifo<A extends Queued> {
  private items: Array<A> = []
  private head = 0
  private kept = 0

  /** How many items still count. */
  get size(): number {
    return this.kept
  }

  push(item: A): void {
    this.items.push(item)
    this.kept++
  }

  /** The item that has been there longest. */
  get oldest(): A | undefined {
    for (; this.head < this.items.length; this.head++) {
      const item = this.items[this.head]
      if (item?.isKept === true) return item
    }
    return undefined
  }

  /** An item has been marked as one that no longer counts. */
  dropped(): void {
    this.kept--
    // What is marked is let go of before it is more than the rest.
    if (this.items.length <= 2 * this.kept + SLACK) return
    this.items = this.items.slice(this.head).filter(({ isKept }) => isKept)
    this.head = 0
  }
}

const SLACK = 64
