/** The figures of a run: medians, comparisons, and the table that shows them. */
import type { Mark, Measure, Row } from "./measure.js"
import { direct, type Group, subject } from "./paths.js"
import type { Samples } from "./rounds.js"

/** The median and the range of some samples. */
export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

export interface Result {
  readonly measure: string
  readonly row: Row
  /** By the name of the path. */
  readonly cells: Readonly<Record<string, Spread>>
  readonly comparison?: Spread
  readonly verdict?: { readonly limit: string; readonly reached: boolean }
}

const spread = (values: ReadonlyArray<number>): Spread | undefined => {
  if (values.length === 0) return undefined
  const sorted = values.toSorted((a, b) => a - b)
  const at = (index: number) => sorted[index] ?? 0
  const middle = (sorted.length - 1) / 2
  return {
    median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    min: at(0),
    max: at(sorted.length - 1)
  }
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

const verdictOn = (
  { atLeast, atMost, of }: Mark,
  row: Row,
  value: number
): NonNullable<Result["verdict"]> => {
  const plus = of === "comparison" && row.compare === "difference" ? "+" : ""
  const limit = (atLeast ?? atMost ?? 0).toLocaleString("en")
  return {
    limit: `${atLeast === undefined ? "≤" : "≥"} ${plus}${limit}`,
    reached: value >= (atLeast ?? -Infinity) && value <= (atMost ?? Infinity)
  }
}

/** The results of one measure, a row each. A row without a single sample is left out. */
export const resultsOf = (
  measure: Measure,
  samples: Samples,
  references: ReadonlyArray<string>
): Array<Result> =>
  measure.rows.flatMap((row) => {
    const cells = Object.entries(samples).flatMap(([path, taken]): Array<[string, Spread]> => {
      const isOver = row.overDirect === true
      const values = taken.flatMap((figures) => figures?.[row.figure] ?? [])
      const cell = !isOver
        ? spread(values)
        : path === direct
          ? undefined
          : paired(samples, row, path, [direct])
      return cell === undefined ? [] : [[path, cell]]
    })
    if (cells.length === 0) return []
    const comparison = row.compare && paired(samples, row, subject, references)
    const held = row.mark?.of === "comparison" ? comparison : Object.fromEntries(cells)[subject]
    return [
      {
        measure: measure.name,
        row,
        cells: Object.fromEntries(cells),
        ...(comparison && { comparison }),
        ...(row.mark && held && { verdict: verdictOn(row.mark, row, held.median) })
      }
    ]
  })

const cellText = (cell: Spread | undefined, digits: number, sign = ""): string => {
  if (cell === undefined) return "–"
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits }
  const signed = (value: number) => (value >= 0 ? sign : "") + value.toLocaleString("en", options)
  const { max, median, min } = cell
  return min === max ? signed(median) : `${signed(median)} (${signed(min)}…${signed(max)})`
}

const comparisonText = ({ comparison, row }: Result): string => {
  if (comparison === undefined) return ""
  return row.compare === "ratio" ? cellText(comparison, 2, "×") : cellText(comparison, row.digits, "+")
}

/** Shows the results of a group: medians, with the least and the greatest sample in parentheses. */
export const table = ({ against, paths }: Group, results: ReadonlyArray<Result>): string => {
  const lines = [
    ["median (min…max)", ...paths.map(({ name }) => name), `${subject} : ${against}`, "mark"],
    ...results.map((result) => [
      result.row.title,
      ...paths.map(({ name }) =>
        cellText(result.cells[name], result.row.digits, result.row.overDirect ? "+" : "")
      ),
      comparisonText(result),
      result.verdict ? `${result.verdict.limit} ${result.verdict.reached ? "ok" : "MISSED"}` : ""
    ])
  ]
  const widths = lines[0]?.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines
    .map((line) =>
      line
        .map((text, column) => text.padEnd(widths?.[column] ?? 0))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}
