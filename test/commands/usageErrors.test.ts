import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type CliRun, runCli } from "../fixtures/Cli.js"
import { expectFailure, forward, invalidOptions, nowhere, variable } from "../fixtures/commandLine.js"
import { runHere } from "../fixtures/runHere.js"

/** One option of each kind, with a second invalid value. */
const kinds: ReadonlyArray<readonly [name: string, wrong: string]> = [
  ["url", "nowhere"],
  ["host", "a/b"],
  ["port", "-1"],
  ["path", "mcp"],
  ["allow-host", "a b"],
  ["allow-origin", "app.example"],
  ["header", "se cret: x"],
  ["header", "Mcp-Session-Id: secret"],
  ["max-sessions", "1000001"],
  ["max-body", "0"],
  ["session-timeout", "-1"],
  ["request-timeout", "5 apples"],
  ["store", "sqlite:"],
  ["log-level", "loud"],
  ["log-format", "xml"]
]

describe.concurrent("a usage error exits 2 with one line that says what to do", () => {
  /** A correct command line without this option. */
  const without = (name: string) => [
    ...forward,
    ...(name === "url" ? [] : ["--url", "http://127.0.0.1:1/mcp"]),
    ...(name === "port" ? [] : ["--port", "0"])
  ]

  interface UsageError {
    readonly name: string
    readonly args: ReadonlyArray<string>
    readonly env?: Readonly<Record<string, string>>
    readonly hint: RegExp
  }

  /** One error of each kind, which a process reports. */
  const inProcesses: ReadonlyArray<UsageError> = [
    { name: "an unknown command", args: ["serve"], hint: /forward.*--help/ },
    { name: "an unknown option", args: [...forward, ...nowhere, "--bogus"], hint: /--bogus.*--help/ },
    { name: "--wizard without a terminal", args: [...forward, "--wizard"], hint: /terminal/ },
    { name: "no --url", args: forward, hint: /--url/ },
    { name: "completions for an unknown shell", args: ["--completions", "tcsh"], hint: /--help/ },
    {
      name: "SHADOWCAT_MULTI_SESSION with neither true nor false",
      args: [...forward, ...nowhere],
      env: { SHADOWCAT_MULTI_SESSION: "maybe" },
      hint: /SHADOWCAT_MULTI_SESSION/
    },
    {
      name: "an invalid value that may be secret",
      args: [...forward, ...nowhere, "--header", "secret"],
      hint: /--header/
    },
    {
      name: "a variable that is read before the options",
      args: [...forward, ...nowhere],
      env: { SHADOWCAT_LOG_LEVEL: "loud" },
      hint: /--log-level/
    }
  ]

  /** All other errors, which the function reports that the process calls. */
  const inThisProcess: ReadonlyArray<UsageError> = [
    { name: "an unknown command of forward", args: ["forward", "htp"], hint: /forward http.*--help/ },
    { name: "an unknown option in place of a command", args: ["--bogus"], hint: /--help/ },
    {
      name: "an unknown option with a value",
      args: [...forward, ...nowhere, "--bogus=1"],
      hint: /--bogus.*--help/
    },
    {
      name: "a misspelt option",
      args: [...forward, ...nowhere, "--max-session", "5"],
      hint: /max-session/
    },
    {
      name: "an unknown option before all others",
      args: [...forward, "--bogus", ...nowhere],
      hint: /no option --bogus/
    },
    {
      name: "an option without its value before another option",
      args: [...forward, "--path", ...nowhere],
      hint: /--path needs a value/
    },
    {
      name: "an option with a capital letter",
      args: [...forward, "--Path", "/x", ...nowhere],
      hint: /no option --Path/
    },
    { name: "an extra argument", args: [...forward, ...nowhere, "extra"], hint: /extra.*--help/ },
    {
      name: "a required option without its value",
      args: [...forward, "--port", "0", "--url"],
      hint: /--url/
    },
    {
      name: "the last option without its value",
      args: [...forward, ...nowhere, "--max-sessions"],
      hint: /--max-sessions/
    },
    {
      name: "an option given twice",
      args: [...forward, ...nowhere, "--path", "/a", "--path", "/b"],
      hint: /--path/
    },
    ...["recover", "recover-stdio"].map((name) => ({
      name: `${variable(name)} with neither true nor false`,
      args: [...forward, ...nowhere],
      env: { [variable(name)]: "maybe" },
      hint: new RegExp(variable(name))
    })),
    ...kinds.map(([name, value]) => ({
      name: `--${name} ${value}`,
      args: [...without(name), `--${name}`, value],
      hint: new RegExp(`--${name}.*${variable(name)}`)
    })),
    ...invalidOptions.map(([name, value, hint]) => ({
      name: `${variable(name)}=${value}`,
      args: without(name),
      env: { [variable(name)]: value },
      hint: new RegExp(`--${name}.*${variable(name)}.*${hint.source}`)
    }))
  ]

  const expectUsageError = (run: CliRun, { hint }: UsageError) => {
    expectFailure(run, 2, hint)
    expect(run.stderr).not.toContain("secret")
  }

  for (const error of inProcesses) {
    it.live(error.name, () =>
      Effect.map(runCli(error.args, { env: error.env ?? {} }), (run) => expectUsageError(run, error))
    )
  }

  for (const error of inThisProcess) {
    it.live(error.name, () =>
      Effect.map(runHere(error.args, error.env), (run) => expectUsageError(run, error))
    )
  }
})
