import { subject } from "./paths.js"
import type { Result } from "./results.js"
import type { Spread } from "./statistics.js"

const number = (value: number, digits: number): string =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })

const cell = (shown: Spread | undefined, digits: number, sign = ""): string => {
  if (shown === undefined) return "–"
  const signed = (value: number) => (value >= 0 ? sign : "") + number(value, digits)
  if (shown.min === shown.max) return signed(shown.median)
  return `${signed(shown.median)} (${signed(shown.min)}…${signed(shown.max)})`
}

const comparison = ({ row, comparison: shown }: Result): string => {
  if (shown === undefined) return ""
  return row.compare === "ratio" ? cell(shown, 2, "×") : cell(shown, row.digits, "+")
}

const verdict = (result: Result): string =>
  result.verdict ? `${result.verdict.limit} ${result.verdict.reached ? "ok" : "MISSED"}` : ""

/** Medians, with the least and the greatest sample in parentheses. */
export const table = (
  results: ReadonlyArray<Result>,
  pathNames: ReadonlyArray<string>,
  against: string
): string => {
  const lines = [
    ["median (min…max)", ...pathNames, `${subject} : ${against}`, "mark"],
    ...results.map((result) => [
      result.row.title,
      ...pathNames.map((path) =>
        cell(result.cells[path], result.row.digits, result.row.overDirect ? "+" : "")
      ),
      comparison(result),
      verdict(result)
    ])
  ]
  const widths = lines[0]?.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? "").length)))
  return lines
    .map((line) =>
      line
        .map((text, column) => text.padEnd(widths?.[column] ?? 0))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}
