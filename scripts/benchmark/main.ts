import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { constants, cpus, loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import { Bench } from "./bench.js"
import { Children } from "./children.js"
import { type Options, parseOptions, usage } from "./options.js"
import { subject } from "./paths.js"
import { buildPrograms, isBuilt } from "./programs.js"
import { resultsOf } from "./results.js"
import { runRounds } from "./rounds.js"
import { table } from "./table.js"

const temporaryFolder = () => mkdtempSync(join(tmpdir(), "shadowcat-bench-"))

const say = (line: string) => void process.stderr.write(`bench: ${line}\n`)

const run = async (options: Options, children: Children, folder: string): Promise<number> => {
  const programs = await buildPrograms(folder)
  const { contests } = options
  if (
    contests.some(({ paths }) => paths.some(({ name }) => name === subject)) &&
    !isBuilt(programs.shadowcat)
  ) {
    say("dist/shadowcat.js is not built: run scripts/setup, or leave it out with --paths direct,relay")
    return 1
  }
  const machine = {
    date: new Date().toISOString(),
    node: process.version,
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    loadBefore: loadavg()[0]
  }
  const bench = await Bench.start(options.plan, programs, children, folder)
  const { samples, failures } = await runRounds(bench, contests, say)
  const outcomes = contests.map((contest) => ({
    contest,
    results: contest.measures
      .flatMap((measure) => {
        const taken = samples.get(measure)
        return taken === undefined ? [] : resultsOf(measure, taken, contest.references)
      })
      .filter(({ cells }) => Object.keys(cells).length > 0)
  }))
  const results = outcomes.flatMap(({ results }) => results)

  const json = options.json ?? join(temporaryFolder(), "bench.json")
  const raw = Object.fromEntries(
    [...samples].map(([measure, taken]) => [measure.name, Object.fromEntries(taken)])
  )
  const report = { machine, plan: options.plan, results, failures, samples: raw }
  writeFileSync(json, JSON.stringify(report, null, 2) + "\n")

  const tables = outcomes.map(({ contest: { against, paths }, results }) =>
    table(
      results,
      paths.map(({ name }) => name),
      against
    )
  )
  process.stdout.write(
    `${machine.cores} cores, node ${machine.node}, ${options.plan.rounds} rounds, ` +
      `load before ${machine.loadBefore?.toFixed(2)}\n\n${tables.join("\n\n")}\n`
  )
  for (const { measure, path, reason } of failures) {
    process.stdout.write(`FAILED: ${measure} of ${path}: ${reason}\n`)
  }
  process.stdout.write(`\nfigures: ${json}\n`)
  const missed = results.some(({ verdict }) => verdict?.reached === false)
  return failures.length > 0 || (options.check && missed) ? 1 : 0
}

const main = async (): Promise<number> => {
  let options: Options | undefined
  try {
    options = parseOptions(process.argv.slice(2))
  } catch (error) {
    process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n\n${usage}\n`)
    return 2
  }
  if (options === undefined) {
    process.stdout.write(usage + "\n")
    return 0
  }
  const children = new Children()
  const folder = temporaryFolder()
  // The one way out of all: the end, a throw, and every signal that can be caught come through here.
  process.once("exit", () => {
    children.killAll()
    rmSync(folder, { recursive: true, force: true })
  })
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => process.exit(128 + constants.signals[signal]))
  }
  return run(options, children, folder)
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    say(error instanceof Error ? (error.stack ?? error.message) : String(error))
    process.exit(1)
  }
)
