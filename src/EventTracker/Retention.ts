/** The limits on retained events of all sessions, and the order of eviction. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Budget } from "../internal/budget.js"
import { EMPTY } from "../internal/bytes.js"
import { Fifo, type Queued } from "../internal/fifo.js"
import type { FrameBudget } from "../Protocol/SseFrames.js"
import { type TelemetryListener, Telemetry } from "../Telemetry.js"
import type { StreamEvent, StreamLog } from "./StreamLog.js"

export interface RetentionLimits {
  /** The maximum number of events of one session. 0 disables the tracker. Default: 1000. */
  readonly maxEvents: number
  /** The maximum size of the events of one session, in bytes. Default: 1 MiB. */
  readonly maxEventBytes: number
  /** The maximum size of the events of all sessions, in bytes. Incomplete events use at most half. Default: 256 MiB. */
  readonly maxTotalEventBytes: number
}

export interface EventTotals {
  readonly events: number
  readonly bytes: number
}

export interface RetainedEvent extends StreamEvent, Queued {
  readonly stream: StreamLog
  frame: Buffer
  /** The cost of all events of the stream up to this one, in bytes. */
  readonly offset: number
}

/** A delivered stream, and the time of its removal. */
export interface ScheduledRemoval extends Queued {
  readonly stream: StreamLog
  /** In milliseconds since 1970. */
  readonly at: number
}

/** The retained events of one session. */
export class SessionUsage {
  readonly events = new Fifo<RetainedEvent>()
  readonly removals = new Fifo<ScheduledRemoval>()
  bytes = 0
}

/** The approximate overhead of an event and its share of a stream, in bytes of memory. */
const OVERHEAD = 512

/** Returns the memory that an event counts for, in bytes. */
export const eventCost = ({ frame, upstreamId = "" }: Omit<StreamEvent, "sequence">): number =>
  frame.length + upstreamId.length + OVERHEAD

export class Retention implements FrameBudget {
  readonly events = new Fifo<RetainedEvent>()
  readonly removals = new Fifo<ScheduledRemoval>()
  private bytes = 0
  /** The bytes of incomplete events. */
  private readonly incomplete: Budget

  constructor(
    private readonly limits: RetentionLimits,
    private readonly clock: Clock.Clock,
    /** The time for which a delivered stream is retained, in milliseconds. */
    private readonly retention: number,
    private readonly telemetry: TelemetryListener
  ) {
    this.incomplete = new Budget(limits.maxTotalEventBytes / 2, 0)
  }

  get totals(): EventTotals {
    return { events: this.events.size, bytes: this.totalBytes }
  }

  /** Retains an event, and evicts older ones at a limit. Returns false for an event that is larger than a limit. */
  retain(event: RetainedEvent, session: SessionUsage): boolean {
    const { maxEventBytes, maxEvents, maxTotalEventBytes } = this.limits
    const cost = eventCost(event)
    if (cost > maxEventBytes || cost + this.incomplete.used > maxTotalEventBytes) return false
    while (session.events.size >= maxEvents || session.bytes + cost > maxEventBytes) this.evictFrom(session)
    while (this.totalBytes + cost > maxTotalEventBytes) this.evictFrom(this)
    session.events.push(event)
    session.bytes += cost
    this.events.push(event)
    this.bytes += cost
    return true
  }

  /** Reserves memory for an incomplete event, and evicts complete ones at the limit. */
  hold(bytes: number, held: number): boolean {
    if (!this.incomplete.reserve(bytes, held)) return false
    while (this.totalBytes > this.limits.maxTotalEventBytes) this.evictFrom(this)
    return true
  }

  release(bytes: number): void {
    this.incomplete.release(bytes)
  }

  /** Releases the memory of a retained event. */
  drop(event: RetainedEvent, session: SessionUsage): void {
    if (!event.isQueued) return
    const cost = eventCost(event)
    event.isQueued = false
    // A queue may hold the event for some time.
    event.frame = EMPTY
    session.bytes -= cost
    session.events.removed()
    this.bytes -= cost
    this.events.removed()
  }

  /** Schedules the removal of a delivered stream. */
  scheduleRemoval(stream: StreamLog, session: SessionUsage): ScheduledRemoval {
    const at = this.clock.unsafeCurrentTimeMillis() + this.retention
    const removal: ScheduledRemoval = { stream, at, isQueued: true }
    session.removals.push(removal)
    this.removals.push(removal)
    return removal
  }

  cancelRemoval(removal: ScheduledRemoval, session: SessionUsage): void {
    if (!removal.isQueued) return
    removal.isQueued = false
    session.removals.removed()
    this.removals.removed()
  }

  /** Removes the streams whose retention time has passed. */
  sweep(): void {
    const now = this.clock.unsafeCurrentTimeMillis()
    for (let next = this.removals.oldest; next !== undefined && next.at <= now; next = this.removals.oldest) {
      next.stream.remove()
    }
  }

  private get totalBytes(): number {
    return this.bytes + this.incomplete.used
  }

  /** Removes the oldest delivered stream. Evicts the oldest event only if no delivered stream is left. */
  private evictFrom({ events, removals }: Pick<SessionUsage, "events" | "removals">): void {
    const { oldest } = removals
    const before = this.events.size
    if (oldest === undefined) events.oldest?.stream.evict()
    else oldest.stream.remove()
    this.telemetry.eventsEvicted(before - this.events.size)
  }
}

const SWEEP_INTERVAL = Duration.seconds(1)

/** Makes a `Retention` that removes delivered streams after `retention` milliseconds. */
export const make = (
  limits: RetentionLimits,
  retention: number
): Effect.Effect<Retention, never, Scope.Scope> =>
  Effect.gen(function* () {
    const made = new Retention(limits, yield* Effect.clock, retention, yield* Telemetry)
    yield* Effect.sync(() => made.sweep()).pipe(
      Effect.catchAllDefect((cause) => Effect.logError("event tracker: defect", cause)),
      Effect.schedule(Schedule.spaced(SWEEP_INTERVAL)),
      Effect.forkScoped
    )
    return made
  })
