/** The processes of the demo: the official demo server and the proxy before it, or a proxy that starts demo servers. */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { join } from "node:path"
import type { Exit } from "../../test/fixtures/Child.js"
import { type Cli, type CliEnded, type CliOptions, startCli } from "../../test/fixtures/Cli.js"
import { everythingScript } from "../../test/fixtures/Everything.js"
import { makeFolder } from "../../test/fixtures/folder.js"
import { Census } from "../../test/fixtures/processes.js"
import { type Proxy, startProxy as startProxyProcess, type Upstream } from "../../test/fixtures/Proxy.js"
import { guarded, onLoopback, ScriptError } from "../commandLine.js"

/** A server that must not exit before the demo stops it. */
export type Server<Process extends Cli> = Process & {
  /** Fails if the server exits by itself. Never succeeds. */
  readonly endedEarly: Effect.Effect<never, ScriptError>
  /** Sends SIGKILL and waits for the exit, which is then not a failure. */
  readonly kill: Effect.Effect<void>
}

export interface Servers {
  /** The current proxy. */
  proxy: Server<Proxy>
  readonly upstream: HttpUpstream | StdioUpstream
  /** Fails if one of the servers exits by itself. */
  readonly endedEarly: Effect.Effect<never, ScriptError>
}

export interface HttpUpstream {
  /** The current demo server. */
  server: Server<Cli>
  /** Kills the demo server and starts another on the same port. */
  readonly restartServer: Effect.Effect<void, ScriptError>
  /** Kills the proxy and starts another on the same port, with the same store. */
  readonly restartProxy: Effect.Effect<void, ScriptError>
}

export interface StdioUpstream {
  /** Counts the child processes of the proxy. */
  readonly census: Census
}

/** How a process has ended: its exit code, or the signal that killed it. */
export const endingOf = ({ code, signal }: Exit): number | NodeJS.Signals => code ?? signal ?? 1

const supervise = <Process extends Cli>(
  name: string,
  start: Effect.Effect<Process, CliEnded, Scope.Scope>
): Effect.Effect<Server<Process>, ScriptError, Scope.Scope> =>
  Effect.gen(function* () {
    const failed = (exit: Exit, output: ReadonlyArray<string>) => {
      const last = output.findLast((line) => line.trim() !== "") ?? ""
      const message = `${name} ended by itself (${endingOf(exit)}); its last line of output: ${last}`
      return Effect.fail(new ScriptError({ message }))
    }
    const server = yield* Effect.catchAll(start, ({ exit, stderr }) => failed(exit, stderr.split("\n")))
    let isKilled = false
    return {
      ...server,
      endedEarly: Effect.flatMap(server.exit, (exit) =>
        isKilled ? Effect.never : failed(exit, [...server.stdout(), ...server.stderr()])
      ),
      kill: Effect.suspend(() => {
        isKilled = true
        return Effect.zipRight(server.signal("SIGKILL"), Effect.asVoid(server.exit))
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

const startProxy = (upstream: Upstream, args: ReadonlyArray<string>, port = 0) =>
  supervise(
    "the proxy",
    startProxyProcess(upstream, ["--multi-session", "--log-level", "warning", ...args], {
      ...processOptions,
      port
    })
  )

const startDemoServer = (port = 0) =>
  supervise(
    "the demo server",
    startCli(["streamableHttp"], {
      ...processOptions,
      entry: everythingScript,
      execArgv: [...guarded, ...onLoopback],
      env: { PORT: String(port) }
    })
  )

const startOverStdio: Effect.Effect<Servers, ScriptError, Scope.Scope> = Effect.gen(function* () {
  const census = new Census()
  const env = Object.entries(census.env).flatMap(([name, value]) => ["--env", `${name}=${value}`])
  const proxy = yield* startProxy({ command: [process.execPath, everythingScript, "stdio"] }, env)
  return { proxy, upstream: { census }, endedEarly: proxy.endedEarly }
})

const startOverHttp: Effect.Effect<Servers, ScriptError, Scope.Scope> = Effect.gen(function* () {
  const scope = yield* Effect.scope
  const folder = yield* makeFolder("demo")
  const args = ["--store", `sqlite:${join(folder, "sessions.db")}`]
  const server = yield* startDemoServer()
  const proxy = yield* startProxy(server, args)
  const upstream: HttpUpstream = {
    server,
    restartServer: Effect.gen(function* () {
      yield* upstream.server.kill
      upstream.server = yield* Scope.extend(startDemoServer(server.port), scope)
    }),
    restartProxy: Effect.gen(function* () {
      yield* servers.proxy.kill
      servers.proxy = yield* Scope.extend(startProxy(server, args, proxy.port), scope)
    })
  }
  const endedEarly = Effect.raceFirst(server.endedEarly, proxy.endedEarly)
  const servers: Servers = { proxy, upstream, endedEarly }
  return servers
})

/** Starts the servers and waits until they listen. They are killed when the scope closes. */
export const startServers = (stdio: boolean): Effect.Effect<Servers, ScriptError, Scope.Scope> =>
  stdio ? startOverStdio : startOverHttp
