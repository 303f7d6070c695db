/** Shared code of scripts/demo and scripts/bench: option values, signals, exit codes and tables. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constants } from "node:os"
import { fileURLToPath } from "node:url"

/** A failure that ends a script with exit code 1. The message is printed in one line. */
export class ScriptError extends Data.TaggedError("ScriptError")<{ readonly message: string }> {}

/** A command line that a script does not accept. It ends the script with exit code 2. */
class UsageError extends Data.TaggedError("UsageError")<{ readonly message: string }> {}

export const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/** Reads the value of a numeric option; throws if it is not a whole number from 1 to `most`. */
export const wholeNumber = (option: string, text: string, most: number): number => {
  if (/^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= most) return Number(text)
  throw new Error(`--${option} wants a whole number from 1 to ${most}`)
}

const preload = (file: string): ReadonlyArray<string> => [
  "--import",
  fileURLToPath(new URL(file, import.meta.url))
]

/** The arguments of Node for a child process that must not outlive this process, even if this one is killed. */
export const guarded = preload("guard.js")

/** The arguments of Node for a server that listens on all interfaces by default and does not print its port. */
export const onLoopback = preload("loopback.js")

/** Aligns the columns of a table. `alignRight` is true for a column of numbers. */
export const columns = (
  lines: ReadonlyArray<ReadonlyArray<string>>,
  alignRight: (column: number) => boolean = () => false
): string => {
  const widths = (lines[0] ?? []).map((_, column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0))
  )
  const cell = (text: string, column: number) =>
    alignRight(column) ? text.padStart(widths[column] ?? 0) : text.padEnd(widths[column] ?? 0)
  return lines.map((line) => line.map(cell).join("  ").trimEnd()).join("\n")
}

export interface Script<Options> {
  readonly name: string
  readonly usage: string
  /** Returns `undefined` for --help; throws if the command line is wrong. */
  readonly parseOptions: (args: ReadonlyArray<string>) => Options | undefined
  /** Returns the exit code. */
  readonly run: (options: Options) => Effect.Effect<number, unknown>
  /** The exit code after SIGINT and SIGTERM. Default: 128 and the number of the signal. */
  readonly interruptedCode?: (options: Options) => number | undefined
}

/** Runs a script to its exit code. A signal interrupts it, so that its finalizers run. */
export const runScript = <Options>({ name, parseOptions, usage, ...script }: Script<Options>): void => {
  let interruptedCode: number | undefined
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => (interruptedCode ??= 128 + constants.signals[signal]))
  }
  // A closed terminal ends the script like Ctrl-C.
  process.once("SIGHUP", () => process.kill(process.pid, "SIGTERM"))
  // A reader such as `head` may close the output before the child processes have ended.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {})

  const main = Effect.gen(function* () {
    const options = yield* Effect.try({
      try: () => parseOptions(process.argv.slice(2)),
      catch: (cause) => new UsageError({ message: `${messageOf(cause)}; see scripts/${name} --help` })
    })
    if (options !== undefined) {
      interruptedCode = script.interruptedCode?.(options)
      return yield* script.run(options)
    }
    process.stdout.write(`${usage}\n`)
    return 0
  })
  NodeRuntime.runMain(main, {
    disableErrorReporting: true,
    disablePrettyLogger: true,
    teardown: (exit, onExit) => {
      if (Exit.isSuccess(exit)) return onExit(Number(exit.value))
      if (Cause.isInterruptedOnly(exit.cause)) return onExit(interruptedCode ?? 1)
      const error = Cause.squash(exit.cause)
      process.stderr.write(`${name}: ${messageOf(error).replaceAll(/\s+/g, " ")}\n`, () =>
        onExit(error instanceof UsageError ? 2 : 1)
      )
    }
  })
}
