/** The options of logs. */
import * as LogLevel from "effect/LogLevel"
import * as parsers from "../parsers.js"
import { forwards, programWide, withDefault } from "./rows.js"

export const defaultLogLevel = LogLevel.Info

export const logging = {
  level: programWide({
    name: "log-level",
    group: "Logging",
    schema: parsers.logLevel,
    default: defaultLogLevel,
    placeholder: "level",
    description: "Minimum level of log messages",
    commands: forwards
  }),
  format: withDefault({
    name: "log-format",
    group: "Logging",
    schema: parsers.oneOf({ pretty: "pretty", json: "json" } as const),
    default: "pretty",
    placeholder: "format",
    description: "Format of log messages on standard error: pretty or json",
    commands: forwards
  })
}
