/** What is wrong with a command line, where the parser of `@effect/cli` would say only what it missed after it. */
import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import { stripVTControlCharacters } from "node:util"
import { forwardHttp } from "./forwardHttp.js"
import { forwardStdio } from "./forwardStdio.js"
import { close, list, show } from "./sessions.js"

/** The options that every command has, and whether they take a value. */
const builtIn = { help: false, version: false, wizard: false, completions: true, "log-level": true }

const helpOf = <Name extends string, R, E, A>(command: Command.Command<Name, R, E, A>): string =>
  stripVTControlCharacters(HelpDoc.toAnsiText(Command.getHelp(command, CliConfig.defaultConfig)))

/** The options there are, as the help lists them: each in a line of its own, with the name of its value. */
const options = (): ReadonlyMap<string, boolean> => {
  const help = [helpOf(forwardHttp), helpOf(forwardStdio), helpOf(list), helpOf(show), helpOf(close)].join(
    "\n"
  )
  const listed = Array.from(
    help.matchAll(/^--(\S+)( \S.*)?$/gm),
    ([, name = "", value]): [string, boolean] => [name, value !== undefined]
  )
  return new Map([...Object.entries(builtIn), ...listed])
}

/** The first option among these arguments that there is not, or that lacks its value. */
export const wrongOption = (args: ReadonlyArray<string>): string | undefined => {
  const known = options()
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

/** Whether questions are to be asked of nobody. */
export const asksNobody = (args: ReadonlyArray<string>): boolean =>
  args.includes("--wizard") && !process.stdin.isTTY
