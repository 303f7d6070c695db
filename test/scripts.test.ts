import { expect, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import * as fs from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { Changes } from "./fixtures/Changes.js"

// What a stranger does with a fresh clone, but for npm: a stand-in puts this checkout's own packages in place.

const here = resolve(import.meta.dirname, "..")

const npm = `#!/bin/sh
echo "$@" >>"$STAND_IN/calls"
[ ! -e "$STAND_IN/fails" ] || { echo "npm is out of order" >&2; exit 1; }
if [ -e "$STAND_IN/gate" ]; then : >"$STAND_IN/waiting"; read -r _ <"$STAND_IN/gate"; fi
mkdir -p node_modules
ln -sfn "${here}"/node_modules/* "${here}"/node_modules/.bin node_modules/
`

interface Checkout {
  readonly root: string
  readonly path: (name: string) => string
  /** What the stand-in for npm was told, a line a call. */
  readonly npmCalls: () => ReadonlyArray<string>
  readonly run: (
    script: string,
    args: ReadonlyArray<string>,
    options?: { readonly cwd?: string }
  ) => Effect.Effect<Run, never, Scope.Scope>
}

interface Run {
  readonly child: ChildProcess
  readonly stdout: () => string
  readonly stderr: () => string
  readonly until: (holds: () => boolean) => Effect.Effect<void>
  readonly exit: Effect.Effect<{
    readonly code: number | null
    readonly stdout: string
    readonly stderr: string
  }>
}

/** Commands that a busy machine may take long for. */
const patience = 60_000

const start = (
  command: string,
  args: ReadonlyArray<string>,
  env: NodeJS.ProcessEnv,
  cwd: string
): Effect.Effect<Run, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => spawn(command, args, { env, cwd, stdio: ["ignore", "pipe", "pipe"] })),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    ),
    (child) => {
      const changes = new Changes()
      const output = { stdout: "", stderr: "" }
      let code: number | null | undefined
      for (const name of ["stdout", "stderr"] as const) {
        child[name].setEncoding("utf8").on("data", (text: string) => {
          output[name] += text
          changes.notify()
        })
      }
      child.on("close", (status) => {
        code = status
        changes.notify()
      })
      const until = (holds: () => boolean) =>
        changes.until(holds, () => JSON.stringify({ code, ...output }), patience)
      return {
        child,
        stdout: () => output.stdout,
        stderr: () => output.stderr,
        until,
        exit: Effect.map(
          until(() => code !== undefined),
          () => ({ code: code ?? null, ...output })
        )
      }
    }
  )

/** Stands for the program where all that matters is that there is one. It is built into chunks too. */
const stub =
  'const { version } = await import("./internal/version.js")\nprocess.stdout.write(`${version}\\n\\n`)\n'

const clone = (program: "whole" | "a stub"): Effect.Effect<Checkout, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "shadowcat-scripts-"))),
      (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true, force: true }))
    ),
    (folder) => {
      // A space, as in many a home folder.
      const root = join(folder, "a clone")
      const standIn = join(folder, "stand-in")
      fs.mkdirSync(root)
      fs.mkdirSync(standIn)
      for (const name of ["src", "scripts", "package.json", "package-lock.json", "tsconfig.json", ".npmrc"]) {
        fs.cpSync(join(here, name), join(root, name), { recursive: true })
      }
      if (program === "a stub") fs.writeFileSync(join(root, "src/main.ts"), stub)
      fs.writeFileSync(join(standIn, "npm"), npm, { mode: 0o755 })
      const env = { ...process.env, PATH: `${standIn}:${process.env["PATH"] ?? ""}`, STAND_IN: standIn }
      return {
        root,
        path: (name) => join(name.startsWith("stand-in/") ? folder : root, name),
        npmCalls: () => {
          const calls = join(standIn, "calls")
          return fs.existsSync(calls) ? fs.readFileSync(calls, "utf8").trim().split("\n") : []
        },
        run: (script, args, options = {}) => start(script, args, env, options.cwd ?? root)
      }
    }
  )

const { version } = (() => {
  const manifest: unknown = JSON.parse(fs.readFileSync(join(here, "package.json"), "utf8"))
  return typeof manifest === "object" && manifest !== null && "version" in manifest
    ? { version: String(manifest.version) }
    : { version: "" }
})()

/** Runs `scripts/shadowcat --version` to its end. */
const showVersion = ({ path, run }: Checkout) =>
  Effect.flatMap(run(path("scripts/shadowcat"), ["--version"]), ({ exit }) => exit)

/** Makes a file newer than all that was made from it; a copy keeps its time, and clocks are coarse. */
const change = (file: string) => {
  const later = new Date(Date.now() + 2000)
  fs.utimesSync(file, later, later)
}

describe.concurrent("scripts/shadowcat", { timeout: 90_000 }, () => {
  it.scopedLive("sets a fresh clone up by itself, once, and says nothing after that", () =>
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

      // Nor does it matter from which folder it is started, and through which links.
      const bin = checkout.path("stand-in/bin")
      fs.mkdirSync(bin)
      fs.symlinkSync(checkout.path("scripts/shadowcat"), join(bin, "absolute"))
      fs.symlinkSync("absolute", join(bin, "relative"))
      for (const name of ["absolute", "relative"]) {
        const run = yield* checkout.run(join(bin, name), ["--version"], { cwd: "/" })
        expect(yield* run.exit).toEqual(second)
      }
    })
  )

  it.scopedLive("is safe when several start at once: one of them sets up, all of them run", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("a stub")
      const runs = yield* Effect.replicateEffect(showVersion(checkout), 6, { concurrency: "unbounded" })
      for (const run of runs) expect(run).toMatchObject({ code: 0, stdout: `${version}\n\n` })
      expect(checkout.npmCalls()).toHaveLength(1)
      expect(fs.existsSync(checkout.path(".setup.lock"))).toBe(false)
      expect((yield* showVersion(checkout)).stderr).toBe("")
    })
  )

  it.scopedLive("builds anew when a source has changed, and installs anew when the packages have", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("a stub")
      yield* showVersion(checkout)
      for (const [file, installs] of [
        ["src/internal/version.ts", 1],
        ["package-lock.json", 2]
      ] as const) {
        change(checkout.path(file))
        const run = yield* showVersion(checkout)
        expect(run).toMatchObject({ code: 0, stdout: `${version}\n\n` })
        expect(run.stderr).toContain("shadowcat: ")
        expect(checkout.npmCalls()).toHaveLength(installs)
        // What was made is not newer than what changed, so that time has to pass first.
        for (const made of ["node_modules/.setup", "dist/shadowcat.js"]) change(checkout.path(made))
        expect((yield* showVersion(checkout)).stderr).toBe("")
      }
    })
  )

  it.scopedLive("says so and exits 1 when the set-up fails, and does not run what is old", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("a stub")
      fs.writeFileSync(checkout.path("stand-in/fails"), "")
      const failed = yield* showVersion(checkout)
      expect(failed).toMatchObject({ code: 1, stdout: "" })
      expect(failed.stderr).toContain("npm is out of order")
      expect(failed.stderr).toMatch(/shadowcat: the packages could not be installed/)
      fs.rmSync(checkout.path("stand-in/fails"))
      expect((yield* showVersion(checkout)).code).toBe(0)

      const source = fs.readFileSync(checkout.path("src/main.ts"), "utf8")
      fs.writeFileSync(checkout.path("src/main.ts"), "this is no TypeScript")
      change(checkout.path("src/main.ts"))
      const broken = yield* showVersion(checkout)
      expect(broken).toMatchObject({ code: 1, stdout: "" })
      expect(broken.stderr).toMatch(/shadowcat: src could not be built/)
      fs.writeFileSync(checkout.path("src/main.ts"), source)
      expect((yield* showVersion(checkout)).code).toBe(0)
      expect(fs.existsSync(checkout.path(".setup.lock"))).toBe(false)
    })
  )

  /** A set-up that stands still while npm runs, until the gate is opened. */
  const interrupted = (checkout: Checkout, signal: NodeJS.Signals) =>
    Effect.gen(function* () {
      const gate = checkout.path("stand-in/gate")
      yield* Effect.flatMap(checkout.run("mkfifo", [gate]), ({ exit }) => exit)
      const run = yield* checkout.run(checkout.path("scripts/shadowcat"), ["--version"])
      const waiting = Effect.sync(() => fs.existsSync(checkout.path("stand-in/waiting")))
      yield* Effect.repeat(Effect.delay(waiting, 10), { until: (isWaiting) => isWaiting })
      run.child.kill(signal)
      fs.rmSync(checkout.path("stand-in/waiting"))
      // For both ends, so that it opens without anybody at the other.
      const writing = fs.openSync(gate, "r+")
      yield* Effect.addFinalizer(() => Effect.sync(() => fs.closeSync(writing)))
      fs.rmSync(gate)
      return { run, openGate: Effect.sync(() => fs.writeSync(writing, "go\n")) }
    })

  it.scopedLive("ends with npm on a signal in the middle of its set-up, and leaves no lock behind", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("a stub")
      for (const [signal, code] of [
        ["SIGINT", 130],
        ["SIGTERM", 143]
      ] as const) {
        const { run } = yield* interrupted(checkout, signal)
        expect((yield* run.exit).code).toBe(code)
        expect(fs.existsSync(checkout.path(".setup.lock"))).toBe(false)
      }
      expect(yield* showVersion(checkout)).toMatchObject({ code: 0, stdout: `${version}\n\n` })
      expect(checkout.npmCalls()).toHaveLength(3)
    })
  )

  it.scopedLive("takes over from a set-up that was killed, when the npm that it left behind has ended", () =>
    Effect.gen(function* () {
      const checkout = yield* clone("a stub")
      const { openGate } = yield* interrupted(checkout, "SIGKILL")
      const next = yield* checkout.run(checkout.path("scripts/shadowcat"), ["--version"])
      yield* next.until(() => next.stderr().includes("waiting for another set-up"))
      expect(checkout.npmCalls()).toHaveLength(1)
      yield* openGate
      expect(yield* next.exit).toMatchObject({ code: 0, stdout: `${version}\n\n` })
      expect(checkout.npmCalls()).toHaveLength(2)
      expect(fs.existsSync(checkout.path(".setup.lock"))).toBe(false)
    })
  )

  it.scopedLive("becomes the program: arguments with spaces arrive, and a signal ends it as it should", () =>
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
