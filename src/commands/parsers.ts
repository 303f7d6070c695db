/** How the values of options are written: each reader says what is wrong with a text that it cannot read. */
import { statSync } from "node:fs"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import { HEALTH_PATH } from "../HttpFront/Router.js"
import { isReserved } from "../Upstream/headers.js"

/** Reads a text, or says what would be right. */
export type Reader<A> = (text: string) => Either.Either<A, string>

const units = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const

/** The longest time that Node's timers can wait, in milliseconds. */
const LONGEST = 2 ** 31 - 1

/** `300` (seconds), `300s`, `5m`, `250ms`, `1h`. */
export const duration: Reader<Duration.Duration> = (text) => {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text.trim())
  if (match === null) return Either.left("a duration such as 300 (seconds), 90s, 5m or 500ms")
  const unit = match[2] === "ms" || match[2] === "m" || match[2] === "h" ? match[2] : "s"
  const millis = Math.round(Number(match[1]) * units[unit])
  return millis > LONGEST
    ? Either.left("a duration of at most 24 days")
    : Either.right(Duration.millis(millis))
}

/** A duration that is not zero. */
export const positiveDuration: Reader<Duration.Duration> = (text) =>
  Either.filterOrLeft(
    duration(text),
    (value) => Duration.toMillis(value) > 0,
    () => "a duration above zero"
  )

const multiples = { b: 1, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, kb: 1e3, mb: 1e6, gb: 1e9 } as const

const isMultiple = (unit: string): unit is keyof typeof multiples => Object.hasOwn(multiples, unit)

/** `4MiB`, `512KiB`, `1GB`, or a number of bytes. */
export const size: Reader<number> = (text) => {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/.exec(text.trim().toLowerCase())
  const unit = match?.[2] === "" ? "b" : match?.[2]
  if (unit === undefined || !isMultiple(unit))
    return Either.left("a size such as 4MiB, 512KiB or 65536 (bytes)")
  const bytes = Math.floor(Number(match?.[1]) * multiples[unit])
  return bytes >= 1 && Number.isSafeInteger(bytes)
    ? Either.right(bytes)
    : Either.left("a size of at least one byte")
}

/** A whole number within bounds. */
export const integer =
  (least: number, most: number): Reader<number> =>
  (text) => {
    const value = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN
    return value >= least && value <= most
      ? Either.right(value)
      : Either.left(`a whole number from ${least} to ${most}`)
  }

/** One of a few names, each of which stands for something. */
export const oneOf =
  <A>(choices: Readonly<Record<string, A>>): Reader<A> =>
  (text) => {
    const choice = Object.hasOwn(choices, text.toLowerCase()) ? choices[text.toLowerCase()] : undefined
    return choice === undefined
      ? Either.left(`one of ${Object.keys(choices).join(", ")}`)
      : Either.right(choice)
  }

/** How many there may be of something. */
export const count: Reader<number> = integer(1, 1_000_000)

/** An address of this machine. */
export const address: Reader<string> = (text) =>
  /^[^\s/]+$/.test(text)
    ? Either.right(text.replace(/^\[(.*)\]$/, "$1"))
    : Either.left("an address such as 127.0.0.1 or ::1")

/** The port of a server, 0 for any free one. */
export const port: Reader<number> = integer(0, 65_535)

/** The path of an endpoint. */
export const path: Reader<string> = (text) =>
  /^\/[^\s?#]*$/.test(text) && text !== HEALTH_PATH
    ? Either.right(text)
    : Either.left(`a path such as /mcp, without a query, and not ${HEALTH_PATH}, which is taken`)

/** The address of an MCP endpoint. */
export const url: Reader<URL> = (text) => {
  const parsed = URL.canParse(text) ? new URL(text) : undefined
  if (parsed === undefined || (parsed.protocol !== "http:" && parsed.protocol !== "https:")) {
    return Either.left("the address of an MCP endpoint, such as http://127.0.0.1:3000/mcp")
  }
  return parsed.username === "" && parsed.password === ""
    ? Either.right(parsed)
    : Either.left(
        "an address without a user and password: send them with --header 'Authorization: Basic ...'"
      )
}

/** `Name: value`; the value itself is never repeated, for it is often a secret. */
export const header: Reader<readonly [name: string, value: string]> = (text) => {
  const match = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*$/.exec(text)
  const [, name, value] = match ?? []
  if (name === undefined || value === undefined) return Either.left("a header such as 'Name: value'")
  return isReserved(name.toLowerCase())
    ? Either.left(`a header that is not the proxy's own affair, as ${name} is`)
    : Either.right([name.toLowerCase(), value])
}

/** `NAME=value`, for an environment; the value itself is never repeated, for it is often a secret. */
export const variable: Reader<readonly [name: string, value: string]> = (text) => {
  const [, name, value] = /^([^=\0]+)=([^\0]*)$/s.exec(text) ?? []
  return name === undefined || value === undefined
    ? Either.left("a variable such as NAME=value")
    : Either.right([name, value])
}

/** A folder that there is. */
export const folder: Reader<string> = (text) =>
  statSync(text, { throwIfNoEntry: false })?.isDirectory() === true
    ? Either.right(text)
    : Either.left("a folder that there is")

/** The name of a host, with a port or without. */
export const host: Reader<string> = (text) =>
  text === "*" || URL.canParse(`http://${text}`)
    ? Either.right(text)
    : Either.left("a host such as proxy.example.com, or * for all")

/** The origin of a web page. */
export const origin: Reader<string> = (text) =>
  text === "*" || (URL.canParse(text) && new URL(text).origin === text.toLowerCase())
    ? Either.right(text)
    : Either.left("an origin such as https://app.example.com, or * for all")

/** Where sessions are kept. */
export type Store = { readonly type: "memory" } | { readonly type: "sqlite"; readonly path: string }

export const store: Reader<Store> = (text) => {
  if (text === "memory") return Either.right({ type: "memory" })
  const path = /^sqlite:(.+)$/.exec(text)?.[1]
  return path === undefined
    ? Either.left("a place such as sqlite:PATH, or memory")
    : Either.right({ type: "sqlite", path })
}
