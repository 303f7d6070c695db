/** A set for items that are added and removed at a high rate. */

/** An item that can be in one `SlotSet`. */
export interface SlotSetItem {
  /** The index in the set, or `NO_SLOT`. Only the set writes it. */
  slot: number
}

/** The slot of an item that is in no set. */
export const NO_SLOT = -1

/**
 * A set that keeps its items in one array. A `Set` or `Map` with many additions and deletions repeatedly replaces its
 * hash table. An old table that survives a minor garbage collection keeps the later tables, and their items, alive.
 * Under load this doubled the cost of a request.
 */
export class SlotSet<A extends SlotSetItem> implements Iterable<A> {
  private readonly items: Array<A> = []

  get size(): number {
    return this.items.length
  }

  add(item: A): void {
    if (item.slot !== NO_SLOT) return
    item.slot = this.items.length
    this.items.push(item)
  }

  /** Deletes an item. The last item moves into its slot. */
  delete(item: A): void {
    const { slot } = item
    if (slot === NO_SLOT) return
    item.slot = NO_SLOT
    const last = this.items.pop()
    if (last === undefined || last === item) return
    this.items[slot] = last
    last.slot = slot
  }

  /** Returns the number of items that match the predicate. */
  count(predicate: (item: A) => boolean): number {
    return this.items.reduce((count, item) => (predicate(item) ? count + 1 : count), 0)
  }

  /** Iterates over a copy, so that the set can change during the iteration. */
  [Symbol.iterator](): Iterator<A> {
    return this.items.slice()[Symbol.iterator]()
  }
}
