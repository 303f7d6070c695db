/** The level and format of logs. They go to standard error, because `forward stdio` speaks MCP on standard output. */
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import { fromEnvironment } from "./flags.js"
import type { ForwardOptions } from "./options.js"
import { defaultLogLevel, logging } from "./options/logging.js"
import { logLevel } from "./parsers.js"

const loggers = {
  pretty: () => Logger.prettyLogger({ stderr: true }),
  json: () => Logger.withConsoleError(Logger.jsonLogger)
}

/** Runs an effect with the log format and level of the options. */
export const withLogging =
  ({ logging: { format, level } }: ForwardOptions) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const logged = Effect.provide(effect, Logger.replace(Logger.defaultLogger, loggers[format]()))
    return level === undefined ? logged : Logger.withMinimumLogLevel(logged, level)
  }

/**
 * Reads the log level from the environment, or returns the default. It applies outside of the command line, so that the
 * built-in `--log-level` of `@effect/cli` takes precedence.
 */
export const environmentLogLevel = Effect.map(
  fromEnvironment(logging.level.info, logLevel),
  (level) => level ?? defaultLogLevel
)
