import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { cleansUp } from "../fixtures/cleanUp.js"
import { run } from "../fixtures/Operation.js"
import { seededLeaks } from "../fixtures/seededLeaks.js"

const numRuns = 300

/** Some faults show in few runs. */
const enough = 2_000

describe("whatever happens, in whatever order", () => {
  it.effect.prop(
    "everything is released exactly once, and every client is told one ending",
    [run],
    ([run]) => cleansUp(run),
    { fastCheck: { numRuns } }
  )
})

describe("the property finds what is seeded", () => {
  it.effect.each(seededLeaks)("$leak", ({ named, parts }) =>
    Effect.gen(function* () {
      const property = FastCheck.asyncProperty(run, (run) => Effect.runPromise(cleansUp(run, parts())))
      const { counterexample, errorInstance } = yield* Effect.promise(() =>
        FastCheck.check(property, { numRuns: enough, endOnFailure: true })
      )
      expect(counterexample).not.toBeNull()
      expect(String(errorInstance)).toMatch(named)
    })
  )
})
