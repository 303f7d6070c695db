/** The revisions of MCP, their headers, and the features in which they differ. */
import { hasProperty } from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { Body, Message, RequestId } from "./JsonRpc.js"

/** The header that names a session (revisions 2025-03-26 to 2025-11-25, Transports, "Session Management"). */
export const SESSION_ID = "mcp-session-id"

/** The header that names the negotiated revision (since 2025-06-18, Transports, "Protocol Version Header"). */
export const PROTOCOL_VERSION = "mcp-protocol-version"

/**
 * The header that names the last event that a client has read (2025-11-25, Transports, "Resumability and Redelivery").
 */
export const LAST_EVENT_ID = "last-event-id"

/** The key in `params._meta` with which a request of 2026-07-28 or later claims its revision. */
export const PROTOCOL_VERSION_META = "io.modelcontextprotocol/protocolVersion"

/** The revisions in which `initialize` opens a session, oldest first. */
export const legacyRevisions: ReadonlyArray<string> = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]

/** Revisions up to 2025-11-25 have sessions (legacy); later ones have none (modern). */
export type Era = "legacy" | "modern"

const FIRST_MODERN = "2026-07-28"

/** True if a text names 2026-07-28 or a later revision, which have no sessions. */
export const isModernRevision = (revision: string): boolean =>
  revision >= FIRST_MODERN && /^\d{4}-\d{2}-\d{2}$/.test(revision)

/** True for 2025-03-26, and for 2024-11-05, which is treated like it over Streamable HTTP. */
export const hasBatches = (revision: string | undefined): boolean =>
  revision === "2024-11-05" || revision === "2025-03-26"

/** True if streams begin with an event that has an id and no data. Clients of older revisions fail on it. */
export const hasPrimingEvents = (revision: string): boolean => revision >= "2025-11-25"

/**
 * Returns the revision of 2026-07-28 or later that a message claims in its `_meta`. Ignores a claim that is empty,
 * malformed or legacy.
 */
export const modernClaim = (body: Body | undefined): string | undefined => {
  for (const message of body?.messages ?? []) {
    const claim = claimOf(message)
    if (typeof claim === "string" && isModernRevision(claim)) return claim
  }
  return undefined
}

const claimOf = ({ params }: Message): unknown =>
  hasProperty(params, "_meta") && hasProperty(params._meta, PROTOCOL_VERSION_META)
    ? params._meta[PROTOCOL_VERSION_META]
    : undefined

/** Returns the revision of a modern request. A claim in its body takes precedence over its header. */
export const requestedRevision = (version: string | undefined, body: Body | undefined): string | undefined =>
  modernClaim(body) ?? version

/** Returns the headers that repeat members of a modern request (2026-07-28, Transports, "Standard Headers"). */
export const modernHeaders = (body: Body): Readonly<Record<string, string>> => {
  const { method, params } = body.messages[0]
  const revision = modernClaim(body)
  const name = isNamed(params) ? params.name : isLocated(params) ? params.uri : undefined
  return {
    ...(revision === undefined ? {} : { [PROTOCOL_VERSION]: revision }),
    ...(method === undefined ? {} : { "mcp-method": method }),
    ...(name === undefined ? {} : { "mcp-name": headerValue(name) })
  }
}

const isNamed = Schema.is(Schema.Struct({ name: Schema.String }))

const isLocated = Schema.is(Schema.Struct({ uri: Schema.String }))

/** Encodes a value that a header cannot hold. */
const headerValue = (text: string): string =>
  /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text) && !text.startsWith("=?")
    ? text
    : `=?base64?${Buffer.from(text).toString("base64")}?=`

/** Makes the response to a request of an unsupported revision (2026-07-28, "Protocol Version Negotiation"). */
export const unsupportedRevision = (id: RequestId | undefined, requested: string | undefined): Message => ({
  jsonrpc: "2.0",
  id: id ?? null,
  error: {
    code: UNSUPPORTED_REVISION,
    message:
      "Unsupported protocol version: the upstream is a command and supports revisions with sessions only",
    data: { supported: legacyRevisions, requested }
  }
})

const UNSUPPORTED_REVISION = -32022
