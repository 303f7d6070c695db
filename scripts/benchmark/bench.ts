import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { bundleModules } from "../../test/fixtures/bundle.js"
import { spawnCommand, terminate } from "../../test/fixtures/Child.js"
import { type Cli, type CliOptions, entry, startCli } from "../../test/fixtures/Cli.js"
import { makeFolder } from "../../test/fixtures/folder.js"
import { get } from "../../test/fixtures/RawClient.js"
import { guarded, messageOf, onLoopback, ScriptError } from "../commandLine.js"
import { type Load, makeSessionClients, runWrk } from "./clients.js"
import type { Plan } from "./measure.js"
import type { Path } from "./paths.js"
import { jsonTool, sseTool } from "./programs/answers.js"

export const connections = 64

/** A running path: its URL, and the process of its proxy if it has one. */
export type Running = { readonly url: string; readonly proxy?: Cli }

/** A running path with open sessions for the load. */
type Warm = Running & { readonly sessions: ReadonlyArray<string> }

/** The operations with which the measures take their samples. */
export type Bench = Effect.Effect.Success<ReturnType<typeof makeBench>>

/** Starts the upstream. It and the warm paths are killed when the scope closes. */
export const makeBench = (plan: Plan) =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const folder = yield* makeFolder("bench")
    const programs = yield* buildPrograms(folder)
    const { url: upstream } = yield* startCli([], { ...processOptions, entry: join(folder, "upstream.mjs") })
    const peerFolderOf = yield* Effect.cachedFunction(installPeer)

    const start = (path: Path, options: CliOptions = {}) =>
      Effect.gen(function* () {
        if (path.command === undefined) return { url: upstream }
        const peer = path.peer === undefined ? "" : yield* peerFolderOf(path.peer)
        const { name, shadowcat = entry } = path
        const values: Record<string, string> = { ...programs, shadowcat, upstream, folder, peer, name }
        const [script = "", ...args] = path.command
          .split(" ")
          .map((word) => word.replaceAll(/\{(\w+)\}/g, (_, name: string) => values[name] ?? ""))
        const proxy = yield* startCli(args, {
          ...processOptions,
          ...options,
          entry: script,
          execArgv: [...(options.execArgv ?? guarded), ...(path.peer === undefined ? [] : onLoopback)]
        })
        // SIGTERM lets a proxy end its children before the next sample.
        yield* Effect.addFinalizer((exit) =>
          Exit.isInterrupted(exit) ? Effect.void : terminate(proxy, "15 seconds")
        )
        return { url: proxy.url, proxy }
      })

    /** Loads a path over as many of its sessions as there are connections. */
    const load = (warm: Warm, load: Omit<Load, "url" | "sessions">) => {
      const sessions = warm.sessions.slice(0, load.connections)
      return explained(warm, runWrk(folder, { ...load, url: warm.url, sessions }))
    }

    /** Returns the process of a path that receives all load. The first call starts the process and warms it up. */
    const warm = yield* Effect.cachedFunction((path: Path) =>
      Effect.gen(function* () {
        const running: Running = yield* Scope.extend(start(path), scope)
        const clients = yield* makeSessionClients(running.url)
        const warm: Warm = { ...running, sessions: yield* clients.open(connections) }
        const tools = [jsonTool, sseTool]
        for (const tool of tools) yield* clients.check(warm.sessions[0] ?? "", tool)
        yield* load(warm, { tools, connections, seconds: plan.warmUpSeconds })
        return warm
      }).pipe(Effect.scoped)
    )

    return {
      plan,
      warm,
      load,
      /** Starts a process for one sample of a path, and stops it after the sample. */
      use: <A>(
        path: Path,
        sample: (running: Running) => Effect.Effect<A, unknown, Scope.Scope>,
        options?: CliOptions
      ) =>
        Effect.scoped(Effect.flatMap(start(path, options), (running) => explained(running, sample(running)))),
      /** The upstream's count of DELETEs of sessions that it knew, and of the streams that are open. */
      stats: Effect.flatMap(get(new URL("/stats", upstream).href), ({ text }) => decodeStats(text))
    }
  })

const decodeStats = Schema.decodeUnknown(
  Schema.parseJson(Schema.Struct({ deleted: Schema.Number, streams: Schema.Number }))
)

/** Adds to a failure that the proxy has exited, which explains the errors of its clients. */
const explained = <A, R>({ proxy }: Running, effect: Effect.Effect<A, unknown, R>) =>
  Effect.mapError(effect, (cause) => {
    const exit = proxy?.exited()
    if (exit === undefined) return cause
    const end = `the proxy has exited with ${exit.code ?? exit.signal}: ${proxy?.stderr().slice(-5).join(" ")}`
    return new ScriptError({ message: `${messageOf(cause)}; ${end}` })
  })

/** In process groups of their own, child processes do not get the Ctrl-C of the terminal. */
const processOptions: CliOptions = { execArgv: guarded, detached: true, startTimeout: 15_000 }

const buildPrograms = (folder: string) => {
  const sources = ["upstream", "relay", "stdioServer"].map((name) => `programs/${name}.ts`)
  const stdioServer = join(folder, "stdioServer.mjs")
  const shellCommand = `'${process.execPath}' '${stdioServer}'`
  const programs = { relay: join(folder, "relay.mjs"), stdioServer, shellCommand, node: process.execPath }
  const files = sources.map((source) => fileURLToPath(new URL(source, import.meta.url)))
  return Effect.as(bundleModules(files, folder), programs)
}

const cache = fileURLToPath(new URL("../../node_modules/.cache/benchmark", import.meta.url))

/** Installs another proxy from npm, unless an earlier run has done so. Returns the folder of its package. */
const installPeer = (versioned: string): Effect.Effect<string, ScriptError> =>
  Effect.gen(function* () {
    const folder = join(cache, versioned)
    const stamp = join(folder, "installed")
    const packageFolder = join(folder, "node_modules", versioned.slice(0, versioned.lastIndexOf("@")))
    if (existsSync(stamp)) return packageFolder
    // npm might take the remains of an interrupted installation for a complete one.
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    const options =
      "--no-save --ignore-scripts --no-audit --no-fund --loglevel error --fetch-retry-mintimeout 1000"
    const npm = yield* spawnCommand(
      "npm",
      ["install", ...options.split(" "), "--prefix", folder, versioned],
      {
        detached: true,
        env: { NODE_OPTIONS: guarded.join(" ") }
      }
    )
    const exit = yield* Effect.timeoutOption(npm.exit, "3 minutes")
    if (exit._tag === "None" || exit.value.code !== 0) {
      const output = [...npm.stdout(), ...npm.stderr()].join(" ").replaceAll(/\s+/g, " ").slice(0, 300)
      return yield* new ScriptError({ message: `${versioned} could not be installed: ${output}` })
    }
    writeFileSync(stamp, "")
    return packageFolder
  }).pipe(Effect.scoped)
