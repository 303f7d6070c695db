/** A limit on the total amount of a resource that many holders share. */

/** The maximum amount of a small holder. The last part of the budget is reserved for small holders. */
const SMALL = 64 * 1024

/** The part of the budget that large holders may use, so that they cannot exclude small ones. */
const LARGE_HOLDERS_SHARE = 7 / 8

export class Budget {
  private total = 0
  private readonly largeHoldersLimit: number

  /** `largest` is the maximum need of one holder. The part for large holders is at least this, up to `limit`. */
  constructor(
    readonly limit: number,
    largest: number
  ) {
    this.largeHoldersLimit = Math.max(limit * LARGE_HOLDERS_SHARE, Math.min(limit, largest))
  }

  get used(): number {
    return this.total
  }

  /** Reserves an amount for a holder that already has `held`. Returns false if the budget is exhausted. */
  reserve(amount: number, held: number): boolean {
    const limit = held + amount > SMALL ? this.largeHoldersLimit : this.limit
    if (this.total + amount > limit) return false
    this.total += amount
    return true
  }

  release(amount: number): void {
    this.total -= amount
  }
}
