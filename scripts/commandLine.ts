/** The command line of scripts/demo and scripts/bench: option values, signals and exit codes. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constants } from "node:os"
import { fileURLToPath } from "node:url"

/** A failure that ends a script with exit code 1. The message is printed in one line. */
export class ScriptError extends Data.TaggedError("ScriptError")<{ readonly message: string }> {}

/** A command line that a script does not accept. It ends the script with exit code 2. */
export class UsageError extends Data.TaggedError("UsageError")<{ readonly message: string }> {}

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

/** The arguments of Node for a server that would listen on all interfaces, and not print the port that it got. */
export const onLoopback = preload("loopback.js")

/** The exit code of a script that a signal ends. */
export interface Interruption {
  code: number
}

/** Runs a script to its exit code. A signal interrupts it, so that its finalizers run. */
export const runScript = (
  name: string,
  main: (interruption: Interruption) => Effect.Effect<number, unknown>
): void => {
  const interruption: Interruption = { code: 0 }
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => (interruption.code = 128 + constants.signals[signal]))
  }
  // A closed terminal ends the script as Ctrl-C does.
  process.once("SIGHUP", () => process.kill(process.pid, "SIGTERM"))
  // A reader such as `head` may close the output before the child processes have ended.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {})

  NodeRuntime.runMain(main(interruption), {
    disableErrorReporting: true,
    disablePrettyLogger: true,
    teardown: (exit, onExit) => {
      if (Exit.isSuccess(exit)) return onExit(typeof exit.value === "number" ? exit.value : 0)
      if (Cause.isInterruptedOnly(exit.cause)) return onExit(interruption.code)
      const error = Cause.squash(exit.cause)
      process.stderr.write(`${name}: ${messageOf(error).replaceAll(/\s+/g, " ")}\n`, () =>
        onExit(error instanceof UsageError ? 2 : 1)
      )
    }
  })
}
