import { parseArgs } from "node:util"

export interface Options {
  readonly serve: boolean
  /** The demo server is a command, and each client has a child process of its own. */
  readonly stdio: boolean
  readonly clients: number
  /** How long the clients go on calling. */
  readonly seconds: number
}

/** A child of Node's takes half a second of a core to start. */
const defaults = { clients: 100, clientsOverStdio: 30, seconds: 8 }

export const usage = `usage: scripts/demo [options]

Starts the official demo server and shadowcat before it, lets official clients of both lines (1.x and 2.x) call
tools through it all at once, checks that each gets its own answers, kills the demo server and then the proxy, shows
that every session goes on when they are back, and says what is left when all have ended.

  --clients N   how many clients there are at once (1 to 500, default ${defaults.clients}, with --stdio ${defaults.clientsOverStdio})
  --seconds N   how long they go on calling (1 to 600, default ${defaults.seconds})
  --stdio       give each client a demo server of its own, a child process of the proxy (1 to 100 clients)
  --serve       only start the two servers, tell how to point the MCP Inspector at them, and stay up
  --help        print this`

const wholeNumber = (name: string, text: string | undefined, most: number): number | undefined => {
  if (text === undefined) return undefined
  if (!/^\d+$/.test(text) || Number(text) < 1 || Number(text) > most) {
    throw new Error(`--${name} wants a whole number from 1 to ${most}`)
  }
  return Number(text)
}

/** Undefined when only the usage was asked for; throws at what it does not know. */
export const parseOptions = (args: ReadonlyArray<string>): Options | undefined => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      clients: { type: "string" },
      seconds: { type: "string" },
      serve: { type: "boolean", default: false },
      stdio: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false }
    }
  })
  const { help, stdio } = values
  return help
    ? undefined
    : {
        serve: values.serve,
        stdio,
        clients:
          wholeNumber("clients", values.clients, stdio ? 100 : 500) ??
          (stdio ? defaults.clientsOverStdio : defaults.clients),
        seconds: wholeNumber("seconds", values.seconds, 600) ?? defaults.seconds
      }
}
