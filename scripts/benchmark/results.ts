import type { Figures, Mark, Measure, Row } from "./measure.js"
import { base, subject } from "./paths.js"
import { type Spread, spread } from "./statistics.js"

/** The samples of one measure by path; one that failed leaves a hole, so that the others stay in step. */
export type Samples = ReadonlyMap<string, ReadonlyArray<Figures | undefined>>

export interface Verdict {
  readonly limit: string
  readonly reached: boolean
}

export interface Result {
  readonly measure: string
  readonly row: Row
  readonly cells: Readonly<Record<string, Spread>>
  readonly comparison?: Spread
  readonly verdict?: Verdict
}

/**
 * Sets a path against the best of others sample by sample: taken one after the other, they met the same noise.
 */
const paired = (
  samples: Samples,
  { figure, moreIsBetter }: Row,
  one: string,
  others: ReadonlyArray<string>,
  combine: (one: number, other: number) => number
): Spread | undefined => {
  const best = moreIsBetter ? Math.max : Math.min
  const pairs = (samples.get(one) ?? []).flatMap((figures, index) => {
    const left = figures?.[figure]
    const rights = others.flatMap((other) => samples.get(other)?.[index]?.[figure] ?? [])
    return left === undefined || rights.length === 0 ? [] : [combine(left, best(...rights))]
  })
  return spread(pairs)
}

const difference = (one: number, other: number) => one - other
const ratio = (one: number, other: number) => one / other

const verdictOn = (mark: Mark, row: Row, value: number): Verdict => {
  const plus = mark.of === "comparison" && row.compare === "difference" ? "+" : ""
  const sign = mark.atLeast === undefined ? "≤" : "≥"
  return {
    limit: `${sign} ${plus}${(mark.atLeast ?? mark.atMost ?? 0).toLocaleString("en")}`,
    reached: value >= (mark.atLeast ?? -Infinity) && value <= (mark.atMost ?? Infinity)
  }
}

const resultOf = (
  measure: Measure,
  row: Row,
  samples: Samples,
  references: ReadonlyArray<string>
): Result => {
  const cells: Record<string, Spread> = {}
  for (const [path, taken] of samples) {
    const cell = row.overDirect
      ? path === base
        ? undefined
        : paired(samples, row, path, [base], difference)
      : spread(taken.flatMap((figures) => figures?.[row.figure] ?? []))
    if (cell !== undefined) cells[path] = cell
  }
  const comparison =
    row.compare && paired(samples, row, subject, references, row.compare === "ratio" ? ratio : difference)
  const held = row.mark?.of === "comparison" ? comparison : cells[subject]
  return {
    measure: measure.name,
    row,
    cells,
    ...(comparison && { comparison }),
    ...(row.mark && held && { verdict: verdictOn(row.mark, row, held.median) })
  }
}

export const resultsOf = (
  measure: Measure,
  samples: Samples,
  references: ReadonlyArray<string>
): Array<Result> => measure.rows.map((row) => resultOf(measure, row, samples, references))
