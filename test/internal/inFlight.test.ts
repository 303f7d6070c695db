import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { InFlight } from "../../src/internal/inFlight.js"
import { settle } from "../fixtures/ManualClock.js"

const isDone = (fiber: Fiber.Fiber<void>) =>
  Effect.andThen(settle, Effect.map(Fiber.poll(fiber), Option.isSome))

describe("quiet", () => {
  it.effect("is there at once when nothing is under way", () => new InFlight().quiet)

  it.effect("comes when the last one is over, to all who wait", () =>
    Effect.gen(function* () {
      const flight = new InFlight()
      flight.enter()
      flight.enter()
      const waiting = yield* Effect.all([Effect.fork(flight.quiet), Effect.fork(flight.quiet)])
      yield* settle
      flight.leave()
      expect(yield* Effect.forEach(waiting, isDone)).toEqual([false, false])
      flight.leave()
      expect(yield* Effect.forEach(waiting, isDone)).toEqual([true, true])
    })
  )

  it.effect("is waited for anew after something has begun again", () =>
    Effect.gen(function* () {
      const flight = new InFlight()
      flight.enter()
      flight.leave()
      flight.enter()
      const waiting = yield* Effect.fork(flight.quiet)
      expect(yield* isDone(waiting)).toBe(false)
      flight.leave()
      expect(yield* isDone(waiting)).toBe(true)
    })
  )

  it.effect("can be given up, and then wakes nobody", () =>
    Effect.gen(function* () {
      const flight = new InFlight()
      flight.enter()
      const waiting = yield* Effect.fork(flight.quiet)
      yield* settle
      yield* Fiber.interrupt(waiting)
      flight.leave()
      yield* flight.quiet
    })
  )
})
