/** Bounds in time for many things at once, at the cost of one fiber that looks once a second. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { SlotSet, type SlotSetItem, NO_SLOT } from "./slotSet.js"

/** Something that must not take too long. */
export interface Expirable {
  /** The time is over. */
  readonly expire: () => void
}

/** How exact a deadline is. */
const RESOLUTION = Duration.seconds(1)

/** The deadlines that are pending. */
export class Deadlines {
  private readonly pending = new SlotSet<Deadline>()

  constructor(readonly clock: Clock.Clock) {}

  /** How many deadlines are pending. */
  get size(): number {
    return this.pending.size
  }

  /** A deadline that is not set yet. */
  create(expirable: Expirable): Deadline {
    return new Deadline(this.pending, this.clock, expirable)
  }

  sweep(): void {
    const now = this.clock.unsafeCurrentTimeMillis()
    for (const deadline of this.pending) deadline.check(now)
  }
}

/** The time at which one thing expires. */
export class Deadline implements SlotSetItem {
  slot = NO_SLOT
  private at = 0

  constructor(
    private readonly pending: SlotSet<Deadline>,
    private readonly clock: Clock.Clock,
    private readonly expirable: Expirable
  ) {}

  /** Expires when so many milliseconds have passed, unless it is set anew or cleared before. */
  set(millis: number): void {
    this.at = this.clock.unsafeCurrentTimeMillis() + millis
    this.pending.add(this)
  }

  clear(): void {
    this.pending.delete(this)
  }

  check(now: number): void {
    if (this.slot === NO_SLOT || this.at > now) return
    this.clear()
    this.expirable.expire()
  }
}

/** Deadlines that are watched until the scope closes. */
export const make: Effect.Effect<Deadlines, never, Scope.Scope> = Effect.gen(function* () {
  const deadlines = new Deadlines(yield* Effect.clock)
  yield* Effect.sync(() => deadlines.sweep()).pipe(
    // One that fails to expire must not keep the others from it.
    Effect.catchAllDefect((cause) => Effect.logError("defect", cause)),
    Effect.schedule(Schedule.spaced(RESOLUTION)),
    Effect.forkScoped
  )
  return deadlines
})
