/** Finds mistakes in a command line for which the errors of `@effect/cli` name a later argument. */
import { clientTable, forwardTable } from "./options.js"
import { listOptions } from "./options/rows.js"

/** The built-in options of every command, by name. The value is true if the option takes a value. */
const builtIn = { help: false, version: false, wizard: false, completions: true, "log-level": true }

/** Returns all options of all commands, by name. The value is true if the option takes a value. */
const knownOptions = (): ReadonlyMap<string, boolean> =>
  new Map([
    ...Object.entries(builtIn),
    ...[...listOptions(forwardTable), ...listOptions(clientTable)].map(({ info }): [string, boolean] => [
      info.name,
      info.kind !== "switch"
    ])
  ])

/** Describes the first option that is unknown or lacks its value; `undefined` if there is none. */
export const wrongOption = (args: ReadonlyArray<string>): string | undefined => {
  const known = knownOptions()
  const rest = args.slice()
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    const [, name, value] = /^--([^=]+)(=.*)?$/s.exec(arg) ?? []
    if (name === undefined) continue
    const takesValue = known.get(name)
    if (takesValue === undefined) return `There is no option --${name}`
    if (!takesValue || value !== undefined) continue
    const next = rest.shift()
    if (next === undefined || known.has(next.replace(/^--/, ""))) return `--${name} needs a value`
  }
  return undefined
}

/** True if the command line starts the wizard without a terminal. */
export const isWizardWithoutTerminal = (args: ReadonlyArray<string>): boolean =>
  args.includes("--wizard") && !process.stdin.isTTY
