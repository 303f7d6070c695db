/** A bound on how much there may be of something in all. */

/** How much one holder may take of all that there is; whoever holds more leaves the last part to those. */
const SMALL = 64 * 1024

/** The part that is open to all. What remains is for small holders, so that large ones cannot keep them out. */
const OPEN_TO_ALL = 7 / 8

export class Budget {
  private taken = 0

  constructor(readonly bound: number) {}

  get used(): number {
    return this.taken
  }

  /** Takes an amount for one that holds so much already, if there is room for it. */
  take(amount: number, held: number): boolean {
    const bound = held + amount > SMALL ? this.bound * OPEN_TO_ALL : this.bound
    if (this.taken + amount > bound) return false
    this.taken += amount
    return true
  }

  give(amount: number): void {
    this.taken -= amount
  }
}
