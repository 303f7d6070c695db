import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { messageOf } from "../commandLine.js"
import type { Bench } from "./bench.js"
import type { Figures, Measure } from "./measure.js"
import type { Group, Path } from "./paths.js"

/** The samples of one measure by path. A failed sample is `null`, so that the samples of all paths stay in step. */
export type Samples = Readonly<Record<string, ReadonlyArray<Figures | null>>>

/** The number of samples that a round takes, if all samples are spread evenly over the rounds. */
const dueIn = (round: number, rounds: number, samples: number): number =>
  Math.floor((samples * (round + 1)) / rounds) - Math.floor((samples * round) / rounds)

/** Rotates the paths, because the order must not favour one of them. */
const rotated = <A>(all: ReadonlyArray<A>, by: number): Array<A> => {
  const from = by % Math.max(1, all.length)
  return [...all.slice(from), ...all.slice(0, from)]
}

const log = (line: string) => void process.stderr.write(`bench: ${line}\n`)

/**
 * Runs all rounds. The paths of a sample directly follow each other, so that they meet the same noise of the machine.
 * A measure that has failed on a path is not repeated there.
 */
export const runRounds = (bench: Bench, groups: ReadonlyArray<Group>) =>
  Effect.gen(function* () {
    /** By the names of the measure and of the path. */
    const samples: Record<string, Record<string, Array<Figures | null>>> = {}
    const failures: Array<{ readonly measure: string; readonly path: string; readonly reason: string }> = []
    const hasFailed = ({ name }: Measure, path: Path) =>
      failures.some((failure) => failure.measure === name && failure.path === path.name)
    const takeSample = (measure: Measure, path: Path) =>
      Effect.catchAllCause(measure.sample(path, bench), (cause) => {
        if (Cause.isInterrupted(cause)) return Effect.interrupt
        const reason = messageOf(Cause.squash(cause))
        failures.push({ measure: measure.name, path: path.name, reason })
        log(`${measure.name} of ${path.name} failed: ${reason}`)
        return Effect.succeed(null)
      })

    const { rounds } = bench.plan
    const all = groups.flatMap(({ measures, paths }) => measures.map((measure) => ({ measure, paths })))
    for (let round = 0; round < rounds; round++) {
      const began = performance.now()
      for (const { measure, paths } of all) {
        const concerned = paths.filter(({ command }) => measure.direct || command !== undefined)
        const byPath = (samples[measure.name] ??= Object.fromEntries(concerned.map(({ name }) => [name, []])))
        for (let turn = 0; turn < dueIn(round, rounds, measure.samples(bench.plan)); turn++) {
          for (const path of rotated(concerned, round + turn)) {
            byPath[path.name]?.push(hasFailed(measure, path) ? null : yield* takeSample(measure, path))
          }
        }
      }
      log(`round ${round + 1} of ${rounds}: ${((performance.now() - began) / 1000).toFixed(0)} s`)
    }
    return { samples, failures }
  })
