/** What the demo starts: the official demo server and the proxy before it, or a proxy that starts demo servers. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import { type Ending, type Server, startServer } from "./children.js"
import type { DemoFailure } from "./failure.js"
import { makeMark, type Mark } from "./marked.js"

export interface Servers {
  readonly proxy: Server
  readonly upstream: HttpUpstream | StdioUpstream
  /** Fails as soon as a server ends by itself. */
  readonly endedEarly: Effect.Effect<never, DemoFailure>
}

export interface HttpUpstream {
  readonly server: Server
  /** The ids of all sessions that it has issued so far, read off its log. */
  readonly issued: ReadonlySet<string>
}

export interface StdioUpstream {
  /** What the child processes carry. */
  readonly mark: Mark
}

const everything = createRequire(import.meta.url).resolve(
  "@modelcontextprotocol/server-everything/dist/index.js"
)
const loopback = fileURLToPath(new URL("loopback.js", import.meta.url))
const shadowcat = fileURLToPath(new URL("../../dist/shadowcat.js", import.meta.url))

export const startServers = (stdio: boolean): Effect.Effect<Servers, DemoFailure, Scope.Scope> =>
  stdio ? startOverStdio : startOverHttp

const startProxy = (upstream: ReadonlyArray<string>): Effect.Effect<Server, DemoFailure, Scope.Scope> =>
  startServer({
    name: "the proxy",
    args: [shadowcat, ..."forward http --multi-session --port 0 --log-level warning".split(" "), ...upstream]
  })

const startOverStdio: Effect.Effect<Servers, DemoFailure, Scope.Scope> = Effect.gen(function* () {
  const mark = yield* makeMark
  const proxy = yield* startProxy([
    "--env",
    `${mark.name}=${mark.value}`,
    "--",
    process.execPath,
    everything,
    "stdio"
  ])
  return { proxy, upstream: { mark }, endedEarly: proxy.endedEarly }
})

const startOverHttp: Effect.Effect<Servers, DemoFailure, Scope.Scope> = Effect.gen(function* () {
  const issued = new Set<string>()
  const server = yield* startServer({
    name: "the demo server",
    args: ["--import", loopback, everything, "streamableHttp"],
    env: { PORT: "0" },
    onLine: (line) => {
      const id = /^Session initialized with ID: (\S+)/.exec(line)?.[1]
      if (id !== undefined) issued.add(id)
    }
  })
  const proxy = yield* startProxy(["--url", server.url])
  return {
    proxy,
    upstream: { server, issued },
    endedEarly: Effect.raceFirst(server.endedEarly, proxy.endedEarly)
  }
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
