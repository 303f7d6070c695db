/** The two servers of the demo: the official demo server, and the proxy before it. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import { type Ending, type Server, startServer } from "./children.js"
import type { DemoFailure } from "./failure.js"

export interface Servers {
  readonly upstream: Server
  readonly proxy: Server
  /** The ids of all sessions that the upstream has issued so far, read off its log. */
  readonly issued: ReadonlySet<string>
  /** Fails as soon as one of the two ends by itself. */
  readonly endedEarly: Effect.Effect<never, DemoFailure>
}

const everything = createRequire(import.meta.url).resolve(
  "@modelcontextprotocol/server-everything/dist/index.js"
)
const loopback = fileURLToPath(new URL("loopback.js", import.meta.url))
const shadowcat = fileURLToPath(new URL("../../dist/shadowcat.js", import.meta.url))

export const startServers: Effect.Effect<Servers, DemoFailure, Scope.Scope> = Effect.gen(function* () {
  const issued = new Set<string>()
  const upstream = yield* startServer({
    name: "the demo server",
    args: ["--import", loopback, everything, "streamableHttp"],
    env: { PORT: "0" },
    onLine: (line) => {
      const id = /^Session initialized with ID: (\S+)/.exec(line)?.[1]
      if (id !== undefined) issued.add(id)
    }
  })
  const proxy = yield* startServer({
    name: "the proxy",
    args: [
      shadowcat,
      ..."forward http --multi-session --port 0 --log-level warning --url".split(" "),
      upstream.url
    ]
  })
  return { upstream, proxy, issued, endedEarly: Effect.raceFirst(upstream.endedEarly, proxy.endedEarly) }
})

export interface Stopped {
  /** Undefined when it did not end in time. */
  readonly ending: Ending | undefined
  readonly ms: number
}

/** Asks a server to end, and waits for it, but not for ever. */
export const stop = (server: Server): Effect.Effect<Stopped> =>
  Effect.gen(function* () {
    const asked = performance.now()
    yield* server.terminate
    // It is used while the demo is being interrupted too, and may give up waiting even then.
    const ending = yield* Effect.timeoutTo(Effect.interruptible(server.ended), {
      duration: "4 seconds",
      onSuccess: (ending) => ending,
      onTimeout: () => undefined
    })
    return { ending, ms: performance.now() - asked }
  })
