/** What the demo starts: the official demo server and the proxy before it, or a proxy that starts demo servers. */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { mkdtemp, rm } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { type Ending, type Server, startServer } from "./children.js"
import type { DemoFailure } from "./failure.js"
import { makeMark, type Mark } from "./marked.js"

export interface Servers {
  /** The proxy that runs at present. */
  proxy: Server
  readonly upstream: HttpUpstream | StdioUpstream
  /** Fails as soon as a server ends by itself. */
  readonly endedEarly: Effect.Effect<never, DemoFailure>
}

export interface HttpUpstream {
  /** The server that runs at present. */
  server: Server
  /** The ids of all sessions that it has issued so far, read off its log. */
  readonly issued: Set<string>
  /** Starts another in the place of one that was killed, on the same port. */
  readonly startServer: Effect.Effect<Server, DemoFailure>
  readonly startProxy: Effect.Effect<Server, DemoFailure>
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

const startProxy = (
  args: ReadonlyArray<string>,
  port = "0"
): Effect.Effect<Server, DemoFailure, Scope.Scope> =>
  startServer({
    name: "the proxy",
    args: [shadowcat, ..."forward http --multi-session --log-level warning --port".split(" "), port, ...args]
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
  const scope = yield* Effect.scope
  const folder = yield* makeFolder
  const issued = new Set<string>()
  const startEverything = (port: string) =>
    startServer({
      name: "the demo server",
      args: ["--import", loopback, everything, "streamableHttp"],
      env: { PORT: port },
      onLine: (line) => {
        const id = /^Session initialized with ID: (\S+)/.exec(line)?.[1]
        if (id !== undefined) issued.add(id)
      }
    })
  const server = yield* startEverything("0")
  const args = ["--store", `sqlite:${join(folder, "sessions.db")}`, "--url", server.url]
  const proxy = yield* startProxy(args)
  return {
    proxy,
    upstream: {
      server,
      issued,
      startServer: Scope.extend(startEverything(new URL(server.url).port), scope),
      startProxy: Scope.extend(startProxy(args, new URL(proxy.url).port), scope)
    },
    endedEarly: Effect.raceFirst(server.endedEarly, proxy.endedEarly)
  }
})

/** A folder for what outlives the proxy, and not the demo. */
const makeFolder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "shadowcat-demo-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

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
