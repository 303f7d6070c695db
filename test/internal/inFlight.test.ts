import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { InFlight } from "../../src/internal/inFlight.js"
import { settle } from "../fixtures/ManualClock.js"

const isDone = (fiber: Fiber.Fiber<void>) =>
  Effect.andThen(settle, Effect.map(Fiber.poll(fiber), Option.isSome))

describe("quiet", () => {
  it.effect("is there at once when nothing is under way", () => new InFlight().idle)

  it.effect("comes when the last one is over, to all who wait", () =>
    Effect.gen(function* () {
      const flight = new InFlight()
      flight.begin()
      flight.begin()
      const waiting = yield* Effect.all([Effect.fork(flight.idle), Effect.fork(flight.idle)])
      yield* settle
      flight.end()
      expect(yield* Effect.forEach(waiting, isDone)).toEqual([false, false])
      flight.end()
      expect(yield* Effect.forEach(waiting, isDone)).toEqual([true, true])
    })
  )

  it.effect("is waited for anew after something has begun again", () =>
    Effect.gen(function* () {
      const flight = new InFlight()
      flight.begin()
      flight.end()
      flight.begin()
      const waiting = yield* Effect.fork(flight.idle)
      expect(yield* isDone(waiting)).toBe(false)
      flight.end()
      expect(yield* isDone(waiting)).toBe(true)
    })
  )

  it.effect("can be given up, and then wakes nobody", () =>
    Effect.gen(function* () {
      const flight = new InFlight()
      flight.begin()
      const waiting = yield* Effect.fork(flight.idle)
      yield* settle
      yield* Fiber.interrupt(waiting)
      flight.end()
      yield* flight.idle
    })
  )
})
