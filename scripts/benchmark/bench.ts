import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { build } from "esbuild"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { terminate } from "../../test/fixtures/Child.js"
import { type Cli, type CliOptions, entry as shadowcat, startCli } from "../../test/fixtures/Cli.js"
import { makeFolder } from "../../test/fixtures/folder.js"
import { get } from "../../test/fixtures/RawClient.js"
import { guarded, messageOf, onLoopback, ScriptError } from "../commandLine.js"
import type { Plan } from "./measure.js"
import type { Path } from "./paths.js"
import { installPeer } from "./peers.js"
import { jsonTool, sseTool } from "./programs/answers.js"
import { makeSessionClients } from "./sessions.js"
import { type Load, type LoadResult, runWrk } from "./wrk.js"

export const connections = 64

/** A path that is up: its URL, and the process of its proxy if it has one. */
export interface Running {
  readonly url: string
  readonly proxy?: Cli
}

/** A path with the sessions that load is put on. */
export interface Warm extends Running {
  readonly sessions: ReadonlyArray<string>
}

const Stats = Schema.parseJson(Schema.Struct({ deleted: Schema.Number, streams: Schema.Number }))

/** What the measures take their samples with. */
export interface Bench {
  readonly plan: Plan
  /** Starts a process for one sample of a path, and stops it after the sample. */
  readonly use: <A>(
    path: Path,
    sample: (running: Running) => Effect.Effect<A, unknown, Scope.Scope>,
    options?: CliOptions
  ) => Effect.Effect<A, unknown>
  /** The one process of a path that all load is put on. The first call starts it and warms it up. */
  readonly warm: (path: Path) => Effect.Effect<Warm, unknown>
  readonly load: (warm: Warm, load: Omit<Load, "url" | "sessions">) => Effect.Effect<LoadResult, unknown>
  /** The upstream's count of DELETEs of sessions that it knew, and of the streams that are open. */
  readonly stats: Effect.Effect<typeof Stats.Type, unknown>
}

/** Starts the upstream. It and the warm paths are killed when the scope closes. */
export const makeBench = (plan: Plan): Effect.Effect<Bench, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const folder = yield* makeFolder("bench")
    const programs = yield* buildPrograms(folder)
    const upstream = yield* startCli([], { ...processOptions, entry: programs.upstream })
    const peerFolderOf = yield* Effect.cachedFunction(installPeer)

    const start = (path: Path, options: CliOptions = {}) =>
      Effect.gen(function* () {
        if (path.proxy === undefined) return { url: upstream.url }
        const peerFolder = path.peer === undefined ? "" : yield* peerFolderOf(path.peer)
        const [entry = "", ...args] = path.proxy({
          ...programs,
          shadowcat,
          folder,
          upstreamUrl: upstream.url,
          peerFolder
        })
        const { execArgv = guarded } = options
        const proxy = yield* startCli(args, {
          ...processOptions,
          ...options,
          entry,
          execArgv: path.peer === undefined ? execArgv : [...execArgv, ...onLoopback]
        })
        // SIGTERM lets a proxy end its children before the next sample.
        yield* Effect.addFinalizer((exit) =>
          Exit.isInterrupted(exit) ? Effect.void : terminate(proxy, "15 seconds")
        )
        return { url: proxy.url, proxy }
      })

    const use: Bench["use"] = (path, sample, options) =>
      Effect.scoped(Effect.flatMap(start(path, options), (running) => explained(running, sample(running))))

    const load: Bench["load"] = (warm, load) => {
      const sessions = warm.sessions.slice(0, load.connections)
      return explained(warm, runWrk(folder, { ...load, url: warm.url, sessions }))
    }

    const warm = yield* Effect.cachedFunction((path: Path) =>
      Effect.gen(function* () {
        const running = yield* Scope.extend(start(path), scope)
        const clients = yield* makeSessionClients(running.url)
        const sessions = yield* clients.open(connections)
        const tools = [jsonTool, sseTool]
        for (const tool of tools) yield* clients.check(sessions[0] ?? "", tool)
        yield* load({ ...running, sessions }, { tools, connections, seconds: plan.warmUpSeconds })
        return { ...running, sessions }
      }).pipe(Effect.scoped)
    )

    const stats = Effect.flatMap(get(new URL("/stats", upstream.url).href), ({ text }) =>
      Schema.decodeUnknown(Stats)(text)
    )
    return { plan, use, warm, load, stats }
  })

/** Adds to a failure that the proxy has exited, which explains the errors of its clients. */
const explained = <A, R>({ proxy }: Running, effect: Effect.Effect<A, unknown, R>) =>
  Effect.mapError(effect, (cause) => {
    const exit = proxy?.exited()
    if (proxy === undefined || exit === undefined) return cause
    const output = proxy.stderr().slice(-5).join(" ")
    const message = `${messageOf(cause)}; the proxy has exited with ${exit.code ?? exit.signal}: ${output}`
    return new ScriptError({ message })
  })

/** In process groups of their own, child processes do not get the Ctrl-C of the terminal. */
const processOptions: CliOptions = { execArgv: guarded, detached: true, startTimeout: 15_000 }

/**
 * Bundles the programs of the benchmark as shadowcat itself is bundled. With tsx, they would start slower and use more
 * memory than the programs that they are compared with.
 */
const buildPrograms = (folder: string) =>
  Effect.promise(async () => {
    const names = ["upstream", "relay", "stdioServer"]
    await build({
      entryPoints: names.map((name) => fileURLToPath(new URL(`programs/${name}.ts`, import.meta.url))),
      outdir: folder,
      outExtension: { ".js": ".mjs" },
      bundle: true,
      minify: true,
      format: "esm",
      platform: "node",
      target: "node20",
      logLevel: "warning",
      // undici is CommonJS and calls `require`, which an ES module lacks.
      banner: {
        js: 'import{createRequire as benchRequire}from"node:module";const require=benchRequire(import.meta.url);'
      }
    })
    const [upstream = "", relay = "", stdioServer = ""] = names.map((name) => join(folder, `${name}.mjs`))
    return { upstream, relay, stdioServer }
  })
