/** The demo; started by scripts/demo. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constants } from "node:os"
import { DemoFailure, messageOf } from "./failure.js"
import { parseOptions, usage } from "./options.js"
import { table, verdict } from "./report.js"

class WrongUse extends Data.TaggedError("WrongUse")<{ readonly message: string }> {}

const demo = Effect.gen(function* () {
  const options = yield* Effect.try({
    try: () => parseOptions(process.argv.slice(2)),
    catch: (cause) => new WrongUse({ message: messageOf(cause) })
  })
  if (options === undefined) {
    process.stdout.write(`${usage}\n`)
    return
  }
  // Loaded by whom they are needed, for the clients take longer to load than all the rest.
  const { serve } = yield* Effect.promise(() => import("./serve.js"))
  // What serves until a signal comes has done all that it was asked for when one comes.
  if (options.serve) {
    return yield* Effect.onInterrupt(serve(options), () => Effect.sync(() => (interruptedCode = 0)))
  }
  const { run } = yield* Effect.promise(() => import("./run.js"))
  const findings = yield* run(options)
  process.stdout.write(`${table(findings)}\n`)
  const wrong = verdict(findings)
  if (wrong !== undefined) return yield* new DemoFailure({ message: wrong })
})

/** The exit code after an interruption, which only a signal brings about. */
let interruptedCode = 0
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => (interruptedCode = 128 + constants.signals[signal]))
}
// A terminal that is closed ends the demo as Ctrl-C does.
process.once("SIGHUP", () => process.kill(process.pid, "SIGTERM"))

// Whoever has read enough of what is written here may close it; the servers still have to be ended.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {})

NodeRuntime.runMain(demo, {
  disableErrorReporting: true,
  disablePrettyLogger: true,
  teardown: (exit, onExit) => {
    if (Exit.isSuccess(exit)) return onExit(0)
    if (Cause.isInterruptedOnly(exit.cause)) return onExit(interruptedCode)
    const error = Cause.squash(exit.cause)
    process.stderr.write(`demo: ${messageOf(error).replaceAll(/\s+/g, " ")}\n`, () =>
      onExit(error instanceof WrongUse ? 2 : 1)
    )
  }
})
