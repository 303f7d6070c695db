import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { InFlight } from "../../src/internal/inFlight.js"
import { settle } from "../fixtures/ManualClock.js"

const isDone = (fiber: Fiber.Fiber<void>) =>
  Effect.andThen(settle, Effect.map(Fiber.poll(fiber), Option.isSome))

describe("idle", () => {
  it.effect("completes immediately if nothing is in flight", () => new InFlight().idle)

  it.effect("completes for all waiting fibers when the last operation ends", () =>
    Effect.gen(function* () {
      const inFlight = new InFlight()
      inFlight.begin()
      inFlight.begin()
      const waiting = yield* Effect.all([Effect.fork(inFlight.idle), Effect.fork(inFlight.idle)])
      yield* settle
      inFlight.end()
      expect(yield* Effect.forEach(waiting, isDone)).toEqual([false, false])
      inFlight.end()
      expect(yield* Effect.forEach(waiting, isDone)).toEqual([true, true])
    })
  )

  it.effect("waits again after another operation has begun", () =>
    Effect.gen(function* () {
      const inFlight = new InFlight()
      inFlight.begin()
      inFlight.end()
      inFlight.begin()
      const waiting = yield* Effect.fork(inFlight.idle)
      expect(yield* isDone(waiting)).toBe(false)
      inFlight.end()
      expect(yield* isDone(waiting)).toBe(true)
    })
  )

  it.effect("can be interrupted", () =>
    Effect.gen(function* () {
      const inFlight = new InFlight()
      inFlight.begin()
      const waiting = yield* Effect.fork(inFlight.idle)
      yield* settle
      yield* Fiber.interrupt(waiting)
      inFlight.end()
      yield* inFlight.idle
    })
  )
})
