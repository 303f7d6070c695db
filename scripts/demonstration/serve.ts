import * as Effect from "effect/Effect"
import { terminate } from "../../test/fixtures/Child.js"
import type { ScriptError } from "../commandLine.js"
import type { DemoOptions } from "./options.js"
import { startServers } from "./servers.js"

const directions = (proxyUrl: string, upstream: string): string => `The proxy listens on ${proxyUrl}
before ${upstream}

To look at it with the MCP Inspector (which needs Node 22.19 or newer):

  npx @modelcontextprotocol/inspector --transport http --server-url ${proxyUrl}

or start it without options and enter there:

  transport  Streamable HTTP
  URL        ${proxyUrl}

Web pages may call the proxy from localhost, 127.0.0.1 and [::1], on any port. Pages of another origin get 403,
unless the proxy's --allow-origin names it. The Inspector's own page, http://localhost:6274, is allowed.

Ctrl-C ends all of it.`

/** Starts the servers and stays up until it is interrupted. Then it stops the proxy with SIGTERM. */
export const serve = ({ stdio }: DemoOptions): Effect.Effect<never, ScriptError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { endedEarly, proxy, upstream } = yield* startServers(stdio)
      const before =
        "server" in upstream
          ? `the demo server on ${upstream.server.url}`
          : "a demo server for each session, a child process of its own"
      process.stdout.write(`${directions(proxy.url, before)}\n`)
      return yield* Effect.onInterrupt(endedEarly, () => terminate(proxy, "4 seconds"))
    })
  )
