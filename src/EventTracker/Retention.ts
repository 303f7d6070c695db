/** What all logs hold together: the bounds, and what goes first at each. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Budget } from "../internal/budget.js"
import { Fifo, type Queued } from "../internal/fifo.js"
import type { FrameBudget } from "../Protocol/SseFrames.js"
import { type TelemetryListener, Telemetry } from "../Telemetry.js"
import type { MemoryStream } from "./StreamLog.js"
import type { StreamEvent } from "./SessionLog.js"

export interface RetentionLimits {
  /** How many events are kept of one session; 0 keeps none, and leaves streams as they are. Default: 1000. */
  readonly maxEvents: number
  /** How many bytes of them. Default: 1 MiB. */
  readonly maxEventBytes: number
  /** How many bytes of events of all sessions, half of it for those that are not whole yet. Default: 256 MiB. */
  readonly maxTotalEventBytes: number
}

export interface EventTotals {
  readonly events: number
  readonly bytes: number
}

/** An event as the ledger knows it. */
export interface RetainedEvent extends StreamEvent, Queued {
  readonly stream: MemoryStream
  frame: Buffer
  /** Where it ends among all bytes of its stream. */
  readonly offset: number
}

/** What one session holds. */
export class Account {
  readonly events = new Fifo<RetainedEvent>()
  /** Its streams that were delivered whole. */
  readonly retirements = new Fifo<Expiry>()
  bytes = 0
}

/** When a stream is let go of that was delivered whole. */
export interface Expiry extends Queued {
  readonly stream: MemoryStream
  readonly at: number
}

/** What an event costs beside its bytes, roughly, with its share of a stream, which is most often all of it. */
export const OVERHEAD = 512

export const eventCost = ({ frame, upstreamId = "" }: Omit<StreamEvent, "sequence">): number =>
  frame.length + upstreamId.length + OVERHEAD

/** What is left of an event that is let go of: a queue may hold on to it for a while. */
const NOTHING = Buffer.alloc(0)

export class Retention implements FrameBudget {
  readonly events = new Fifo<RetainedEvent>()
  private bytes = 0
  /** The bytes of events that are not whole yet. */
  private readonly unfinished: Budget
  readonly retirements = new Fifo<Expiry>()

  constructor(
    private readonly bounds: RetentionLimits,
    private readonly clock: Clock.Clock,
    /** How long a stream is kept that was delivered whole, in milliseconds. */
    private readonly retention: number,
    private readonly telemetry: TelemetryListener
  ) {
    this.unfinished = new Budget(bounds.maxTotalEventBytes / 2, 0)
  }

  get sums(): EventTotals {
    return { events: this.events.size, bytes: this.allBytes }
  }

  /** Keeps an event, in the place of older ones if need be. False when it is larger than what may be kept. */
  keep(event: RetainedEvent, account: Account): boolean {
    const { maxEventBytes, maxEvents, maxTotalEventBytes } = this.bounds
    const length = eventCost(event)
    if (length > maxEventBytes || length + this.unfinished.used > maxTotalEventBytes) return false
    while (account.events.size >= maxEvents || account.bytes + length > maxEventBytes) this.makeRoom(account)
    while (this.allBytes + length > maxTotalEventBytes) this.makeRoom(this)
    account.events.push(event)
    account.bytes += length
    this.events.push(event)
    this.bytes += length
    return true
  }

  /** Makes room for bytes of an event that is not whole yet, in the place of whole ones if need be. */
  hold(bytes: number, held: number): boolean {
    if (!this.unfinished.reserve(bytes, held)) return false
    while (this.allBytes > this.bounds.maxTotalEventBytes) this.makeRoom(this)
    return true
  }

  release(bytes: number): void {
    this.unfinished.release(bytes)
  }

  /** Lets go of an event. */
  drop(event: RetainedEvent, account: Account): void {
    if (!event.isKept) return
    const length = eventCost(event)
    event.isKept = false
    event.frame = NOTHING
    account.bytes -= length
    account.events.dropped()
    this.bytes -= length
    this.events.dropped()
  }

  /** The stream has ended, and all of it has reached its client. */
  retire(stream: MemoryStream, account: Account): Expiry {
    const at = this.clock.unsafeCurrentTimeMillis() + this.retention
    const retirement: Expiry = { stream, at, isKept: true }
    account.retirements.push(retirement)
    this.retirements.push(retirement)
    return retirement
  }

  /** It has not, or is gone already. */
  cancel(retirement: Expiry, account: Account): void {
    if (!retirement.isKept) return
    retirement.isKept = false
    account.retirements.dropped()
    this.retirements.dropped()
  }

  /** Lets go of the streams whose time is over. */
  sweep(): void {
    const now = this.clock.unsafeCurrentTimeMillis()
    for (
      let next = this.retirements.oldest;
      next !== undefined && next.at <= now;
      next = this.retirements.oldest
    ) {
      next.stream.remove()
    }
  }

  private get allBytes(): number {
    return this.bytes + this.unfinished.used
  }

  /** What was delivered whole goes first: somebody may still be about to read the rest. */
  private makeRoom({ events, retirements }: Pick<Account, "events" | "retirements">): void {
    const { oldest } = retirements
    const before = this.events.size
    if (oldest === undefined) events.oldest?.stream.evict()
    else oldest.stream.remove()
    this.telemetry.eventsEvicted(before - this.events.size)
  }
}

/** How often to look for streams whose time is over. */
const INTERVAL = Duration.seconds(1)

/** A ledger that lets go of what was delivered whole so many milliseconds ago. */
export const make = (
  bounds: RetentionLimits,
  retention: number
): Effect.Effect<Retention, never, Scope.Scope> =>
  Effect.gen(function* () {
    const ledger = new Retention(bounds, yield* Effect.clock, retention, yield* Telemetry)
    yield* Effect.sync(() => ledger.sweep()).pipe(
      Effect.catchAllDefect((cause) => Effect.logError("defect", cause)),
      Effect.schedule(Schedule.spaced(INTERVAL)),
      Effect.forkScoped
    )
    return ledger
  })
