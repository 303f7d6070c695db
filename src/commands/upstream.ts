/** What a forward proxy relays to: a URL, or the command behind `--`. */
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as UpstreamPool from "../UpstreamPool.js"
import { flag, onByDefault, optional, repeated, withDefault } from "./options.js"
import * as values from "./parsers.js"

/** What follows `--` on the command line, which no parser looks at: a command and its arguments. */
export class ServerCommand extends Context.Reference<ServerCommand>()("shadowcat/ServerCommand", {
  defaultValue: (): ReadonlyArray<string> => []
}) {}

/** The options of an upstream, whatever it is. */
export const upstreamOptions = {
  url: optional("url", {
    description: "The MCP endpoint of the upstream; for one that is a command, that comes last, behind --",
    value: "url",
    read: values.url
  }),
  header: repeated("header", "\n", {
    description: "A header that every request to the upstream carries, 'Name: value'; repeatable",
    value: "header",
    read: values.header
  }),
  requestTimeout: withDefault("request-timeout", "300s", {
    description: "How long the upstream may take to begin an answer, 0 for any time",
    value: "duration",
    read: values.duration
  }),
  connectTimeout: withDefault("connect-timeout", "10s", {
    description: "How long a connection to the upstream may take to be made",
    value: "duration",
    read: values.positiveDuration
  }),
  env: repeated("env", "\n", {
    description: "A variable for the command's environment, NAME=value; repeatable",
    value: "variable",
    read: values.variable
  }),
  inheritEnv: flag("inherit-env", "Pass the whole environment of the proxy on to the command"),
  cwd: optional("cwd", {
    description: "The folder that the command runs in",
    value: "folder",
    read: values.folder
  }),
  startTimeout: withDefault("start-timeout", "30s", {
    description: "How long the command may take to answer `initialize`",
    value: "duration",
    read: values.positiveDuration
  }),
  killTimeout: withDefault("kill-timeout", "5s", {
    description: "How long the command may take to end when its input has ended, and again after SIGTERM",
    value: "duration",
    read: values.duration
  }),
  maxMessage: withDefault("max-message", "16MiB", {
    description: "How large a message of the command may be",
    value: "size",
    read: values.size
  }),
  stderr: withDefault("stderr", "log", {
    description: "What becomes of the command's standard error: inherit, log (at debug) or ignore",
    value: "way",
    read: values.oneOf({ inherit: "inherit", log: "log", ignore: "ignore" } as const)
  })
}

/** Whether a session goes on at an upstream that has lost it; what a command held in memory is rarely made anew. */
export const recoveryOptions = {
  url: onByDefault("recover", "Open another session at a server that has lost one, and go on"),
  command: flag("recover-stdio", "Start a command that has ended anew, and go on with its session there")
}

/** Which of the two holds for an upstream. */
export const recovers = (
  upstream: UpstreamPool.Options,
  given: { readonly url: boolean; readonly command: boolean }
): boolean => ("url" in upstream ? given.url : given.command)

interface Given {
  readonly url: URL | undefined
  readonly header: ReadonlyArray<readonly [name: string, value: string]>
  readonly requestTimeout: Duration.Duration
  readonly connectTimeout: Duration.Duration
  readonly env: ReadonlyArray<readonly [name: string, value: string]>
  readonly inheritEnv: boolean
  readonly cwd: string | undefined
  readonly startTimeout: Duration.Duration
  readonly killTimeout: Duration.Duration
  readonly maxMessage: number
  readonly stderr: "log" | "inherit" | "ignore"
}

/** The upstream that a command line names. Fails when it names none, or two. */
export const upstreamOf = (
  given: Given
): Effect.Effect<UpstreamPool.Options, ValidationError.ValidationError> =>
  Effect.gen(function* () {
    const [command, ...args] = yield* ServerCommand
    const { env, header, url, ...options } = given
    if (url !== undefined && command !== undefined) {
      return yield* wrong("Give --url or a command behind --, not both")
    }
    if (url !== undefined) {
      if (env.length > 0) yield* wrong("--env is for a command: the server at --url has its own environment")
      return { ...options, url, headers: Object.fromEntries(header) }
    }
    if (command === undefined) {
      return yield* wrong("There is no upstream: give its --url, or a command that starts it behind --")
    }
    if (header.length > 0) yield* wrong("--header is for a server at --url: a command takes no headers")
    return { ...options, command, args, env: Object.fromEntries(env) }
  })

const wrong = (message: string): Effect.Effect<never, ValidationError.ValidationError> =>
  Effect.fail(ValidationError.invalidValue(HelpDoc.p(message)))
