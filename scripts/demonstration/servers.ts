/** The processes of the demo: the official demo server and the proxy before it, or a proxy that starts demo servers. */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { join } from "node:path"
import { type Exit, terminate } from "../../test/fixtures/Child.js"
import { type Cli, type CliEnded, type CliOptions, startCli } from "../../test/fixtures/Cli.js"
import { everythingScript } from "../../test/fixtures/Everything.js"
import { makeFolder } from "../../test/fixtures/folder.js"
import { ProcessTracker } from "../../test/fixtures/processes.js"
import { type Proxy, startProxy as startProxyProcess, type Upstream } from "../../test/fixtures/Proxy.js"
import { guarded, onLoopback, ScriptError } from "../commandLine.js"

/** Starts a server that must not exit before the demo stops it. */
const supervise = <Process extends Cli>(name: string, start: Effect.Effect<Process, CliEnded, Scope.Scope>) =>
  Effect.gen(function* () {
    const failed = (exit: Exit, output: ReadonlyArray<string>) => {
      const last = output.findLast((line) => line.trim() !== "") ?? ""
      const message = `${name} ended by itself (${exit.code ?? exit.signal}); its last line of output: ${last}`
      return Effect.fail(new ScriptError({ message }))
    }
    const server = yield* Effect.catchAll(start, ({ exit, stderr }) => failed(exit, stderr.split("\n")))
    let isKilled = false
    return {
      ...server,
      /** Fails if the server exits by itself. Never succeeds. */
      endedEarly: Effect.flatMap(server.exit, (exit) =>
        isKilled ? Effect.never : failed(exit, [...server.stdout(), ...server.stderr()])
      ),
      kill: Effect.suspend(() => {
        isKilled = true
        return Effect.zipRight(server.signal("SIGKILL"), server.exit)
      })
    }
  })

const processOptions: CliOptions = {
  execArgv: guarded,
  // The environment may hold options of the proxy, and secrets.
  inheritsEnv: false,
  // In a process group of its own, a server does not get the Ctrl-C of the terminal: the demo decides when it ends.
  detached: true,
  startTimeout: 15_000
}

const startProxy = (upstream: Upstream, args: ReadonlyArray<string>, port = 0) => {
  const allArgs = ["--multi-session", "--log-level", "warning", ...args]
  return supervise("the proxy", startProxyProcess(upstream, allArgs, { ...processOptions, port }))
}

const startDemoServer = (port = 0) => {
  const execArgv = [...guarded, ...onLoopback]
  const options = { ...processOptions, execArgv, entry: everythingScript, env: { PORT: String(port) } }
  return supervise("the demo server", startCli(["streamableHttp"], options))
}

type Server<Process extends Cli> = Effect.Effect.Success<ReturnType<typeof supervise<Process>>>

export interface Servers {
  /** The current proxy. */
  proxy: Server<Proxy>
  readonly endedEarly: Effect.Effect<never, ScriptError>
  /** Counts the demo servers that are child processes of the proxy. */
  readonly tracker?: ProcessTracker
  readonly http?: HttpServers
}

export interface HttpServers {
  /** The current demo server. */
  server: Server<Cli>
  /** Kills the demo server and starts another on the same port. */
  readonly restartServer: Effect.Effect<void, ScriptError>
  /** Kills the proxy and starts another on the same port, with the same store. */
  readonly restartProxy: Effect.Effect<void, ScriptError>
}

const startOverStdio: Effect.Effect<Servers, ScriptError, Scope.Scope> = Effect.gen(function* () {
  const tracker = new ProcessTracker()
  const env = Object.entries(tracker.env).flatMap(([name, value]) => ["--env", `${name}=${value}`])
  const proxy = yield* startProxy({ command: [process.execPath, everythingScript, "stdio"] }, env)
  return { proxy, endedEarly: proxy.endedEarly, tracker }
})

const startOverHttp: Effect.Effect<Servers, ScriptError, Scope.Scope> = Effect.gen(function* () {
  const scope = yield* Effect.scope
  const args = ["--store", `sqlite:${join(yield* makeFolder("demo"), "sessions.db")}`]
  const server = yield* startDemoServer()
  const proxy = yield* startProxy(server, args)
  const http: HttpServers = {
    server,
    restartServer: Effect.gen(function* () {
      yield* http.server.kill
      http.server = yield* Scope.extend(startDemoServer(server.port), scope)
    }),
    restartProxy: Effect.gen(function* () {
      yield* servers.proxy.kill
      servers.proxy = yield* Scope.extend(startProxy(server, args, proxy.port), scope)
    })
  }
  const servers: Servers = { proxy, endedEarly: Effect.raceFirst(server.endedEarly, proxy.endedEarly), http }
  return servers
})

/** Starts the servers and waits until they listen. They are killed when the scope closes. */
export const startServers = (stdio: boolean) => (stdio ? startOverStdio : startOverHttp)

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

/** Starts the servers and waits for an interruption. Then it stops the proxy with SIGTERM. */
export const serve = (stdio: boolean): Effect.Effect<never, ScriptError> =>
  Effect.gen(function* () {
    const { endedEarly, http, proxy } = yield* startServers(stdio)
    const commands = "a demo server for each session, a child process of its own"
    const upstream = http === undefined ? commands : `the demo server on ${http.server.url}`
    process.stdout.write(`${directions(proxy.url, upstream)}\n`)
    return yield* Effect.onInterrupt(endedEarly, () => terminate(proxy, "4 seconds"))
  }).pipe(Effect.scoped)
