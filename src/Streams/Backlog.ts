/** What several readers have not read yet, in all. */
export interface Amount {
  readonly events: number
  readonly bytes: number
}

export const nothing: Amount = { events: 0, bytes: 0 }

/** A sum that its parts keep up. */
export class Backlog {
  private events = 0
  private bytes = 0

  replace(before: Amount, now: Amount): void {
    this.events += now.events - before.events
    this.bytes += now.bytes - before.bytes
  }

  /** Whether it is as much as that part of the bounds. */
  reaches(bounds: Amount, part: number): boolean {
    return this.events >= bounds.events * part || this.bytes >= bounds.bytes * part
  }
}
