/**
 * Schemas of option values. Each decodes the written form of a value, a text or a number, from the command line, the
 * environment or a configuration file. A decoding error describes the right form and never repeats the value, because
 * headers and variables are often secret.
 */
import { statSync } from "node:fs"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as LogLevel from "effect/LogLevel"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { HEALTH_PATH } from "../HttpFront/Router.js"
import { isReserved } from "../Upstream/headers.js"

/** The written form of a single value. */
const Written = Schema.Union(Schema.String, Schema.Number)

/** Makes a schema of values that `read` parses from a text. `read` fails with a noun phrase for the right form. */
const parser = <A>(
  type: Schema.Schema<A>,
  read: (text: string) => Either.Either<A, string>,
  write: (value: A) => string
): Schema.Schema<A, string | number> =>
  Schema.transformOrFail(Written, type, {
    strict: true,
    decode: (written, _, ast) =>
      Either.mapLeft(read(String(written)), (expected) => new ParseResult.Type(ast, written, expected)),
    encode: (value) => ParseResult.succeed(write(value))
  })

/** Makes a schema of texts that `read` validates or normalizes. */
const text = (
  read: (text: string) => Either.Either<string, string>
): Schema.Schema<string, string | number> => parser(Schema.String, read, (value) => value)

/** Makes a schema of texts that pass a test. */
const textThat = (
  isValid: (text: string) => boolean,
  expected: string
): Schema.Schema<string, string | number> =>
  text((value) => (isValid(value) ? Either.right(value) : Either.left(expected)))

/** Returns the first problem of a decoding: the path of the value, and a noun phrase for the right form. */
export const problem = (error: ParseResult.ParseError): ParseResult.ArrayFormatterIssue | undefined =>
  ParseResult.ArrayFormatter.formatErrorSync(error)[0]

/** Decodes one value. Fails with a noun phrase for the right form. */
export const parse = <A, I>(schema: Schema.Schema<A, I>): ((input: unknown) => Either.Either<A, string>) => {
  const decode = Schema.decodeUnknownEither(schema)
  return (input) => Either.mapLeft(decode(input), (error) => problem(error)?.message ?? error.message)
}

const units = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const

/** The longest delay of a Node timer, in milliseconds. */
const LONGEST_DELAY = 2 ** 31 - 1

const readDuration = (text: string): Either.Either<Duration.Duration, string> => {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text.trim())
  if (match === null) return Either.left("a duration such as 300 (seconds), 90s, 5m or 500ms")
  const unit = match[2] === "ms" || match[2] === "m" || match[2] === "h" ? match[2] : "s"
  const millis = Math.round(Number(match[1]) * units[unit])
  return millis > LONGEST_DELAY
    ? Either.left("a duration of at most 24 days")
    : Either.right(Duration.millis(millis))
}

/** Writes a duration in minutes from 10 minutes up, and in seconds or milliseconds below. */
const writeDuration = (duration: Duration.Duration): string => {
  const millis = Duration.toMillis(duration)
  if (millis % units.s !== 0) return `${millis}ms`
  return millis < 10 * units.m || millis % units.m !== 0 ? `${millis / units.s}s` : `${millis / units.m}m`
}

/** `300` (seconds), `300s`, `5m`, `250ms`, `1h`. */
export const duration = parser(Schema.DurationFromSelf, readDuration, writeDuration)

/** A duration above zero. */
export const positiveDuration = parser(
  Schema.DurationFromSelf,
  (text) =>
    Either.filterOrLeft(
      readDuration(text),
      (value) => Duration.toMillis(value) > 0,
      () => "a duration above zero"
    ),
  writeDuration
)

const multiples = { b: 1, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, kb: 1e3, mb: 1e6, gb: 1e9 } as const

const binary = { GiB: multiples.gib, MiB: multiples.mib, KiB: multiples.kib } as const

const isMultiple = (unit: string): unit is keyof typeof multiples => Object.hasOwn(multiples, unit)

/** `4MiB`, `512KiB`, `1GB`, or a number of bytes. */
export const size = parser(
  Schema.Number,
  (text) => {
    const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/.exec(text.trim().toLowerCase())
    const unit = match?.[2] === "" ? "b" : match?.[2]
    if (unit === undefined || !isMultiple(unit))
      return Either.left("a size such as 4MiB, 512KiB or 65536 (bytes)")
    const bytes = Math.floor(Number(match?.[1]) * multiples[unit])
    return bytes >= 1 && Number.isSafeInteger(bytes)
      ? Either.right(bytes)
      : Either.left("a size of at least one byte")
  },
  (bytes) => {
    const unit = (["GiB", "MiB", "KiB"] as const).find((unit) => bytes % binary[unit] === 0)
    return unit === undefined ? String(bytes) : `${bytes / binary[unit]}${unit}`
  }
)

/** A whole number from `least` to `most`. */
export const integer = (least: number, most: number) =>
  parser(
    Schema.Number,
    (text) => {
      const value = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN
      return value >= least && value <= most
        ? Either.right(value)
        : Either.left(`a whole number from ${least} to ${most}`)
    },
    String
  )

/** One of several names, in any case. Each name stands for a value. */
export const oneOf = <A>(choices: Readonly<Record<string, A>>) => {
  const values = Object.values(choices)
  return parser(
    Schema.declare((input: unknown): input is A => values.some((value) => value === input)),
    (text) => {
      const choice = Object.hasOwn(choices, text.toLowerCase()) ? choices[text.toLowerCase()] : undefined
      return choice === undefined
        ? Either.left(`one of ${Object.keys(choices).join(", ")}`)
        : Either.right(choice)
    },
    (value) => Object.keys(choices).find((name) => choices[name] === value) ?? ""
  )
}

/** The level of a log message. */
export const logLevel = oneOf(
  Object.fromEntries(LogLevel.allLevels.map((level) => [level._tag.toLowerCase(), level]))
)

/** A count of at least one. */
export const count = integer(1, 1_000_000)

/** An address of this machine, or a name for one. Brackets around an IPv6 address are removed. */
export const address = text((value) =>
  /^[^\s/]+$/.test(value)
    ? Either.right(value.replace(/^\[(.*)\]$/, "$1"))
    : Either.left("an address such as 127.0.0.1 or ::1")
)

/** The port of a server; 0 stands for any free port. */
export const port = integer(0, 65_535)

/** The path of the MCP endpoint. */
export const path = textThat(
  (value) => /^\/[^\s?#]*$/.test(value) && value !== HEALTH_PATH,
  `a path such as /mcp, without a query, and not ${HEALTH_PATH}, which is taken`
)

/** The URL of an MCP endpoint. */
export const url = parser(
  Schema.URLFromSelf,
  (text) => {
    const parsed = URL.canParse(text) ? new URL(text) : undefined
    if (parsed === undefined || (parsed.protocol !== "http:" && parsed.protocol !== "https:")) {
      return Either.left("the address of an MCP endpoint, such as http://127.0.0.1:3000/mcp")
    }
    return parsed.username === "" && parsed.password === ""
      ? Either.right(parsed)
      : Either.left(
          "an address without a user and password: send them with --header 'Authorization: Basic ...'"
        )
  },
  ({ href }) => href
)

const Pair = Schema.Tuple(Schema.String, Schema.String)

/** `Name: value`. The name is decoded in lower case. */
export const header = parser(
  Pair,
  (text) => {
    const match = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*$/.exec(text)
    const [, name, value] = match ?? []
    if (name === undefined || value === undefined) return Either.left("a header such as 'Name: value'")
    return isReserved(name.toLowerCase())
      ? Either.left(`a header that the proxy does not set itself, unlike ${name}`)
      : Either.right([name.toLowerCase(), value] as const)
  },
  ([name, value]) => `${name}: ${value}`
)

/** `NAME=value`, an environment variable. */
export const variable = parser(
  Pair,
  (text) => {
    const [, name, value] = /^([^=\0]+)=([^\0]*)$/s.exec(text) ?? []
    return name === undefined || value === undefined
      ? Either.left("a variable such as NAME=value")
      : Either.right([name, value] as const)
  },
  ([name, value]) => `${name}=${value}`
)

/** A record of pairs of names and values. The last value of a name takes precedence. */
export const recordOf = (pair: typeof header) =>
  Schema.transform(Schema.Array(pair), Schema.Record({ key: Schema.String, value: Schema.String }), {
    strict: true,
    decode: (pairs) => Object.fromEntries(pairs),
    encode: (record) => Object.entries(record)
  })

/** An existing folder. */
export const folder = textThat(
  (value) => statSync(value, { throwIfNoEntry: false })?.isDirectory() === true,
  "an existing folder"
)

/** The name of a host, with or without a port. */
export const host = textThat(
  (value) => value === "*" || URL.canParse(`http://${value}`),
  "a host such as proxy.example.com, or * for all"
)

/** The origin of a web page. */
export const origin = textThat(
  (value) => value === "*" || (URL.canParse(value) && new URL(value).origin === value.toLowerCase()),
  "an origin such as https://app.example.com, or * for all"
)

const Memory = Schema.Struct({ type: Schema.Literal("memory") })
const SqliteFile = Schema.Struct({ type: Schema.Literal("sqlite"), path: Schema.String })
const Location = Schema.Union(Memory, SqliteFile)

/** The place where sessions and events are stored. */
export type StoreLocation = typeof Location.Type

/** `memory`, or `sqlite:PATH`. */
export const storeLocation = parser(
  Location,
  (text): Either.Either<StoreLocation, string> => {
    if (text === "memory") return Either.right({ type: "memory" })
    const path = /^sqlite:(.+)$/.exec(text)?.[1]
    return path === undefined
      ? Either.left("a place such as sqlite:PATH, or memory")
      : Either.right({ type: "sqlite", path })
  },
  (location) => (location.type === "memory" ? "memory" : `sqlite:${location.path}`)
)
