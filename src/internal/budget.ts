/** A bound on how much there may be of something in all. */
export class Budget {
  private taken = 0

  constructor(readonly bound: number) {}

  get used(): number {
    return this.taken
  }

  /** Takes an amount, if there is room for it. */
  take(amount: number): boolean {
    if (this.taken + amount > this.bound) return false
    this.taken += amount
    return true
  }

  give(amount: number): void {
    this.taken -= amount
  }
}
