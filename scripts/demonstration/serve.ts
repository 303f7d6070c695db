import * as Effect from "effect/Effect"
import type { DemoFailure } from "./failure.js"
import type { Options } from "./options.js"
import { startServers, stop } from "./servers.js"

const directions = (proxyUrl: string, upstream: string): string => `The proxy listens on ${proxyUrl}
before ${upstream}

To look at it with the MCP Inspector (which needs Node 22.19 or newer):

  npx @modelcontextprotocol/inspector --transport http --server-url ${proxyUrl}

or start it without options and enter there:

  transport  Streamable HTTP
  URL        ${proxyUrl}

Web pages may call the proxy from localhost, 127.0.0.1 and [::1], whatever their port; those of another origin get
403, unless --allow-origin names it to the proxy. The Inspector's own page, http://localhost:6274, is allowed.

Ctrl-C ends all of it.`

/** Starts the servers and stays up until it is interrupted, which ends the proxy as SIGTERM does. */
export const serve = ({ stdio }: Options): Effect.Effect<never, DemoFailure> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { endedEarly, proxy, upstream } = yield* startServers(stdio)
      const before =
        "server" in upstream
          ? `the demo server on ${upstream.server.url}`
          : "a demo server for each session, a child process of its own"
      process.stdout.write(`${directions(proxy.url, before)}\n`)
      return yield* Effect.onInterrupt(endedEarly, () => stop(proxy))
    })
  )
