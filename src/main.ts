/** The entry of the command line. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import { complain, execute } from "./commands/commandLine.js"

// Whoever has read enough of what is written here may close it; the proxy goes on.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {})

NodeRuntime.runMain(execute(process.argv), {
  disableErrorReporting: true,
  disablePrettyLogger: true,
  teardown: (exit, onExit) => {
    if (Exit.isSuccess(exit) || Cause.isInterruptedOnly(exit.cause)) return onExit(0)
    const { code, line } = complain(process.argv, exit.cause)
    process.stderr.write(`${line}\n`, () => onExit(code))
  }
})
