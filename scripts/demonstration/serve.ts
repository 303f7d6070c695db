import * as Effect from "effect/Effect"
import type { DemoFailure } from "./failure.js"
import { startServers, stop } from "./servers.js"

const directions = (proxyUrl: string, upstreamUrl: string): string => `The proxy listens on ${proxyUrl}
before the demo server on ${upstreamUrl}

To look at it with the MCP Inspector (which needs Node 22.19 or newer):

  npx @modelcontextprotocol/inspector --transport http --server-url ${proxyUrl}

or start it without options and enter there:

  transport  Streamable HTTP
  URL        ${proxyUrl}

Web pages may call the proxy from localhost, 127.0.0.1 and [::1], whatever their port; those of another origin get
403, unless --allow-origin names it to the proxy. The Inspector's own page, http://localhost:6274, is allowed.

Ctrl-C ends both.`

/** Starts the two servers and stays up until it is interrupted, which ends the proxy as SIGTERM does. */
export const serve: Effect.Effect<never, DemoFailure> = Effect.scoped(
  Effect.gen(function* () {
    const { endedEarly, proxy, upstream } = yield* startServers
    process.stdout.write(`${directions(proxy.url, upstream.url)}\n`)
    return yield* Effect.onInterrupt(endedEarly, () => stop(proxy))
  })
)
