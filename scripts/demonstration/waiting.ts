import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

/** Waits for a condition that comes about soon or never, and tells whether it has. */
export const soon = <E>(holds: Effect.Effect<boolean, E>): Effect.Effect<boolean, E> =>
  Effect.repeat(holds, { until: (isSo) => isSo, schedule: Schedule.spaced("10 millis") }).pipe(
    Effect.timeoutTo({ duration: "2 seconds", onSuccess: () => true, onTimeout: () => false })
  )
