/** A set for things that come and go all the time. */

/** Something that can be in one bag. */
export interface SlotSetItem {
  /** Where it is, or `OUTSIDE`; only the bag writes this. */
  slot: number
}

/** The slot of what is in no bag. */
export const NO_SLOT = -1

/**
 * A `Set` or `Map` that is added to and deleted from replaces its table again and again, and each table that has
 * grown old keeps its successors, with what was in them, from being collected young: under load that doubled the
 * cost of a request. Here nothing is ever replaced.
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

  /** The last one moves into the place of the one that is taken out. */
  delete(item: A): void {
    const { slot } = item
    if (slot === NO_SLOT) return
    item.slot = NO_SLOT
    const last = this.items.pop()
    if (last === undefined || last === item) return
    this.items[slot] = last
    last.slot = slot
  }

  /** How many in the bag are such. */
  count(isSuch: (item: A) => boolean): number {
    return this.items.reduce((count, item) => (isSuch(item) ? count + 1 : count), 0)
  }

  /** What is in the bag now; it may change meanwhile. */
  [Symbol.iterator](): Iterator<A> {
    return this.items.slice()[Symbol.iterator]()
  }
}
