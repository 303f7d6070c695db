import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { checkCleanUp } from "../fixtures/cleanUp.js"
import { scenario } from "../fixtures/Scenario.js"
import { seededLeaks } from "../fixtures/seededLeaks.js"

const numRuns = 300

/** The limit for finding a seeded leak, because some leaks show in few runs. */
const maxRuns = 2_000

describe("Sessions, after arbitrary operations", () => {
  it.effect.prop(
    "releases everything exactly once and ends every response once",
    [scenario],
    ([scenario]) => checkCleanUp(scenario),
    { fastCheck: { numRuns } }
  )
})

describe("the clean-up property", () => {
  it.effect.each(seededLeaks.map((seeded) => [seeded.leak, seeded] as const))(
    "finds %s",
    ([, { expected, parts }]) =>
      Effect.gen(function* () {
        const property = FastCheck.asyncProperty(scenario, (run) =>
          Effect.runPromise(checkCleanUp(run, parts()))
        )
        const { counterexample, errorInstance } = yield* Effect.promise(() =>
          FastCheck.check(property, { numRuns: maxRuns, endOnFailure: true })
        )
        expect(counterexample).not.toBeNull()
        expect(String(errorInstance)).toMatch(expected)
      })
  )
})
