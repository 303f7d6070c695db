/** An item of a `Fifo`. */
export interface Queued {
  /** False after the item is removed. The queue then skips it. */
  isQueued: boolean
}

/** A queue that removes any item in constant time. A removed item is only marked, and dropped later. */
export class Fifo<A extends Queued> {
  private items: Array<A> = []
  private head = 0
  private count = 0

  /** The number of items that are not removed. */
  get size(): number {
    return this.count
  }

  push(item: A): void {
    this.items.push(item)
    this.count++
  }

  /** The item that was pushed first. */
  get oldest(): A | undefined {
    for (; this.head < this.items.length; this.head++) {
      const item = this.items[this.head]
      if (item?.isQueued === true) return item
    }
    return undefined
  }

  /** Counts an item as removed. The caller has set its `isQueued` to false. */
  removed(): void {
    this.count--
    // Compacts the array when removed items outnumber the others.
    if (this.items.length <= 2 * this.count + SLACK) return
    this.items = this.items.slice(this.head).filter(({ isQueued }) => isQueued)
    this.head = 0
  }
}

const SLACK = 64
