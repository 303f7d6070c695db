import type { Bench } from "./bench.js"
import type { Contest } from "./contests.js"
import type { Figures, Measure } from "./measure.js"
import type { Path } from "./paths.js"
import type { Samples } from "./results.js"

export interface Failure {
  readonly measure: string
  readonly path: string
  readonly reason: string
}

export interface Outcome {
  readonly samples: ReadonlyMap<Measure, Samples>
  readonly failures: ReadonlyArray<Failure>
}

/** How many of `samples` are due in round `round` of `rounds`, so that they spread evenly. */
const dueIn = (round: number, rounds: number, samples: number): number =>
  Math.floor((samples * (round + 1)) / rounds) - Math.floor((samples * round) / rounds)

/** Each sample visits the paths in another order: being first or last must favour none. */
const rotated = <A>(all: ReadonlyArray<A>, by: number): Array<A> => {
  const from = by % Math.max(1, all.length)
  return [...all.slice(from), ...all.slice(0, from)]
}

/**
 * Runs all rounds. Within a sample the paths follow each other at once, so that what else the machine does
 * meets all of them. A path that fails a measure is not tried at it again.
 */
export const runRounds = async (
  bench: Bench,
  contests: ReadonlyArray<Contest>,
  say: (line: string) => void
): Promise<Outcome> => {
  const samples = new Map<Measure, Map<string, Array<Figures | undefined>>>()
  const failures: Array<Failure> = []
  const failed = (measure: Measure, path: Path) =>
    failures.some((failure) => failure.measure === measure.name && failure.path === path.name)

  const due = contests.flatMap(({ measures, paths }) => measures.map((measure) => ({ measure, paths })))
  const { rounds } = bench.plan
  for (let round = 0; round < rounds; round++) {
    const began = performance.now()
    for (const { measure, paths } of due) {
      const taken = samples.get(measure) ?? new Map<string, Array<Figures | undefined>>()
      samples.set(measure, taken)
      const concerned = paths.filter((path) => measure.direct || path.proxy !== undefined)
      for (const path of concerned) if (!taken.has(path.name)) taken.set(path.name, [])
      const count = dueIn(round, rounds, measure.samples(bench.plan))
      for (let i = 0; i < count; i++) {
        for (const path of rotated(concerned, round + i)) {
          let figures: Figures | undefined
          if (!failed(measure, path)) {
            try {
              figures = await measure.sample(path, bench)
            } catch (error) {
              const reason = error instanceof Error ? error.message : String(error)
              failures.push({ measure: measure.name, path: path.name, reason })
              say(`${measure.name} of ${path.name} failed: ${reason}`)
            }
          }
          taken.get(path.name)?.push(figures)
        }
      }
    }
    say(`round ${round + 1} of ${rounds}: ${((performance.now() - began) / 1000).toFixed(0)} s`)
  }
  return { samples, failures }
}
