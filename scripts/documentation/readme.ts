/** The options tables of README.md. */
import { clientTable, forwardTable } from "../../src/commands/options.js"
import { groups, type OptionInfo, listOptions } from "../../src/commands/options/rows.js"

const BEGIN = "<!-- Written by scripts/options: -->"
const END = "<!-- End of the options -->"

/** Replaces the options tables between the markers in a README. Throws if a marker is missing. */
export const withOptions = (readme: string): string => {
  const begin = readme.indexOf(BEGIN)
  const end = readme.indexOf(END)
  if (begin < 0 || end < begin) throw new Error(`README.md lacks "${BEGIN}" or "${END}" after it`)
  return `${readme.slice(0, begin + BEGIN.length)}\n\n${tables()}\n\n${readme.slice(end)}`
}

/** One table for each group of options. */
const tables = (): string => {
  const infos = [...listOptions(forwardTable), ...listOptions(clientTable)].map(({ info }) => info)
  return groups
    .map((group) => table(group, infos.filter((info) => info.group === group).map(cells)))
    .join("\n\n")
}

const table = (group: string, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [
    `### ${group}`,
    "",
    line(["option", "default", "sets", "commands"]),
    line(["---", "---", "---", "---"]),
    ...rows.map(line)
  ].join("\n")

const line = (cells: ReadonlyArray<string>): string =>
  `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`

const cells = (info: OptionInfo): ReadonlyArray<string> => [
  `\`--${info.name}${info.kind === "switch" ? "" : ` ${info.placeholder}`}\``,
  info.kind === "repeated" || info.default === undefined ? "–" : `${info.default}`,
  info.kind === "repeated"
    ? `${info.description}; repeatable, ${separators[info.separator]} in the environment`
    : info.description,
  commandsOf(info)
]

/** `forward http, stdio` for `forward http` and `forward stdio`. */
const commandsOf = ({ commands }: OptionInfo): string => {
  const [parent] = (commands[0] ?? "").split(" ")
  return `${parent} ${commands.map((command) => command.slice(command.indexOf(" ") + 1)).join(", ")}`
}

const separators = { ",": "or separated by commas", "\n": "or one per line" }
