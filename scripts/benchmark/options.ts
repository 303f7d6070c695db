import { resolve } from "node:path"
import { parseArgs } from "node:util"
import { wholeNumber } from "../commandLine.js"
import { fullPlan, quickPlan } from "./measure.js"
import { beside, groups } from "./paths.js"

const measureNames = groups.flatMap(({ measures }) => measures.map(({ name }) => name))
const pathNames = [...new Set(groups.flatMap(({ paths }) => paths.map(({ name }) => name)))]

export const usage = `usage: scripts/bench [options]

  --rounds N       rounds, each of which samples every path (1 to 100, default ${fullPlan.rounds})
  --quick          a smoke run of about a minute; its figures say little
  --only NAME      only the measures whose name contains NAME; may be repeated
                   (${measureNames.join(", ")})
  --paths A,B      only these paths (${pathNames.join(", ")})
  --beside FOLDER  also measure the build of another checkout, and compare shadowcat with it
  --json FILE      where to write the figures (default: bench.json in a new temporary folder)
  --check          exit with 1 when a mark is missed`

export type BenchOptions = NonNullable<ReturnType<typeof parseOptions>>

/** Returns `undefined` for --help; throws if the command line is wrong. */
export const parseOptions = (args: ReadonlyArray<string>) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: "string" },
      quick: { type: "boolean", default: false },
      only: { type: "string", multiple: true, default: [""] },
      paths: { type: "string", default: pathNames.join(",") },
      beside: { type: "string" },
      json: { type: "string" },
      check: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false }
    }
  })
  if (values.help) return undefined
  const paths = values.paths.split(",")
  const unknownPath = paths.find((name) => !pathNames.includes(name))
  if (unknownPath !== undefined) throw new Error(`no path is named ${unknownPath}`)
  const unknownMeasure = values.only.find((part) => !measureNames.some((name) => name.includes(part)))
  if (unknownMeasure !== undefined) throw new Error(`no measure is named ${unknownMeasure}`)
  // scripts/bench changes the folder; INIT_CWD is the one that it was called in.
  const fromCaller = (path: string) => resolve(process.env.INIT_CWD ?? "", path)
  const chosen = groups
    .map(({ measures, ...group }) => ({
      ...group,
      measures: measures.filter(({ name }) => values.only.some((part) => name.includes(part))),
      paths: group.paths.filter(({ name }) => paths.includes(name))
    }))
    .filter(({ measures, paths }) => measures.length > 0 && paths.length > 0)
  const { beside: checkout, check, json } = values
  const plan = values.quick ? quickPlan : fullPlan
  return {
    plan: values.rounds === undefined ? plan : { ...plan, rounds: wholeNumber("rounds", values.rounds, 100) },
    groups: checkout === undefined ? chosen : chosen.map((group) => beside(group, fromCaller(checkout))),
    json: json === undefined ? undefined : fromCaller(json),
    check
  }
}
