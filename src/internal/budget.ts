/** A limit on the total amount of a resource that many holders share. */

/** A holder of at most this much is small: the last part of the budget is reserved for small holders. */
const SMALL = 64 * 1024

/** The part of the budget that large holders may use, so that they cannot exclude small ones. */
const LARGE_HOLDERS_SHARE = 7 / 8

export class Budget {
  private total = 0
  private readonly largeHoldersBound: number

  /** `largest` is the most that one holder may need. The part for large holders is never smaller, up to the bound. */
  constructor(
    readonly bound: number,
    largest: number
  ) {
    this.largeHoldersBound = Math.max(bound * LARGE_HOLDERS_SHARE, Math.min(bound, largest))
  }

  get used(): number {
    return this.total
  }

  /** Reserves an amount for a holder that has `held` already. Returns false if the budget does not have it. */
  reserve(amount: number, held: number): boolean {
    const bound = held + amount > SMALL ? this.largeHoldersBound : this.bound
    if (this.total + amount > bound) return false
    this.total += amount
    return true
  }

  release(amount: number): void {
    this.total -= amount
  }
}
