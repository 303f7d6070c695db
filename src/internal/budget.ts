/** A bound on how much there may be of something in all. */

/** How much one holder may take of all that there is; whoever holds more leaves the last part to those. */
const SMALL = 64 * 1024

/** The part that is open to all. What remains is for small holders, so that large ones cannot keep them out. */
const OPEN_TO_ALL = 7 / 8

export class Budget {
  private taken = 0
  private readonly openToAll: number

  /** `largest` is what one holder may need; where it is nearly all there is, nothing is kept from it. */
  constructor(
    readonly bound: number,
    largest: number
  ) {
    this.openToAll = Math.max(bound * OPEN_TO_ALL, Math.min(bound, largest))
  }

  get used(): number {
    return this.taken
  }

  /** Takes an amount for one that holds so much already, if there is room for it. */
  reserve(amount: number, held: number): boolean {
    const bound = held + amount > SMALL ? this.openToAll : this.bound
    if (this.taken + amount > bound) return false
    this.taken += amount
    return true
  }

  release(amount: number): void {
    this.taken -= amount
  }
}
