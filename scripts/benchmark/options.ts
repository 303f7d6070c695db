import { resolve } from "node:path"
import { parseArgs } from "node:util"
import { type Contest, contests } from "./contests.js"
import { fullPlan, type Measure, type Plan, quickPlan } from "./measure.js"
import type { Path } from "./paths.js"

export interface Options {
  readonly plan: Plan
  readonly contests: ReadonlyArray<Contest>
  readonly json?: string
  readonly check: boolean
}

const measures = contests.flatMap(({ measures }) => measures)
const pathNames = [...new Set(contests.flatMap(({ paths }) => paths.map(({ name }) => name)))]

export const usage = `usage: scripts/bench [options]

  --rounds N     rounds, each of which samples every path (default ${fullPlan.rounds})
  --quick        a smoke run of about a minute; its figures say little
  --only NAME    only the measures whose name contains NAME; may be repeated
                 (${measures.map(({ name }) => name).join(", ")})
  --paths A,B    only these paths (${pathNames.join(", ")})
  --json FILE    where to write the figures (default: bench.json in a new temporary folder)
  --check        exit with 1 when a mark is missed`

const named = (list: string): ((path: Path) => boolean) => {
  const names = list.split(",")
  const unknown = names.filter((name) => !pathNames.includes(name))
  if (unknown.length > 0) throw new Error(`no path is named ${unknown.join(", ")}`)
  return ({ name }) => names.includes(name)
}

const matching = (parts: ReadonlyArray<string>): ((measure: Measure) => boolean) => {
  for (const part of parts) {
    if (!measures.some(({ name }) => name.includes(part))) throw new Error(`no measure is named ${part}`)
  }
  return ({ name }) => parts.some((part) => name.includes(part))
}

const chosen = (only: ReadonlyArray<string> | undefined, list: string | undefined): Array<Contest> => {
  const isMeasured = only === undefined ? () => true : matching(only)
  const takesPart = list === undefined ? () => true : named(list)
  return contests
    .map((contest) => ({
      ...contest,
      measures: contest.measures.filter(isMeasured),
      paths: contest.paths.filter(takesPart)
    }))
    .filter(({ measures, paths }) => measures.length > 0 && paths.length > 0)
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
    contests: chosen(values.only, values.paths),
    // The starter changes the folder, and says from which it was called.
    ...(values.json !== undefined && { json: resolve(process.env.INIT_CWD ?? "", values.json) }),
    check: values.check
  }
}
