/** Runs a command line and describes its failure. */
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
import { usageError } from "./flags.js"
import { environmentLogLevel } from "./logging.js"
import { examples, shadowcat } from "./root.js"
import { ServerCommand } from "./upstream.js"
import { isWizardWithoutTerminal, wrongOption } from "./usageErrors.js"

const run = Command.run(shadowcat, { name: "shadowcat", version, executable: "shadowcat" })

/** Splits the arguments at `--`. The parser must not read the options of the command after it. */
const split = (argv: ReadonlyArray<string>): readonly [ReadonlyArray<string>, ReadonlyArray<string>] => {
  const separator = argv.indexOf("--")
  return separator < 0 ? [argv, []] : [argv.slice(0, separator), argv.slice(separator + 1)]
}

/**
 * Removes colours unless standard output is a terminal. Drops errors, because `main.ts` prints the error of a command
 * once, at the end.
 */
const plain = (console: Console.Console): Console.Console => ({
  ...console,
  log: (text: string) => console.log(process.stdout.isTTY ? text : stripVTControlCharacters(text)),
  error: () => Effect.void
})

/**
 * Runs the command that `argv` names; its first two arguments are Node and the script. Use `describeFailure` to report
 * a failure.
 */
export const execute = (argv: ReadonlyArray<string>): Effect.Effect<void, unknown> =>
  Effect.gen(function* () {
    const [args, command] = split(argv)
    const level = yield* environmentLogLevel
    const console = yield* Console.consoleWith(Effect.succeed)
    if (isWizardWithoutTerminal(args)) {
      return yield* usageError("--wizard asks questions: run it in a terminal")
    }
    yield* run(args).pipe(
      Effect.provideService(ServerCommand, command),
      Logger.withMinimumLogLevel(level),
      Effect.withConsole(plain(console))
    )
  }).pipe(
    Effect.provide(
      Layer.merge(
        NodeContext.layer,
        CliConfig.layer({ isCaseSensitive: true, showBuiltIns: false, showTypes: false })
      )
    )
  )

export interface Failure {
  /** The error message. */
  readonly line: string
  /** The exit code: 2 for a usage error, 1 for every other failure. */
  readonly code: number
}

/** Describes the failure of a command line in one line. */
export const describeFailure = (argv: ReadonlyArray<string>, cause: Cause.Cause<unknown>): Failure => {
  const { code, reason } = reasonOf(argv, Cause.squash(cause))
  return { code, line: `shadowcat: ${reason}` }
}

const reasonOf = (
  argv: ReadonlyArray<string>,
  error: unknown
): { readonly reason: string; readonly code: number } => {
  if (ValidationError.isValidationError(error) && ValidationError.isCommandMismatch(error)) {
    return { reason: `Unknown command: use ${examples.join(" or ")} (see shadowcat --help)`, code: 2 }
  }
  if (ValidationError.isValidationError(error)) {
    const [args] = split(argv)
    const wrong = wrongOption(args.slice(2)) ?? oneLine(HelpDoc.toAnsiText(error.error))
    return { reason: `${wrong} (see shadowcat --help)`, code: 2 }
  }
  return { reason: oneLine(error instanceof Error ? error.message : String(error)), code: 1 }
}

const oneLine = (text: string): string => stripVTControlCharacters(text).replaceAll(/\s+/g, " ").trim()
