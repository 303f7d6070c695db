/** The HTTP header fields that the proxy forwards in each direction. */
import type { Headers, MutableHeaders } from "../internal/headers.js"
import { SESSION_ID } from "../Protocol.js"

/** Fields that belong to one connection (RFC 9110, section 7.6.1) or to its framing. */
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

/** True if only the proxy may set this field in requests to the upstream. */
export const isReserved = (name: string): boolean => name !== "origin" && notToUpstream.has(name)

const notToClient = new Set([...hopByHop, SESSION_ID])

const isKeptFromUpstream = (name: string): boolean => notToUpstream.has(name)

const isKeptFromClient = (name: string): boolean =>
  notToClient.has(name) || name.startsWith("access-control-")

/**
 * Returns the fields for the upstream: the client's, without hop-by-hop fields, `Host`, `Origin` (already checked) and
 * the proxy's session id. `Accept-Encoding` becomes `identity`, because the proxy cannot split a compressed stream.
 * Fields in `added` come from the configuration and replace the client's.
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
 * Returns the fields for the client: the upstream's, without hop-by-hop fields and CORS grants. The proxy's session id
 * replaces the upstream's. The proxy adds CORS grants of its own.
 */
export const toClient = (headers: Headers, sessionId: string | undefined): MutableHeaders => {
  const out = copy(headers, isKeptFromClient)
  if (sessionId !== undefined) out[SESSION_ID] = sessionId
  return out
}

/** Adds the fields that keep intermediaries from buffering or changing an event stream. */
export const streaming = (headers: MutableHeaders): MutableHeaders => {
  headers["cache-control"] = "no-cache, no-transform"
  headers["x-accel-buffering"] = "no"
  // The proxy may add comments and events to the stream.
  if (headers["content-length"] !== undefined) delete headers["content-length"]
  return headers
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

/** Returns the names in `Connection`, which are hop-by-hop fields too. */
const connectionOptions = ({ connection }: Headers): ReadonlyArray<string> =>
  connection === undefined || connection === "keep-alive" || connection === "close"
    ? []
    : String(connection)
        .split(",")
        .map((option) => option.trim().toLowerCase())
