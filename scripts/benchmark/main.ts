/** The benchmark; started by scripts/bench. */
import * as Effect from "effect/Effect"
import { mkdtempSync, writeFileSync } from "node:fs"
import { cpus, loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import { runScript } from "../commandLine.js"
import { makeBench } from "./bench.js"
import { type BenchOptions, parseOptions, usage } from "./options.js"
import { resultsOf, table } from "./results.js"
import { runRounds } from "./rounds.js"

/** Takes all samples, prints the tables, writes the figures and returns the exit code. */
const run = ({ check, groups, json, plan }: BenchOptions) =>
  Effect.gen(function* () {
    const { length: cores, 0: cpu } = cpus()
    const loadBefore = loadavg()[0]
    const machine = {
      date: new Date().toISOString(),
      node: process.version,
      cpu: cpu?.model,
      cores,
      loadBefore
    }
    const bench = yield* makeBench(plan)
    const { failures, samples } = yield* runRounds(bench, groups)
    const outcomes = groups.map((group) => ({
      group,
      results: group.measures.flatMap((measure) =>
        resultsOf(measure, samples[measure.name] ?? {}, group.references)
      )
    }))
    const results = outcomes.flatMap(({ results }) => results)
    const file = json ?? join(mkdtempSync(join(tmpdir(), "shadowcat-bench-")), "bench.json")
    writeFileSync(file, `${JSON.stringify({ machine, plan, results, failures, samples }, null, 2)}\n`)
    const output = [
      `${cores} cores, node ${process.version}, ${plan.rounds} rounds, load before ${loadBefore?.toFixed(2)}`,
      ...outcomes.map(({ group, results }) => table(group, results)),
      ...failures.map(({ measure, path, reason }) => `FAILED: ${measure} of ${path}: ${reason}`),
      `figures: ${file}`
    ]
    process.stdout.write(`${output.join("\n\n")}\n`)
    const isMissed = results.some(({ verdict }) => verdict?.reached === false)
    return failures.length > 0 || (check && isMissed) ? 1 : 0
  }).pipe(Effect.scoped)

runScript({ name: "bench", usage, parseOptions, run })
