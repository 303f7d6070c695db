import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as Deadlines from "../../src/internal/deadlines.js"
import { ManualClock } from "../fixtures/ManualClock.js"

/** Something that counts how often it expires. */
class Expiring implements Deadlines.Expirable {
  times = 0
  constructor(private readonly next: () => void = () => {}) {}
  expire(): void {
    this.times++
    this.next()
  }
}

describe("a deadline", () => {
  it.scoped("expires once, within a second after its time, and not before", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const expiring = new Expiring()
      deadlines.create(expiring).set(2_500)
      yield* TestClock.adjust("2 seconds")
      expect(expiring.times).toBe(0)
      yield* TestClock.adjust("1 second")
      expect(expiring.times).toBe(1)
      expect(deadlines.size).toBe(0)
      yield* TestClock.adjust("5 seconds")
      expect(expiring.times).toBe(1)
    })
  )

  it.scoped("that is cleared does not expire", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const expiring = new Expiring()
      const deadline = deadlines.create(expiring)
      deadline.set(1_000)
      deadline.clear()
      deadline.clear()
      expect(deadlines.size).toBe(0)
      yield* TestClock.adjust("3 seconds")
      expect(expiring.times).toBe(0)
    })
  )

  it.scoped("that is set anew counts from then", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const expiring = new Expiring()
      const deadline = deadlines.create(expiring)
      deadline.set(2_000)
      yield* TestClock.adjust("1 second")
      deadline.set(2_000)
      expect(deadlines.size).toBe(1)
      yield* TestClock.adjust("1 second")
      expect(expiring.times).toBe(0)
      yield* TestClock.adjust("1 second")
      expect(expiring.times).toBe(1)
    })
  )

  it.scoped("may be set again when it has expired", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const expiring: Expiring = new Expiring(() => deadline.set(1_000))
      const deadline = deadlines.create(expiring)
      deadline.set(1_000)
      yield* TestClock.adjust("3 seconds")
      expect(expiring.times).toBe(3)
      expect(deadlines.size).toBe(1)
    })
  )

  it.scoped("that another clears as it expires does not expire in the same moment", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const [first, second]: [Expiring, Expiring] = [
        new Expiring(() => ofSecond.clear()),
        new Expiring(() => ofFirst.clear())
      ]
      const [ofFirst, ofSecond] = [deadlines.create(first), deadlines.create(second)]
      ofFirst.set(1_000)
      ofSecond.set(1_000)
      yield* TestClock.adjust("2 seconds")
      expect(first.times + second.times).toBe(1)
      expect(deadlines.size).toBe(0)
    })
  )

  it.effect("is watched until the scope closes", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const deadlines = yield* Scope.extend(Deadlines.make, scope)
      const expiring = new Expiring()
      deadlines.create(expiring).set(1_000)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("3 seconds")
      expect(expiring.times).toBe(0)
    })
  )
})

describe("many deadlines", () => {
  const operation = FastCheck.record({
    index: FastCheck.nat({ max: 4 }),
    /** To set it to so many seconds, or to clear it. */
    seconds: FastCheck.option(FastCheck.integer({ min: 1, max: 5 })),
    pass: FastCheck.nat({ max: 3 })
  })

  it.effect.prop(
    "each expires exactly when the last thing said of it says so",
    [FastCheck.array(operation, { maxLength: 20 })],
    ([operations]) =>
      Effect.gen(function* () {
        const clock = new ManualClock()
        const deadlines = new Deadlines.Deadlines(clock)
        const all = Array.from({ length: 5 }, () => {
          const expiring = new Expiring()
          return { expiring, deadline: deadlines.create(expiring), at: Number.POSITIVE_INFINITY, times: 0 }
        })
        for (const { index, pass, seconds } of operations) {
          const one = all[index]
          if (one === undefined) continue
          if (seconds === null) {
            one.deadline.clear()
            one.at = Number.POSITIVE_INFINITY
          } else {
            one.deadline.set(seconds * 1_000)
            one.at = clock.unsafeCurrentTimeMillis() + seconds * 1_000
          }
          yield* clock.advance(`${pass} seconds`)
          deadlines.sweep()
          for (const one of all) {
            if (one.at <= clock.unsafeCurrentTimeMillis()) {
              one.times++
              one.at = Number.POSITIVE_INFINITY
            }
            expect(one.expiring.times).toBe(one.times)
          }
          expect(deadlines.size).toBe(all.filter(({ at }) => at < Number.POSITIVE_INFINITY).length)
        }
      })
  )
})
