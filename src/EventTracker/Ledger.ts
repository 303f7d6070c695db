/** What all logs hold together: the bounds, and what goes first at each. */
import type * as Clock from "effect/Clock"
import { Fifo, type Queued } from "../internal/fifo.js"
import type { Listener } from "../Telemetry.js"
import type { StreamLog } from "./StreamLog.js"

export interface Bounds {
  /** How many events are kept of one session; 0 keeps none, and leaves streams as they are. Default: 1000. */
  readonly maxEvents: number
  /** How many bytes of them. Default: 1 MiB. */
  readonly maxEventBytes: number
  /** How many bytes of events of all sessions. Default: 256 MiB. */
  readonly maxTotalEventBytes: number
}

export interface Sums {
  readonly events: number
  readonly bytes: number
}

/** An event as it goes out, with its id. */
export interface Logged extends Queued {
  readonly stream: StreamLog
  readonly sequence: number
  readonly frame: Buffer
  /** The id that the upstream gave it. */
  readonly upstreamId: string | undefined
}

/** What one session holds. */
export class Account {
  readonly events = new Fifo<Logged>()
  bytes = 0
}

/** When a stream is let go of that was delivered whole. */
export interface Retirement extends Queued {
  readonly stream: StreamLog
  readonly at: number
}

export class Ledger {
  private readonly events = new Fifo<Logged>()
  private bytes = 0
  private readonly retirements = new Fifo<Retirement>()

  constructor(
    private readonly bounds: Bounds,
    private readonly clock: Clock.Clock,
    /** How long a stream is kept that was delivered whole, in milliseconds. */
    private readonly retention: number,
    private readonly telemetry: Listener
  ) {}

  get sums(): Sums {
    return { events: this.events.size, bytes: this.bytes }
  }

  /** Keeps an event, in the place of older ones if need be. False when it is larger than what may be kept. */
  keep(event: Logged, account: Account): boolean {
    const { maxEventBytes, maxEvents, maxTotalEventBytes } = this.bounds
    const { length } = event.frame
    if (length > maxEventBytes || length > maxTotalEventBytes) return false
    while (account.events.size >= maxEvents || account.bytes + length > maxEventBytes)
      this.evict(account.events)
    while (this.bytes + length > maxTotalEventBytes) this.evict(this.events)
    account.events.push(event)
    account.bytes += length
    this.events.push(event)
    this.bytes += length
    return true
  }

  /** Lets go of an event. */
  drop(event: Logged, account: Account): void {
    if (!event.isKept) return
    event.isKept = false
    account.bytes -= event.frame.length
    account.events.dropped()
    this.bytes -= event.frame.length
    this.events.dropped()
  }

  /** The stream has ended, and all of it has reached its client. */
  retire(stream: StreamLog): Retirement {
    const at = this.clock.unsafeCurrentTimeMillis() + this.retention
    const retirement: Retirement = { stream, at, isKept: true }
    this.retirements.push(retirement)
    return retirement
  }

  /** It has not, or is gone already. */
  cancel(retirement: Retirement): void {
    if (!retirement.isKept) return
    retirement.isKept = false
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
      next.stream.forget()
    }
  }

  private evict(events: Fifo<Logged>): void {
    events.oldest?.stream.evict()
    this.telemetry.evicted()
  }
}
