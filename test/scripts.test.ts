import { expect, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import { join, resolve } from "node:path"
import { makeFolder } from "./fixtures/folder.js"
import { runCommand, type RunningCommand, type RunOptions } from "./fixtures/RunningCommand.js"

// The scripts run in a fresh clone. Only npm is replaced: a stub links the packages of this checkout.

const here = resolve(import.meta.dirname, "..")

const npm = `#!/bin/sh
echo "$@" >>"$NPM_STUB/calls"
[ ! -e "$NPM_STUB/fails" ] || { echo "npm failed" >&2; exit 1; }
if [ -e "$NPM_STUB/gate" ]; then : >"$NPM_STUB/waiting"; read -r _ <"$NPM_STUB/gate"; fi
mkdir -p node_modules
ln -sfn "${here}"/node_modules/* "${here}"/node_modules/.bin node_modules/
`

interface Checkout {
  readonly root: string
  readonly path: (name: string) => string
  /** The arguments of the calls of npm, a line each. */
  readonly npmCalls: () => ReadonlyArray<string>
  readonly run: (
    script: string,
    args: ReadonlyArray<string>,
    options?: RunOptions
  ) => Effect.Effect<RunningCommand, never, Scope.Scope>
}

/** A program that is quick to build. Like the real one, it is split into chunks. */
const stub =
  'const { version } = await import("./internal/version.js")\nprocess.stdout.write(`${version}\\n\\n`)\n'

const clone = (program: "whole" | "a stub"): Effect.Effect<Checkout, never, Scope.Scope> =>
  Effect.map(makeFolder("scripts"), (folder) => {
    // With a space, which is common in the paths of home folders.
    const root = join(folder, "a clone")
    const npmStub = join(folder, "npm-stub")
    fs.mkdirSync(root)
    fs.mkdirSync(npmStub)
    for (const name of ["src", "scripts", "package.json", "package-lock.json", "tsconfig.json", ".npmrc"]) {
      fs.cpSync(join(here, name), join(root, name), { recursive: true })
    }
    if (program === "a stub") fs.writeFileSync(join(root, "src/main.ts"), stub)
    fs.writeFileSync(join(npmStub, "npm"), npm, { mode: 0o755 })
    const env = { ...process.env, PATH: `${npmStub}:${process.env["PATH"] ?? ""}`, NPM_STUB: npmStub }
    return {
      root,
      path: (name) => join(name.startsWith("npm-stub/") ? folder : root, name),
      npmCalls: () => {
        const calls = join(npmStub, "calls")
        return fs.existsSync(calls) ? fs.readFileSync(calls, "utf8").trim().split("\n") : []
      },
      run: (script, args, options = {}) => runCommand(script, args, { cwd: root, env, ...options })
    }
  })

const { version } = (() => {
  const manifest: unknown = JSON.parse(fs.readFileSync(join(here, "package.json"), "utf8"))
  return typeof manifest === "object" && manifest !== null && "version" in manifest
    ? { version: String(manifest.version) }
    : { version: "" }
})()

/** Runs `scripts/shadowcat --version` to its exit. */
const showVersion = ({ path, run }: Checkout) =>
  Effect.flatMap(run(path("scripts/shadowcat"), ["--version"]), ({ exit }) => exit)

/** Makes a file newer than the files built from it, by more than the resolution of file times. */
const touch = (file: string) => {
  const later = new Date(Date.now() + 2000)
  fs.utimesSync(file, later, later)
}

describe.concurrent("scripts/shadowcat", { timeout: 90_000 }, () => {
  it.scopedLive("sets up a fresh clone once, and prints nothing on the second start", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("whole")
      const first = yield* showVersion(checkout)
      expect(first).toMatchObject({ code: 0, stdout: `${version}\n\n` })
      expect(first.stderr).toMatch(/^shadowcat: .+\n$/)
      expect(checkout.npmCalls()).toHaveLength(1)
      expect(checkout.npmCalls()[0]).toMatch(/^ci /)
      const bundle = fs.statSync(checkout.path("dist/shadowcat.js")).mtimeMs
      const second = yield* showVersion(checkout)
      expect(second).toEqual({ code: 0, stdout: first.stdout, stderr: "" })
      expect(checkout.npmCalls()).toHaveLength(1)
      expect(fs.statSync(checkout.path("dist/shadowcat.js")).mtimeMs).toBe(bundle)
      expect(fs.readdirSync(checkout.path("dist"))).toEqual(["chunks", "shadowcat.js"])
      expect(fs.existsSync(checkout.path(".setup.lock"))).toBe(false)

      // It runs from any working directory and through symbolic links.
      const bin = checkout.path("npm-stub/bin")
      fs.mkdirSync(bin)
      fs.symlinkSync(checkout.path("scripts/shadowcat"), join(bin, "absolute"))
      fs.symlinkSync("absolute", join(bin, "relative"))
      for (const name of ["absolute", "relative"]) {
        const run = yield* checkout.run(join(bin, name), ["--version"], { cwd: "/" })
        expect(yield* run.exit).toEqual(second)
      }
    })
  )

  it.scopedLive("sets up once when several start at the same time, and runs all of them", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("a stub")
      const runs = yield* Effect.replicateEffect(showVersion(checkout), 6, { concurrency: "unbounded" })
      for (const run of runs) expect(run).toMatchObject({ code: 0, stdout: `${version}\n\n` })
      expect(checkout.npmCalls()).toHaveLength(1)
      expect(fs.existsSync(checkout.path(".setup.lock"))).toBe(false)
      expect((yield* showVersion(checkout)).stderr).toBe("")
    })
  )

  it.scopedLive("builds again when a source changed, and installs again when the lock file changed", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("a stub")
      yield* showVersion(checkout)
      for (const [file, installs] of [
        ["src/internal/version.ts", 1],
        ["package-lock.json", 2]
      ] as const) {
        touch(checkout.path(file))
        const run = yield* showVersion(checkout)
        expect(run).toMatchObject({ code: 0, stdout: `${version}\n\n` })
        expect(run.stderr).toContain("shadowcat: ")
        expect(checkout.npmCalls()).toHaveLength(installs)
        // The changed file is in the future, so the built files are made newer than it.
        for (const made of ["node_modules/.setup", "dist/shadowcat.js"]) touch(checkout.path(made))
        expect((yield* showVersion(checkout)).stderr).toBe("")
      }
    })
  )

  it.scopedLive("exits 1 with an error when the set-up fails, and does not run an old build", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("a stub")
      fs.writeFileSync(checkout.path("npm-stub/fails"), "")
      const failed = yield* showVersion(checkout)
      expect(failed).toMatchObject({ code: 1, stdout: "" })
      expect(failed.stderr).toContain("npm failed")
      expect(failed.stderr).toMatch(/shadowcat: the packages could not be installed/)
      fs.rmSync(checkout.path("npm-stub/fails"))
      expect((yield* showVersion(checkout)).code).toBe(0)

      const source = fs.readFileSync(checkout.path("src/main.ts"), "utf8")
      fs.writeFileSync(checkout.path("src/main.ts"), "this is no TypeScript")
      touch(checkout.path("src/main.ts"))
      const broken = yield* showVersion(checkout)
      expect(broken).toMatchObject({ code: 1, stdout: "" })
      expect(broken.stderr).toMatch(/shadowcat: src could not be built/)
      fs.writeFileSync(checkout.path("src/main.ts"), source)
      expect((yield* showVersion(checkout)).code).toBe(0)
      expect(fs.existsSync(checkout.path(".setup.lock"))).toBe(false)
    })
  )

  /** Starts a set-up, signals it while npm runs, and keeps that npm waiting until `openGate`. */
  const interruptSetUp = (checkout: Checkout, signal: NodeJS.Signals) =>
    Effect.gen(function* () {
      const gate = checkout.path("npm-stub/gate")
      yield* Effect.flatMap(checkout.run("mkfifo", [gate]), ({ exit }) => exit)
      const run = yield* checkout.run(checkout.path("scripts/shadowcat"), ["--version"])
      const waiting = Effect.sync(() => fs.existsSync(checkout.path("npm-stub/waiting")))
      yield* Effect.repeat(Effect.delay(waiting, 10), { until: (isWaiting) => isWaiting })
      run.child.kill(signal)
      fs.rmSync(checkout.path("npm-stub/waiting"))
      // Opened for reading too, so that opening does not wait for a reader.
      const writing = fs.openSync(gate, "r+")
      yield* Effect.addFinalizer(() => Effect.sync(() => fs.closeSync(writing)))
      fs.rmSync(gate)
      return { run, openGate: Effect.sync(() => fs.writeSync(writing, "go\n")) }
    })

  it.scopedLive("stops npm and exits on a signal during the set-up, and removes its lock", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("a stub")
      for (const [signal, code] of [
        ["SIGINT", 130],
        ["SIGTERM", 143]
      ] as const) {
        const { run } = yield* interruptSetUp(checkout, signal)
        expect((yield* run.exit).code).toBe(code)
        expect(fs.existsSync(checkout.path(".setup.lock"))).toBe(false)
      }
      expect(yield* showVersion(checkout)).toMatchObject({ code: 0, stdout: `${version}\n\n` })
      expect(checkout.npmCalls()).toHaveLength(3)
    })
  )

  it.scopedLive("takes the lock of a killed set-up when the npm that it left behind has exited", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("a stub")
      const { openGate } = yield* interruptSetUp(checkout, "SIGKILL")
      const next = yield* checkout.run(checkout.path("scripts/shadowcat"), ["--version"])
      yield* next.until(() => next.stderr().includes("waiting for another set-up"))
      expect(checkout.npmCalls()).toHaveLength(1)
      yield* openGate
      expect(yield* next.exit).toMatchObject({ code: 0, stdout: `${version}\n\n` })
      expect(checkout.npmCalls()).toHaveLength(2)
      expect(fs.existsSync(checkout.path(".setup.lock"))).toBe(false)
    })
  )

  it.scopedLive("passes arguments with spaces to the program, and exits 0 on SIGTERM", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("whole")
      const args = [
        "forward",
        "http",
        "--port",
        "0",
        "--url",
        "http://127.0.0.1:1/mcp",
        "--header",
        "X: a  b"
      ]
      const run = yield* checkout.run(checkout.path("scripts/shadowcat"), args)
      yield* run.until(() => run.stderr().includes("listening on"))
      run.child.kill("SIGTERM")
      expect(yield* run.exit).toMatchObject({ code: 0, stdout: "" })
      const wrong = yield* checkout.run(checkout.path("scripts/shadowcat"), [...args, "a b"])
      const { code, stderr } = yield* wrong.exit
      expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringContaining("'a b'") })
    })
  )
})
