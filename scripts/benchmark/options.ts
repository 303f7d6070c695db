import { resolve } from "node:path"
import { parseArgs } from "node:util"
import { fullPlan, type Measure, type Plan, quickPlan } from "./measure.js"
import { measures } from "./measures.js"
import { type Path, paths } from "./paths.js"

export interface Options {
  readonly plan: Plan
  readonly measures: ReadonlyArray<Measure>
  readonly paths: ReadonlyArray<Path>
  readonly json?: string
  readonly check: boolean
}

export const usage = `usage: scripts/bench [options]

  --rounds N     rounds, each of which samples every path (default ${fullPlan.rounds})
  --quick        a smoke run of about 20 s; its figures say little
  --only NAME    only the measures whose name contains NAME; may be repeated
                 (${measures.map(({ name }) => name).join(", ")})
  --paths A,B    only these paths (${paths.map(({ name }) => name).join(", ")})
  --json FILE    where to write the figures (default: bench.json in a new temporary folder)
  --check        exit with 1 when a mark is missed`

const named = (all: ReadonlyArray<Path>, list: string): Array<Path> => {
  const names = list.split(",")
  const unknown = names.filter((name) => !all.some((path) => path.name === name))
  if (unknown.length > 0) throw new Error(`no path is named ${unknown.join(", ")}`)
  return all.filter((path) => names.includes(path.name))
}

const matching = (all: ReadonlyArray<Measure>, parts: ReadonlyArray<string>): Array<Measure> => {
  for (const part of parts) {
    if (!all.some(({ name }) => name.includes(part))) throw new Error(`no measure is named ${part}`)
  }
  return all.filter(({ name }) => parts.some((part) => name.includes(part)))
}

/** Undefined when only the usage was asked for; throws at what it does not know. */
export const parseOptions = (args: ReadonlyArray<string>): Options | undefined => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: "string" },
      quick: { type: "boolean", default: false },
      only: { type: "string", multiple: true },
      paths: { type: "string" },
      json: { type: "string" },
      check: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false }
    }
  })
  if (values.help) return undefined
  const plan = values.quick ? quickPlan : fullPlan
  const rounds = values.rounds === undefined ? plan.rounds : Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) {
    throw new Error("--rounds wants a number from 1 to 100")
  }
  return {
    plan: { ...plan, rounds },
    measures: values.only === undefined ? measures : matching(measures, values.only),
    paths: values.paths === undefined ? paths : named(paths, values.paths),
    // The starter changes the folder, and says from which it was called.
    ...(values.json !== undefined && { json: resolve(process.env.INIT_CWD ?? "", values.json) }),
    check: values.check
  }
}
