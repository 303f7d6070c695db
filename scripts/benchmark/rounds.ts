import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { messageOf } from "../commandLine.js"
import type { Bench } from "./bench.js"
import type { Figures, Measure } from "./measure.js"
import type { Group, Path } from "./paths.js"

export interface Failure {
  readonly measure: string
  readonly path: string
  readonly reason: string
}

/** The samples of one measure by path. A failed sample is `null`, so that the samples of all paths stay in step. */
export type Samples = Readonly<Record<string, ReadonlyArray<Figures | null>>>

export interface Outcome {
  /** By the name of the measure. */
  readonly samples: Readonly<Record<string, Samples>>
  readonly failures: ReadonlyArray<Failure>
}

/** The number of samples that a round takes of so many, which are spread evenly over all rounds. */
const dueIn = (round: number, rounds: number, samples: number): number =>
  Math.floor((samples * (round + 1)) / rounds) - Math.floor((samples * round) / rounds)

/** Puts another path first each time, because the order must favour none. */
const rotated = <A>(all: ReadonlyArray<A>, by: number): Array<A> => {
  const from = by % Math.max(1, all.length)
  return [...all.slice(from), ...all.slice(0, from)]
}

/**
 * Runs all rounds. The paths of a sample directly follow each other, so that they meet the same noise of the machine.
 * A measure is not tried again on a path where it has failed.
 */
export const runRounds = (
  bench: Bench,
  groups: ReadonlyArray<Group>,
  log: (line: string) => void
): Effect.Effect<Outcome> =>
  Effect.gen(function* () {
    const samples: Record<string, Record<string, Array<Figures | null>>> = {}
    const failures: Array<Failure> = []

    const takeSample = (measure: Measure, path: Path) =>
      Effect.gen(function* () {
        if (failures.some((failure) => failure.measure === measure.name && failure.path === path.name))
          return null
        const exit = yield* Effect.exit(measure.sample(path, bench))
        if (Exit.isSuccess(exit)) return exit.value
        const reason = messageOf(Cause.squash(exit.cause))
        failures.push({ measure: measure.name, path: path.name, reason })
        log(`${measure.name} of ${path.name} failed: ${reason}`)
        return null
      })

    const { rounds } = bench.plan
    for (let round = 0; round < rounds; round++) {
      const began = performance.now()
      for (const group of groups) {
        for (const measure of group.measures) {
          const paths = group.paths.filter(({ proxy }) => measure.direct || proxy !== undefined)
          const byPath = (samples[measure.name] ??= Object.fromEntries(paths.map(({ name }) => [name, []])))
          const due = dueIn(round, rounds, measure.samples(bench.plan))
          for (let turn = 0; turn < due; turn++) {
            for (const path of rotated(paths, round + turn)) {
              byPath[path.name]?.push(yield* takeSample(measure, path))
            }
          }
        }
      }
      log(`round ${round + 1} of ${rounds}: ${((performance.now() - began) / 1000).toFixed(0)} s`)
    }
    return { samples, failures }
  })
