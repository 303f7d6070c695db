/**
 * What a proxy has to know of the Model Context Protocol: the names of its headers and revisions, the
 * JSON-RPC messages that it carries, and how to tell the two eras of the protocol apart.
 */
import { isUtf8 } from "node:buffer"
import * as Either from "effect/Either"
import { hasProperty } from "effect/Predicate"
import * as Schema from "effect/Schema"
import { asBuffer } from "./internal/bytes.js"
import { BadRequest } from "./ProxyError.js"

/** The header that names a session (revisions 2025-03-26 to 2025-11-25, Transports, "Session Management"). */
export const SESSION_ID = "mcp-session-id"

/** The header that names the negotiated revision (since 2025-06-18, Transports, "Protocol Version Header"). */
export const PROTOCOL_VERSION = "mcp-protocol-version"

/** The header that names the last event a client has read (2025-11-25, Transports, "Resumability and Redelivery"). */
export const LAST_EVENT_ID = "last-event-id"

/** The key in `params._meta` that marks a request of 2026-07-28 and later. */
export const PROTOCOL_VERSION_META = "io.modelcontextprotocol/protocolVersion"

/** The revisions whose sessions are opened by `initialize`, oldest first. */
export const legacyRevisions: ReadonlyArray<string> = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]

/** Whether a revision has batches: 2025-03-26 alone, and 2024-11-05, which over Streamable HTTP is treated like it. */
export const hasBatches = (revision: string | undefined): boolean =>
  revision === "2024-11-05" || revision === "2025-03-26"

/** Whether streams of a revision begin with an event that holds an id alone: older clients choke on it. */
export const hasPrimingEvents = (revision: string): boolean => revision >= "2025-11-25"

/** The id of a JSON-RPC request. Its type belongs to it: `1` and `"1"` are two ids. */
export const RequestId = Schema.Union(Schema.String, Schema.Number)
export type RequestId = typeof RequestId.Type

/** A JSON-RPC request, notification or response, of which only the envelope has been looked at. */
export interface Message {
  readonly jsonrpc: "2.0"
  readonly id?: RequestId | null
  readonly method?: string
  readonly params?: unknown
  readonly result?: unknown
  readonly error?: unknown
}

/** The body of a POST: one message, or several of them in a batch (2025-03-26 alone has batches). */
export interface Body {
  readonly isBatch: boolean
  readonly messages: readonly [Message, ...ReadonlyArray<Message>]
}

/** Written by hand, for every message of every client passes here, and a schema takes six times as long. */
const isMessage = (json: unknown): json is Message => {
  if (typeof json !== "object" || json === null || !("jsonrpc" in json) || json.jsonrpc !== "2.0")
    return false
  const id = "id" in json ? json.id : undefined
  if ("method" in json) return typeof json.method === "string" && (id === undefined || isRequestId(id))
  if ("result" in json) return isRequestId(id)
  // An error may belong to no request: its id is null, or left out since 2025-11-25.
  return "error" in json && (id === undefined || id === null || isRequestId(id))
}

const isRequestId = (id: unknown): id is RequestId => typeof id === "string" || typeof id === "number"

const isBatch = (json: unknown): json is [Message, ...Array<Message>] =>
  Array.isArray(json) && json.length > 0 && json.every(isMessage)

/** How many messages a batch may hold. */
const MAX_BATCH = 256

/** Reads the body of a POST, once. Fails with −32700 on what is not JSON, with −32600 on other JSON. */
export const parseBody = (bytes: Uint8Array): Either.Either<Body, BadRequest> => {
  const json = parseJson(bytes)
  if (json === undefined) return Either.left(new BadRequest({ reason: "NotJson" }))
  const body = bodyOf(json)
  if (body === undefined) return Either.left(new BadRequest({ reason: "NotJsonRpc" }))
  return body.messages.length > MAX_BATCH
    ? Either.left(new BadRequest({ reason: "BatchTooLarge" }))
    : Either.right(body)
}

/** Reads the messages of an answer, or of an SSE event; none when it holds something else. */
export const parseMessages = (json: string | Uint8Array): ReadonlyArray<Message> =>
  bodyOf(parseJson(json))?.messages ?? []

const bodyOf = (json: unknown): Body | undefined => {
  if (isMessage(json)) return { isBatch: false, messages: [json] }
  return isBatch(json) ? { isBatch: true, messages: json } : undefined
}

const parseJson = (json: string | Uint8Array): unknown => {
  try {
    if (typeof json === "string") return JSON.parse(json)
    return isUtf8(json) ? JSON.parse(asBuffer(json).toString()) : undefined
  } catch {
    return undefined
  }
}

/** The ids of the requests in a body; notifications and responses have none that could be answered. */
export const requestIds = (body: Body): ReadonlyArray<RequestId> => {
  const ids: Array<RequestId> = []
  for (const { id, method } of body.messages) {
    if (method !== undefined && id !== undefined && id !== null) ids.push(id)
  }
  return ids
}

/** The id of the first request in a body. */
export const requestId = (body: Body | undefined): RequestId | undefined =>
  body === undefined ? undefined : requestIds(body)[0]

/** Whether a body is a lone `initialize`; it is never part of a batch (2025-03-26, Lifecycle). */
export const isInitialize = (body: Body): boolean =>
  !body.isBatch && body.messages[0].method === "initialize" && body.messages[0].id !== undefined

/** What `initialize` settles between client and server; only what the proxy needs is looked at. */
export const InitializeResult = Schema.Struct({
  protocolVersion: Schema.String,
  capabilities: Schema.optional(Schema.Unknown)
})
export type InitializeResult = typeof InitializeResult.Type

/** Reads the result out of the answer to `initialize`. */
export const isInitializeResult = Schema.is(InitializeResult)

/** The methods that clients use, of all revisions. */
const methods: ReadonlySet<string> = new Set([
  "initialize",
  "ping",
  "server/discover",
  "tools/list",
  "tools/call",
  "resources/list",
  "resources/templates/list",
  "resources/read",
  "resources/subscribe",
  "resources/unsubscribe",
  "subscriptions/listen",
  "prompts/list",
  "prompts/get",
  "completion/complete",
  "logging/setLevel",
  "tasks/get",
  "tasks/list",
  "tasks/result",
  "tasks/cancel",
  "notifications/initialized",
  "notifications/cancelled",
  "notifications/progress",
  "notifications/roots/list_changed"
])

/**
 * What a request is counted under: its method if that is one of the protocol's, else `other`; `response`, `batch`,
 * or `GET` for a stream. Thus a bounded number of names, whatever clients send.
 */
export const methodLabel = (body: Body | undefined): string => {
  if (body === undefined) return "GET"
  if (body.isBatch) return "batch"
  const { method } = body.messages[0]
  if (method === undefined) return "response"
  return methods.has(method) ? method : "other"
}

const CANCELLED = "notifications/cancelled"

const isCancelledParams = Schema.is(Schema.Struct({ requestId: RequestId }))

/** The request that a `notifications/cancelled` names; `undefined` for every other message. */
export const cancelledRequestId = ({ method, params }: Message): RequestId | undefined =>
  method === CANCELLED && isCancelledParams(params) ? params.requestId : undefined

/** A `notifications/cancelled` that the proxy itself sends. */
export const cancelledNotification = (requestId: RequestId, reason: string): Message => ({
  jsonrpc: "2.0",
  method: CANCELLED,
  params: { requestId, reason }
})

/** What a client is told when its server has begun a new session (2025-11-25, Logging). */
export const sessionRestartedNotification: Message = {
  jsonrpc: "2.0",
  method: "notifications/message",
  params: {
    level: "warning",
    logger: "shadowcat",
    data: "The server has lost this session and begun a new one: what it held in memory is gone"
  }
}

/** (2025-11-25, Tools, "List Changed Notification") */
export const toolsChangedNotification: Message = {
  jsonrpc: "2.0",
  method: "notifications/tools/list_changed"
}

const isProgressParams = Schema.is(Schema.Struct({ progressToken: RequestId }))

const isMarked = Schema.is(Schema.Struct({ _meta: Schema.Struct({ progressToken: RequestId }) }))

/** The token under which a `notifications/progress` reports. */
export const progressToken = ({ method, params }: Message): RequestId | undefined =>
  method === "notifications/progress" && isProgressParams(params) ? params.progressToken : undefined

/** The tokens under which the requests in a body want to hear of their progress. */
export const progressTokens = (body: Body): ReadonlyArray<RequestId> =>
  body.messages.flatMap(({ params }) => (isMarked(params) ? [params._meta.progressToken] : []))

/**
 * Whether a request is of 2026-07-28 or later and so stands alone, without a session: its header names no
 * legacy revision, or its `_meta` carries the revision. This beats the method `initialize` and any session id.
 */
export const isModern = (version: string | undefined, body: Body | undefined): boolean =>
  (version !== undefined && !legacyRevisions.includes(version)) ||
  (body !== undefined && body.messages.some(carriesRevision))

/** The header fields that repeat what a request of 2026-07-28 or later says (Transports, "Standard Headers"). */
export const modernHeaders = (body: Body): Readonly<Record<string, string>> => {
  const { method, params } = body.messages[0]
  const revision = requestedRevision(undefined, body)
  const name = isNamed(params) ? params.name : isLocated(params) ? params.uri : undefined
  return {
    ...(revision === undefined ? {} : { [PROTOCOL_VERSION]: revision }),
    ...(method === undefined ? {} : { "mcp-method": method }),
    ...(name === undefined ? {} : { "mcp-name": headerValue(name) })
  }
}

const isNamed = Schema.is(Schema.Struct({ name: Schema.String }))

const isLocated = Schema.is(Schema.Struct({ uri: Schema.String }))

/** What a header cannot hold as it is goes encoded. */
const headerValue = (text: string): string =>
  /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text) && !text.startsWith("=?")
    ? text
    : `=?base64?${Buffer.from(text).toString("base64")}?=`

/** The revision that a request of 2026-07-28 or later names: a mark in its body beats a legacy header. */
export const requestedRevision = (version: string | undefined, body: Body | undefined): string | undefined =>
  body?.messages.map(({ params }) =>
    isVersioned(params) ? params._meta[PROTOCOL_VERSION_META] : undefined
  )[0] ?? version

const isVersioned = Schema.is(
  Schema.Struct({ _meta: Schema.Struct({ [PROTOCOL_VERSION_META]: Schema.String }) })
)

/** The answer to a request of a revision that is not spoken here (2026-07-28, "Protocol Version Negotiation"). */
export const unsupportedRevision = (id: RequestId | undefined, requested: string | undefined): Message => ({
  jsonrpc: "2.0",
  id: id ?? null,
  error: {
    code: UNSUPPORTED_REVISION,
    message: "Unsupported protocol version: the upstream is a command, which speaks revisions with sessions",
    data: { supported: legacyRevisions, requested }
  }
})

const UNSUPPORTED_REVISION = -32022

/** Whether a revision is one without sessions, as far as its name tells. */
export const isWithoutSessions = (version: string): boolean =>
  /^\d{4}-\d{2}-\d{2}$/.test(version) && version >= "2026-07-28"

const carriesRevision = ({ params }: Message): boolean =>
  hasProperty(params, "_meta") && hasProperty(params._meta, PROTOCOL_VERSION_META)
