import { parseArgs } from "node:util"
import { wholeNumber } from "../commandLine.js"

export type DemoOptions = NonNullable<ReturnType<typeof parseOptions>>

/** Fewer clients with --stdio, because each child takes half a second of a core to start. */
const defaults = { clients: 100, clientsOverStdio: 30, seconds: 8 }

export const usage = `usage: scripts/demo [options]

Starts the official demo server and shadowcat before it, lets official clients of both lines (1.x and 2.x) call
tools through it all at once, checks that each gets its own answers, kills and restarts the demo server and then the
proxy, checks that every session continues, and reports what is left after all processes have ended.

  --clients N   how many clients call at once (1 to 500, default ${defaults.clients}, with --stdio ${defaults.clientsOverStdio})
  --seconds N   how long they call (1 to 600, default ${defaults.seconds})
  --stdio       give each client a demo server of its own, a child process of the proxy (1 to 100 clients)
  --serve       only start the two servers, print how to connect the MCP Inspector, and stay up
  --help        print this`

/** Returns `undefined` for --help; throws if the command line is wrong. */
export const parseOptions = (args: ReadonlyArray<string>) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      clients: { type: "string" },
      seconds: { type: "string", default: String(defaults.seconds) },
      serve: { type: "boolean", default: false },
      stdio: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false }
    }
  })
  const { help, serve, stdio } = values
  if (help) return undefined
  const clients = values.clients ?? String(stdio ? defaults.clientsOverStdio : defaults.clients)
  return {
    serve,
    stdio,
    clients: wholeNumber("clients", clients, stdio ? 100 : 500),
    seconds: wholeNumber("seconds", values.seconds, 600)
  }
}
