/** What the clients have met so far. */
export class Tally {
  calls = 0
  errors = 0
  firstError: string | undefined
  readonly #milliseconds: Array<number> = []

  fail(message: string): void {
    this.errors++
    this.firstError ??= message
  }

  timed(milliseconds: number): void {
    this.#milliseconds.push(milliseconds)
  }

  /** The time within which this share of the timed calls was answered. */
  percentile(share: number): number | undefined {
    const sorted = this.#milliseconds.toSorted((a, b) => a - b)
    return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)]
  }
}
