/** When another attempt may end otherwise, and how long to wait before it. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"

const FIRST_DELAY = 200
const LONGEST_DELAY = 30_000

/** Exponential from 200 ms to 30 s, with full jitter, after so many failures in a row; `least` is in milliseconds. */
export const backoff = (failures: number, least = 0): Effect.Effect<Duration.Duration> =>
  Effect.map(Random.next, (random) =>
    Duration.millis(least + random * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures))
  )

/** Whether another attempt may not meet this refusal: the server was not well, it was too early, or one too many. */
export const isTransient = (status: number): boolean => status >= 500 || passing.has(status)

const passing: ReadonlySet<number> = new Set([408, 409, 425, 429])
