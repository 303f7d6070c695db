import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { makeFolder } from "./fixtures/folder.js"

const root = fileURLToPath(new URL("..", import.meta.url))

/** Runs a program to its exit and returns its stdout. */
const run = (folder: string, command: string, ...args: ReadonlyArray<string>): Effect.Effect<string> =>
  Effect.map(
    Effect.promise((signal) => execute(command, args, { cwd: folder, signal })),
    ({ stdout }) => stdout
  )

const execute = promisify(execFile)

/** Returns the example of README that composes layers. */
const readmeExample = () =>
  /```ts\n([\s\S]*?)```/.exec(readFileSync(join(root, "README.md"), "utf8"))?.[1] ?? ""

const strict = {
  compilerOptions: {
    target: "ES2022",
    lib: ["ES2023"],
    module: "NodeNext",
    strict: true,
    noEmit: true,
    skipLibCheck: false,
    types: ["node"]
  },
  files: ["readme.ts", "all.ts"]
}

/**
 * Prints the type errors of the examples and of the package's own declarations. The declarations of its dependencies are
 * read but not checked, which would take three times as long.
 */
const check = `
import { createRequire } from "node:module"
const ts = createRequire(${JSON.stringify(join(root, "package.json"))})("typescript")
const { errors, fileNames, options } = ts.getParsedCommandLineOfConfigFile("tsconfig.json", {}, ts.sys)
const program = ts.createProgram(fileNames, options)
const own = program.getSourceFiles().filter(({ fileName }) => !/node_modules\\/(?!shadowcat\\/)/.test(fileName))
const diagnostics = [
  ...errors,
  ...program.getOptionsDiagnostics(),
  ...program.getGlobalDiagnostics(),
  ...own.flatMap((file) => [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)])
]
if (own.length < 30) console.log("only", own.length, "files")
process.stdout.write(ts.formatDiagnostics(diagnostics, ts.createCompilerHost(options)))
`

const all = `
import * as Admin from "shadowcat/Admin"
import * as Prometheus from "shadowcat/Prometheus"
import * as Sqlite from "shadowcat/Sqlite"
import { EventTracker, ForwardProxy, Protocol, ProxyError, SessionStore, Telemetry, Upstream } from "shadowcat"
import { Layer } from "effect"

export const observed = Admin.layer({ port: 0 }).pipe(
  Layer.provideMerge(ForwardProxy.layerHttp({ upstream: { url: new URL("http://127.0.0.1:1/mcp") } })),
  Layer.provide(Prometheus.layer)
)
export const durable: Layer.Layer<SessionStore.SessionStore | EventTracker.EventTracker, ProxyError.StoreError> =
  Sqlite.layer({ path: "sessions.db", sync: "full", maxEvents: 10 })
export const pass = (lease: Upstream.Lease, error: ProxyError.ProxyError, outcome: Telemetry.Outcome): string =>
  [lease.name, error.message, outcome, Protocol.SESSION_ID].join()
`

it.scopedLive(
  "the packed package works in an empty folder: its modules, its types and its command",
  () =>
    Effect.gen(function* () {
      const folder = yield* makeFolder("package")
      yield* run(root, "npm", "pack", "--silent", "--pack-destination", folder)
      const tarball = readdirSync(folder)[0] ?? ""
      const files = (yield* run(folder, "tar", "-tzf", tarball)).trim().split("\n")
      expect(files).toEqual(expect.arrayContaining(["package/LICENSE", "package/dist/lib/index.d.ts"]))
      expect(files.filter((file) => /\btest\b|\.map$|\.ts$/.test(file) && !file.endsWith(".d.ts"))).toEqual(
        []
      )

      writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }))
      // The examples are compiled with this checkout's tsc, but only against the package's own dependencies.
      const types = "@types/node@20"
      yield* run(
        folder,
        "npm",
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--prefer-offline",
        `./${tarball}`,
        types
      )
      writeFileSync(join(folder, "readme.ts"), readmeExample())
      writeFileSync(join(folder, "all.ts"), all)
      writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(strict))
      expect(readmeExample().split("\n").length).toBeGreaterThan(20)
      writeFileSync(join(folder, "check.mjs"), check)
      expect(yield* run(folder, "node", "check.mjs")).toBe("")

      const names = yield* run(
        folder,
        "node",
        "-e",
        'import("shadowcat").then((all) => console.log(Object.keys(all).join()))'
      )
      expect(names.trim().split(",")).toEqual(
        expect.arrayContaining(["ForwardProxy", "Sessions", "SessionStore", "UpstreamPool"])
      )
      const stored = `
        import * as Sqlite from "shadowcat/Sqlite"
        import { SessionStore } from "shadowcat"
        import { Effect } from "effect"
        const count = Effect.flatMap(SessionStore.SessionStore, ({ list }) => Effect.map(list, (all) => all.length))
        console.log(await Effect.runPromise(Effect.provide(count, Sqlite.layer({ path: "sessions.db" }))))
      `
      expect((yield* run(folder, "node", "--input-type=module", "-e", stored)).trim()).toBe("0")
      expect(yield* run(folder, "node_modules/.bin/shadowcat", "--version")).toMatch(/^\d+\.\d+\.\d+\s*$/)
    }),
  400_000
)
