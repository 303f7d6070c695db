import { describe, expect, it } from "@effect/vitest"
import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as LogLevel from "effect/LogLevel"
import { flags } from "../../src/commands/flags.js"
import { ForwardOptions, forwardTable } from "../../src/commands/options.js"

type Environment = Readonly<Record<string, string>>

/** Parses the options of a forward proxy. Fails with the error text. */
const parse = (
  args: ReadonlyArray<string>,
  environment: Environment = {},
  command: "forward http" | "forward stdio" = "forward http"
): Effect.Effect<ForwardOptions, string> =>
  Effect.gen(function* () {
    let decoded: ForwardOptions | undefined
    const test = Command.make(
      "test",
      { options: flags(command, forwardTable, ForwardOptions) },
      ({ options }) =>
        Effect.sync(() => {
          decoded = options
        })
    )
    const console = yield* Console.consoleWith(Effect.succeed)
    yield* Command.run(test, { name: "test", version: "0" })(["node", "test", ...args]).pipe(
      Effect.provide([NodeContext.layer, CliConfig.layer({ isCaseSensitive: true })]),
      Effect.withConsole({ ...console, error: () => Effect.void }),
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(environment)))),
      Effect.mapError((error) =>
        ValidationError.isValidationError(error) ? HelpDoc.toAnsiText(error.error) : String(error)
      )
    )
    return decoded ?? (yield* Effect.dieMessage("the command did not run"))
  })

describe("the flags of a command", () => {
  it.effect("put each value at the path of its option", () =>
    Effect.gen(function* () {
      const limits = "--max-sessions 5 --multi-session --max-body 1KiB --store sqlite:file --log-level debug"
      const headers = ["--header", "X-One: 1", "--header", "X-Two: 2"]
      const options = yield* parse([...limits.split(" "), ...headers])
      expect(options).toMatchObject({
        sessions: { maxSessions: 5, multiSession: true },
        front: { maxBody: 1024 },
        store: { location: { type: "sqlite", path: "file" } },
        upstream: { headers: { "x-one": "1", "x-two": "2" } },
        logging: { level: LogLevel.Debug }
      })
    })
  )

  it.effect("read the environment if the command line has no value", () =>
    Effect.gen(function* () {
      const environment = {
        SHADOWCAT_MAX_SESSIONS: "6",
        SHADOWCAT_RECOVER: "false",
        SHADOWCAT_KEEP_ALIVE: "2s",
        SHADOWCAT_HEADER: "x-one: 1, 2\n\n x-two: 3",
        SHADOWCAT_ALLOW_HOST: "one.example, two.example,"
      }
      const { front, sessions, upstream } = yield* parse([], environment)
      expect(sessions).toMatchObject({ maxSessions: 6, recover: false, keepAlive: Duration.seconds(2) })
      expect(upstream.headers).toEqual({ "x-one": "1, 2", "x-two": "3" })
      expect(front.allowHosts).toEqual(["one.example", "two.example"])

      const args = ["--max-sessions", "7", "--recover", "true", "--header", "x-four: 4", "--allow-host", "*"]
      const given = yield* parse(args, environment)
      expect(given.sessions).toMatchObject({ maxSessions: 7, recover: true })
      expect(given.upstream.headers).toEqual({ "x-four": "4" })
      expect(given.front.allowHosts).toEqual(["*"])
    })
  )

  it.effect("read an empty variable of a repeatable option as no value", () =>
    Effect.gen(function* () {
      const { front, upstream } = yield* parse([], { SHADOWCAT_HEADER: "", SHADOWCAT_ALLOW_HOST: " " })
      expect(upstream.headers).toEqual({})
      expect(front.allowHosts).toEqual([])
    })
  )

  it.effect("leave the log level of the environment to the whole program", () =>
    Effect.gen(function* () {
      const { logging } = yield* parse([], { SHADOWCAT_LOG_LEVEL: "debug", SHADOWCAT_LOG_FORMAT: "json" })
      expect(logging).toEqual({ format: "json" })
    })
  )

  it.effect("name the option and its variable in an error, but not the value", () =>
    Effect.gen(function* () {
      const inHeader = "--header (or SHADOWCAT_HEADER) takes a header such as 'Name: value'"
      expect(yield* Effect.flip(parse(["--header", "x: 1", "--header", "secret"]))).toContain(inHeader)
      expect(yield* Effect.flip(parse([], { SHADOWCAT_HEADER: "secret" }))).toContain(inHeader)
      expect(yield* Effect.flip(parse([], { SHADOWCAT_MAX_BODY: "5XB" }))).toContain(
        "--max-body (or SHADOWCAT_MAX_BODY) takes a size such as"
      )
    })
  )

  it.effect("refuse the options of another command, and ignore their variables", () =>
    Effect.gen(function* () {
      const environment = { SHADOWCAT_MAX_SESSIONS: "none", SHADOWCAT_MAX_EXCHANGES: "8" }
      const { sessions } = yield* parse([], environment, "forward stdio")
      expect(sessions).toMatchObject({ maxExchanges: 8, maxSessions: 1000 })
      expect(yield* Effect.flip(parse(["--max-sessions", "5"], {}, "forward stdio"))).toContain(
        "--max-sessions"
      )
    })
  )
})
