/** Counts the events that the readers of a session's streams have not read. */

export interface UnreadEvents {
  readonly events: number
  readonly bytes: number
}

export const noUnreadEvents: UnreadEvents = { events: 0, bytes: 0 }

/** The sum of the unread events over all streams of a session. Each stream updates its share. */
export class Backlog {
  private events = 0
  private bytes = 0

  /** Replaces the share of one stream. */
  update(before: UnreadEvents, now: UnreadEvents): void {
    this.events += now.events - before.events
    this.bytes += now.bytes - before.bytes
  }

  /** True if the total reaches this part of the limits. */
  reaches(limits: UnreadEvents, part: number): boolean {
    return this.events >= limits.events * part || this.bytes >= limits.bytes * part
  }
}
