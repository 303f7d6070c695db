/** A whole command line, from its arguments to what it ends with. */
import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { stripVTControlCharacters } from "node:util"
import { version } from "../internal/version.js"
import { environmentLogLevel } from "./logging.js"
import { beginnings, shadowcat } from "./root.js"
import { ServerCommand } from "./upstream.js"
import { asksNobody, wrongOption } from "./usageErrors.js"

const run = Command.run(shadowcat, { name: "shadowcat", version, executable: "shadowcat" })

/** No parser looks at what follows `--`: it would take options that it does not know for arguments. */
const part = (argv: ReadonlyArray<string>): readonly [ReadonlyArray<string>, ReadonlyArray<string>] => {
  const border = argv.indexOf("--")
  return border < 0 ? [argv, []] : [argv.slice(0, border), argv.slice(border + 1)]
}

/** Help has no colours where standard output is no terminal; errors are told once, at the end. */
const quiet = (console: Console.Console): Console.Console => ({
  ...console,
  log: (text: string) => console.log(process.stdout.isTTY ? text : stripVTControlCharacters(text)),
  error: () => Effect.void
})

/** Does what the arguments ask for; the first two are those that Node adds. What it fails with, `complain` tells. */
export const execute = (argv: ReadonlyArray<string>): Effect.Effect<void, unknown> =>
  Effect.gen(function* () {
    const [args, command] = part(argv)
    const level = yield* environmentLogLevel
    const console = yield* Console.consoleWith(Effect.succeed)
    if (asksNobody(args)) {
      return yield* Effect.fail(
        ValidationError.invalidValue(HelpDoc.p("--wizard asks questions: run it in a terminal"))
      )
    }
    yield* run(args).pipe(
      Effect.provideService(ServerCommand, command),
      Logger.withMinimumLogLevel(level),
      Effect.withConsole(quiet(console))
    )
  }).pipe(
    Effect.provide(
      Layer.merge(
        NodeContext.layer,
        CliConfig.layer({ isCaseSensitive: true, showBuiltIns: false, showTypes: false })
      )
    )
  )

export interface Complaint {
  readonly line: string
  /** The exit code: 2 for a wrong use, 1 for all else. */
  readonly code: number
}

/** What is said, in one line, of a failure to do what these arguments ask for. */
export const complain = (argv: ReadonlyArray<string>, cause: Cause.Cause<unknown>): Complaint => {
  const { code, reason } = why(argv, Cause.squash(cause))
  return { code, line: `shadowcat: ${reason}` }
}

const why = (
  argv: ReadonlyArray<string>,
  error: unknown
): { readonly reason: string; readonly code: number } => {
  if (ValidationError.isValidationError(error) && ValidationError.isCommandMismatch(error)) {
    return { reason: `Unknown command: use ${beginnings.join(" or ")} (see shadowcat --help)`, code: 2 }
  }
  if (ValidationError.isValidationError(error)) {
    const [args] = part(argv)
    const wrong = wrongOption(args.slice(2)) ?? oneLine(HelpDoc.toAnsiText(error.error))
    return { reason: `${wrong} (see shadowcat --help)`, code: 2 }
  }
  return { reason: oneLine(error instanceof Error ? error.message : String(error)), code: 1 }
}

const oneLine = (text: string): string => stripVTControlCharacters(text).replaceAll(/\s+/g, " ").trim()
