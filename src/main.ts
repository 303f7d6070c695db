/** The entry of the command line. */
import { stripVTControlCharacters } from "node:util"
import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { environmentLogLevel } from "./commands/logging.js"
import { beginnings, shadowcat } from "./commands/root.js"
import { ServerCommand } from "./commands/upstream.js"
import { asksNobody, wrongOption } from "./commands/wrongUse.js"
import { version } from "./internal/version.js"

const run = Command.run(shadowcat, { name: "shadowcat", version, executable: "shadowcat" })

/** No parser looks at what follows `--`: it would take options that it does not know for arguments. */
const [args, command] = ((argv: ReadonlyArray<string>) => {
  const border = argv.indexOf("--")
  return border < 0 ? [argv, []] : [argv.slice(0, border), argv.slice(border + 1)]
})(process.argv)

/** What a failure is told as, in one line, and the exit code that goes with it. */
const describe = (cause: Cause.Cause<unknown>): { readonly line: string; readonly code: number } => {
  const error = Cause.squash(cause)
  if (ValidationError.isValidationError(error) && ValidationError.isCommandMismatch(error)) {
    return { line: `Unknown command: use ${beginnings.join(" or ")} (see shadowcat --help)`, code: 2 }
  }
  if (ValidationError.isValidationError(error)) {
    const wrong = wrongOption(args.slice(2)) ?? oneLine(HelpDoc.toAnsiText(error.error))
    return { line: `${wrong} (see shadowcat --help)`, code: 2 }
  }
  return { line: oneLine(error instanceof Error ? error.message : String(error)), code: 1 }
}

const oneLine = (text: string): string => stripVTControlCharacters(text).replaceAll(/\s+/g, " ").trim()

// Whoever has read enough of what is written here may close it; the proxy goes on.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {})

/** Help has no colours where standard output is no terminal; errors are told once, at the end. */
const quiet = (console: Console.Console): Console.Console => ({
  ...console,
  log: (text: string) => console.log(process.stdout.isTTY ? text : stripVTControlCharacters(text)),
  error: () => Effect.void
})

Effect.gen(function* () {
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
  ),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    disablePrettyLogger: true,
    teardown: (exit, onExit) => {
      if (Exit.isSuccess(exit) || Cause.isInterruptedOnly(exit.cause)) return onExit(0)
      const { code, line } = describe(exit.cause)
      process.stderr.write(`shadowcat: ${line}\n`, () => onExit(code))
    }
  })
)
