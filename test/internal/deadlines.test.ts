import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as Deadlines from "../../src/internal/deadlines.js"
import { ManualClock } from "../fixtures/ManualClock.js"

/** Counts how often it expires. */
class Counter implements Deadlines.Expirable {
  times = 0
  constructor(private readonly next: () => void = () => {}) {}
  expire(): void {
    this.times++
    this.next()
  }
}

describe("a deadline", () => {
  it.scoped("expires once, at most one second late and never early", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const counter = new Counter()
      deadlines.create(counter).set(2_500)
      yield* TestClock.adjust("2 seconds")
      expect(counter.times).toBe(0)
      yield* TestClock.adjust("1 second")
      expect(counter.times).toBe(1)
      expect(deadlines.size).toBe(0)
      yield* TestClock.adjust("5 seconds")
      expect(counter.times).toBe(1)
    })
  )

  it.scoped("does not expire after it was cleared", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const counter = new Counter()
      const deadline = deadlines.create(counter)
      deadline.set(1_000)
      deadline.clear()
      deadline.clear()
      expect(deadlines.size).toBe(0)
      yield* TestClock.adjust("3 seconds")
      expect(counter.times).toBe(0)
    })
  )

  it.scoped("starts again when it is set again", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const counter = new Counter()
      const deadline = deadlines.create(counter)
      deadline.set(2_000)
      yield* TestClock.adjust("1 second")
      deadline.set(2_000)
      expect(deadlines.size).toBe(1)
      yield* TestClock.adjust("1 second")
      expect(counter.times).toBe(0)
      yield* TestClock.adjust("1 second")
      expect(counter.times).toBe(1)
    })
  )

  it.scoped("can be set again after it has expired", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const counter: Counter = new Counter(() => deadline.set(1_000))
      const deadline = deadlines.create(counter)
      deadline.set(1_000)
      yield* TestClock.adjust("3 seconds")
      expect(counter.times).toBe(3)
      expect(deadlines.size).toBe(1)
    })
  )

  it.scoped("does not expire if another one clears it in the same sweep", () =>
    Effect.gen(function* () {
      const deadlines = yield* Deadlines.make
      const [first, second]: [Counter, Counter] = [
        new Counter(() => ofSecond.clear()),
        new Counter(() => ofFirst.clear())
      ]
      const [ofFirst, ofSecond] = [deadlines.create(first), deadlines.create(second)]
      ofFirst.set(1_000)
      ofSecond.set(1_000)
      yield* TestClock.adjust("2 seconds")
      expect(first.times + second.times).toBe(1)
      expect(deadlines.size).toBe(0)
    })
  )

  it.effect("does not expire after the scope has closed", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const deadlines = yield* Scope.extend(Deadlines.make, scope)
      const counter = new Counter()
      deadlines.create(counter).set(1_000)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("3 seconds")
      expect(counter.times).toBe(0)
    })
  )
})

describe("many deadlines", () => {
  const operation = FastCheck.record({
    index: FastCheck.nat({ max: 4 }),
    /** The seconds to set it to, or null to clear it. */
    seconds: FastCheck.option(FastCheck.integer({ min: 1, max: 5 })),
    pass: FastCheck.nat({ max: 3 })
  })

  it.effect.prop(
    "each expire at the time that was set last",
    [FastCheck.array(operation, { maxLength: 20 })],
    ([operations]) =>
      Effect.gen(function* () {
        const clock = new ManualClock()
        const deadlines = new Deadlines.Deadlines(clock)
        const all = Array.from({ length: 5 }, () => {
          const counter = new Counter()
          return { counter, deadline: deadlines.create(counter), at: Number.POSITIVE_INFINITY, times: 0 }
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
            expect(one.counter.times).toBe(one.times)
          }
          expect(deadlines.size).toBe(all.filter(({ at }) => at < Number.POSITIVE_INFINITY).length)
        }
      })
  )
})
