/** Deadlines with a resolution of one second. One fiber checks all deadlines, so that no deadline needs a timer. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { SlotSet, type SlotSetItem, NO_SLOT } from "./slotSet.js"

/** The owner of a deadline. */
export interface Expirable {
  /** Called when the deadline passes. */
  readonly expire: () => void
}

/** The interval between two checks. */
const RESOLUTION = Duration.seconds(1)

/** Holds all deadlines that are set. */
export class Deadlines {
  private readonly pending = new SlotSet<Deadline>()

  constructor(readonly clock: Clock.Clock) {}

  /** The number of deadlines that are set. */
  get size(): number {
    return this.pending.size
  }

  /** Creates a deadline that is not set. */
  create(expirable: Expirable): Deadline {
    return new Deadline(this.pending, this.clock, expirable)
  }

  /** Calls `expire` of all deadlines that have passed. */
  sweep(): void {
    const now = this.clock.unsafeCurrentTimeMillis()
    for (const deadline of this.pending) deadline.check(now)
  }
}

/** The time at which its owner expires. */
export class Deadline implements SlotSetItem {
  slot = NO_SLOT
  /** In milliseconds since 1970. */
  private expiresAt = 0

  constructor(
    private readonly pending: SlotSet<Deadline>,
    private readonly clock: Clock.Clock,
    private readonly expirable: Expirable
  ) {}

  /** Sets the deadline to a number of milliseconds from now. Replaces an earlier one. */
  set(millis: number): void {
    this.expiresAt = this.clock.unsafeCurrentTimeMillis() + millis
    this.pending.add(this)
  }

  clear(): void {
    this.pending.delete(this)
  }

  check(now: number): void {
    if (this.slot === NO_SLOT || this.expiresAt > now) return
    this.clear()
    this.expirable.expire()
  }
}

/** Checks deadlines until the scope closes. */
export const make: Effect.Effect<Deadlines, never, Scope.Scope> = Effect.gen(function* () {
  const deadlines = new Deadlines(yield* Effect.clock)
  yield* Effect.sync(() => deadlines.sweep()).pipe(
    // A defect in one `expire` must not stop the other deadlines.
    Effect.catchAllDefect((cause) => Effect.logError("deadlines: defect", cause)),
    Effect.schedule(Schedule.spaced(RESOLUTION)),
    Effect.forkScoped
  )
  return deadlines
})
