/** Delays between retries, and the HTTP statuses that permit one. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"

const BASE_DELAY = 200
const MAX_DELAY = 30_000

/**
 * Returns the delay before the next retry, after a number of consecutive failures. It is exponential from 200 ms to 30
 * s with full jitter. `minimum` is added to it, in milliseconds.
 */
export const backoff = (failures: number, minimum = 0): Effect.Effect<Duration.Duration> =>
  Effect.map(Random.next, (random) =>
    Duration.millis(minimum + random * Math.min(MAX_DELAY, BASE_DELAY * 2 ** failures))
  )

/** True if a retry can succeed after this HTTP status: a server error, a timeout, a conflict or a rate limit. */
export const isTransient = (status: number): boolean => status >= 500 || transientStatuses.has(status)

const transientStatuses: ReadonlySet<number> = new Set([408, 409, 425, 429])
