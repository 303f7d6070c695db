/** The command line: `shadowcat forward http`, `shadowcat forward stdio` and `shadowcat sessions`. */
import * as Command from "@effect/cli/Command"
import { forwardHttp } from "./forwardHttp.js"
import { forwardStdio } from "./forwardStdio.js"
import { sessions } from "./sessions.js"

const forward = Command.make("forward").pipe(
  Command.withDescription("Relay MCP to one upstream"),
  Command.withSubcommands([forwardHttp, forwardStdio])
)

/** Valid commands, for the error about an unknown one. */
export const examples = ["shadowcat forward http", "shadowcat forward stdio", "shadowcat sessions list"]

export const shadowcat = Command.make("shadowcat").pipe(
  Command.withDescription("A proxy for the Model Context Protocol that many clients share"),
  Command.withSubcommands([forward, sessions])
)
