/** Which HTTP fields cross the proxy, in each direction. */
import { SESSION_ID } from "../Protocol.js"

/** HTTP fields by their name in lower case. A field that came several times may be a list. */
export type Headers = Readonly<Record<string, string | Array<string> | undefined>>

/** Fields under construction. */
export type MutableHeaders = Record<string, string | Array<string>>

/** RFC 9110, section 7.6.1, and what belongs to the framing of one connection. */
const hopByHop = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade"
]

const notToUpstream = new Set([
  ...hopByHop,
  "host",
  "origin",
  "accept-encoding",
  "content-length",
  "expect",
  SESSION_ID
])

/** Whether a field of requests to the upstream is set by the proxy alone. */
export const isOfProxy = (name: string): boolean => name !== "origin" && notToUpstream.has(name)

const notToClient = new Set([...hopByHop, SESSION_ID])

const isKeptFromUpstream = (name: string): boolean => notToUpstream.has(name)

const isKeptFromClient = (name: string): boolean =>
  notToClient.has(name) || name.startsWith("access-control-")

/**
 * The fields for the upstream: those of the client but hop-by-hop ones, `Host`, `Origin` (checked already) and
 * the proxy's session id. `Accept-Encoding` is `identity`, for the frames of a compressed stream cannot be told.
 * `added` comes from the configuration and wins.
 */
export const toUpstream = (
  headers: Headers,
  sessionId: string | undefined,
  added: Headers
): MutableHeaders => {
  const out = copy(headers, isKeptFromUpstream)
  out["accept-encoding"] = "identity"
  if (sessionId !== undefined) out[SESSION_ID] = sessionId
  for (const name in added) {
    const value = added[name]
    if (value !== undefined) out[name] = value
  }
  return out
}

/**
 * The fields for the client: those of the upstream but hop-by-hop ones, its session id, which is replaced by
 * the proxy's, and its CORS grants, for the proxy makes its own.
 */
export const toClient = (headers: Headers, sessionId: string | undefined): MutableHeaders => {
  const out = copy(headers, isKeptFromClient)
  if (sessionId !== undefined) out[SESSION_ID] = sessionId
  return out
}

const copy = (headers: Headers, drops: (name: string) => boolean): MutableHeaders => {
  const out: MutableHeaders = {}
  const options = connectionOptions(headers)
  for (const name in headers) {
    const value = headers[name]
    if (value !== undefined && !drops(name) && !options.includes(name)) out[name] = value
  }
  return out
}

/** The fields that `Connection` names are hop-by-hop too. */
const connectionOptions = ({ connection }: Headers): ReadonlyArray<string> =>
  connection === undefined || connection === "keep-alive" || connection === "close"
    ? []
    : String(connection)
        .split(",")
        .map((option) => option.trim().toLowerCase())

/** The first value of a field. */
export const first = (headers: Headers, name: string): string | undefined => {
  const value = headers[name]
  return typeof value === "object" ? value[0] : value
}

/** The media type of a `Content-Type` in lower case, without its parameters. */
export const mediaType = (headers: Headers): string | undefined =>
  first(headers, "content-type")?.split(";", 1)[0]?.trim().toLowerCase()

/** Whether the body is of this media type, and as it stands: not compressed. */
export const isReadable = (headers: Headers, type: string): boolean =>
  hasType(headers, type) && (first(headers, "content-encoding") ?? "identity") === "identity"

/** Whether the body is of this media type, whatever its parameters. */
export const hasType = (headers: Headers, type: string): boolean => {
  const given = first(headers, "content-type")
  if (given === type) return true
  // Most others are told by their length alone.
  return given !== undefined && given.length >= type.length && mediaType(headers) === type
}

/** Keeps what stands between the proxy and the client from holding events back or changing them. */
export const streaming = (headers: MutableHeaders): MutableHeaders => {
  headers["cache-control"] = "no-cache, no-transform"
  headers["x-accel-buffering"] = "no"
  // Something may be added to the stream.
  if (headers["content-length"] !== undefined) delete headers["content-length"]
  return headers
}
