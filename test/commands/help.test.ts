import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { type CliRun, runCli } from "../fixtures/Cli.js"
import { forward, invalidOptions, variable } from "../fixtures/commandLine.js"
import { runHere } from "../fixtures/runHere.js"

const decodeManifest = Schema.decodeUnknownSync(Schema.parseJson(Schema.Struct({ version: Schema.String })))

describe.concurrent("help, version and completions", () => {
  const expectText = (run: CliRun) => {
    expect(run).toMatchObject({ code: 0, stderr: "" })
    // No colours, because stdout is not a terminal.
    expect(run.stdout).not.toContain("\u001b")
    return run.stdout
  }

  for (const [args, run] of [
    [["--help"], runCli],
    [[], runHere],
    [["-h"], runHere],
    [["forward"], runHere],
    [["forward", "--help"], runHere]
  ] as const) {
    it.live(`shadowcat ${args.join(" ")} lists the commands`, () =>
      Effect.gen(function* () {
        expect(expectText(yield* run(args))).toMatch(/- (forward )?http /)
      })
    )
  }

  it.live(
    "shadowcat forward http --help lists each option with its environment variable and its default",
    () =>
      Effect.gen(function* () {
        const help = expectText(yield* runHere([...forward, "--help"]))
        for (const name of ["multi-session", ...invalidOptions.map(([name]) => name)]) {
          expect(help).toContain(`--${name}`)
          expect(help).toContain(`[${variable(name)}]`)
        }
        for (const value of [
          "127.0.0.1",
          "8080",
          "/mcp",
          "1000",
          "256",
          "10000",
          "4MiB",
          "30m",
          "60s",
          "300s",
          "10s"
        ]) {
          expect(help).toContain(`(default: ${value})`)
        }
      })
  )

  it.live("shadowcat --version prints the version of the package", () =>
    Effect.gen(function* () {
      const { version } = decodeManifest(readFileSync("package.json", "utf8"))
      expect(expectText(yield* runCli(["--version"])).trim()).toBe(version)
    })
  )

  for (const [shell, run] of [
    ["bash", runCli],
    ["zsh", runHere],
    ["fish", runHere]
  ] as const) {
    it.live(`shadowcat --completions ${shell} prints a script with the options`, () =>
      Effect.gen(function* () {
        const script = expectText(yield* run(["--completions", shell]))
        expect(script).toContain("forward")
        expect(script).toContain("max-sessions")
        const { error, stderr } = spawnSync(shell, ["-n"], { input: script, encoding: "utf8" })
        // The syntax is checked only if the shell is installed.
        if (error === undefined) expect(stderr).toBe("")
      })
    )
  }
})
