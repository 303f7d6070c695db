/** Where logs go and what they look like. Standard output is left alone: other modes speak MCP on it. */
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import { fromEnvironment, fromCommandLine, withDefault } from "./options.js"
import { oneOf } from "./parsers.js"

const level = {
  description: "The least level that is logged (default: info)",
  value: "level",
  read: oneOf(Object.fromEntries(LogLevel.allLevels.map((level) => [level._tag.toLowerCase(), level])))
}

const logger = {
  description: "How logs look on standard error, pretty or json",
  value: "format",
  read: oneOf({
    pretty: Logger.prettyLogger({ stderr: true }),
    json: Logger.withConsoleError(Logger.jsonLogger)
  })
}

/** The options of every command that runs for long. */
export const logOptions = {
  logLevel: fromCommandLine("log-level", level),
  logger: withDefault("log-format", "pretty", logger)
}

interface Logging {
  readonly logLevel: LogLevel.LogLevel | undefined
  readonly logger: Logger.Logger<unknown, void>
}

/** Logs as these options say. */
export const withLogging =
  ({ logger, logLevel }: Logging) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const logged = Effect.provide(effect, Logger.replace(Logger.defaultLogger, logger))
    return logLevel === undefined ? logged : Logger.withMinimumLogLevel(logged, logLevel)
  }

/**
 * The level that the environment asks for. It is set around everything else, for the command line's own
 * `--log-level`, where `@effect/cli` takes it, has to win.
 */
export const environmentLogLevel = Effect.map(
  fromEnvironment("log-level", level),
  (level) => level ?? LogLevel.Info
)
