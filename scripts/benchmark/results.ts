/** The figures of a run: medians, comparisons, and the table that shows them. */
import { columns } from "../commandLine.js"
import type { Measure, Row } from "./measure.js"
import { direct, type Group, subject } from "./paths.js"
import type { Samples } from "./rounds.js"

/** The median and the range of some samples. */
type Spread = { readonly median: number; readonly min: number; readonly max: number }

const spread = (values: ReadonlyArray<number>): Spread | undefined => {
  if (values.length === 0) return undefined
  const sorted = values.toSorted((a, b) => a - b)
  const at = (index: number) => sorted[index] ?? 0
  const middle = (sorted.length - 1) / 2
  const median = (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2
  return { median, min: at(0), max: at(sorted.length - 1) }
}

/** Compares a path with the best of others, sample by sample, because the paths of a sample met the same noise. */
const paired = (
  samples: Samples,
  { compare, figure, moreIsBetter }: Row,
  name: string,
  others: ReadonlyArray<string>
): Spread | undefined => {
  const best = moreIsBetter ? Math.max : Math.min
  const pairs = (samples[name] ?? []).flatMap((figures, index) => {
    const value = figures?.[figure]
    const references = others.flatMap((other) => samples[other]?.[index]?.[figure] ?? [])
    if (value === undefined || references.length === 0) return []
    return [compare === "ratio" ? value / best(...references) : value - best(...references)]
  })
  return spread(pairs)
}

const verdictOn = ({ compare, mark }: Row, held: Spread | undefined) => {
  if (mark === undefined || held === undefined) return undefined
  const { atLeast, atMost, of } = mark
  const plus = of === "comparison" && compare === "difference" ? "+" : ""
  return {
    limit: `${atLeast === undefined ? "≤" : "≥"} ${plus}${(atLeast ?? atMost ?? 0).toLocaleString("en")}`,
    reached: held.median >= (atLeast ?? -Infinity) && held.median <= (atMost ?? Infinity)
  }
}

export type Result = ReturnType<typeof resultsOf>[number]

/** The results of one measure, one for each row. A row without a single sample is left out. */
export const resultsOf = (measure: Measure, samples: Samples, references: ReadonlyArray<string>) =>
  measure.rows.flatMap((row) => {
    const cells: Record<string, Spread> = {}
    for (const [path, taken] of Object.entries(samples)) {
      const values = taken.flatMap((figures) => figures?.[row.figure] ?? [])
      const cell = row.overDirect ? paired(samples, row, path, [direct]) : spread(values)
      if (cell !== undefined && !(row.overDirect && path === direct)) cells[path] = cell
    }
    if (Object.keys(cells).length === 0) return []
    const comparison = row.compare && paired(samples, row, subject, references)
    const verdict = verdictOn(row, row.mark?.of === "comparison" ? comparison : cells[subject])
    return [{ measure: measure.name, row, cells, comparison, verdict }]
  })

const cellText = (cell: Spread | undefined, digits: number, sign = ""): string => {
  if (cell === undefined) return "–"
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits }
  const signed = (value: number) => (value >= 0 ? sign : "") + value.toLocaleString("en", options)
  const { max, median, min } = cell
  return min === max ? signed(median) : `${signed(median)} (${signed(min)}…${signed(max)})`
}

const lineOf = ({ cells, comparison, row, verdict }: Result, { paths }: Group): ReadonlyArray<string> => {
  const isRatio = row.compare === "ratio"
  return [
    row.title,
    ...paths.map(({ name }) => cellText(cells[name], row.digits, row.overDirect ? "+" : "")),
    comparison === undefined ? "" : cellText(comparison, isRatio ? 2 : row.digits, isRatio ? "×" : "+"),
    verdict === undefined ? "" : `${verdict.limit} ${verdict.reached ? "ok" : "MISSED"}`
  ]
}

/** Shows the results of a group: medians, with the least and the greatest sample in parentheses. */
export const table = (group: Group, results: ReadonlyArray<Result>): string => {
  const { paths, references } = group
  const against = references.length === 1 ? references[0] : "better peer"
  const head = ["median (min…max)", ...paths.map(({ name }) => name), `${subject} : ${against}`, "mark"]
  return columns([head, ...results.map((result) => lineOf(result, group))])
}
