/** The entry point of the command line. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import { describeFailure, execute } from "./commands/commandLine.js"

// A reader that closes its end of a pipe must not end the proxy.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {})

NodeRuntime.runMain(execute(process.argv), {
  disableErrorReporting: true,
  disablePrettyLogger: true,
  teardown: (exit, onExit) => {
    if (Exit.isSuccess(exit) || Cause.isInterruptedOnly(exit.cause)) return onExit(0)
    const { code, line } = describeFailure(process.argv, exit.cause)
    process.stderr.write(`${line}\n`, () => onExit(code))
  }
})
