/** The MCP messages that the proxy reads or sends itself. */
import * as Schema from "effect/Schema"
import { type Body, type Message, RequestId } from "./JsonRpc.js"

/** True if a body is a single `initialize` request. It is never part of a batch (2025-03-26, Lifecycle). */
export const isInitialize = (body: Body): boolean =>
  !body.isBatch && body.messages[0].method === "initialize" && body.messages[0].id !== undefined

/** The result of `initialize`, reduced to the members that the proxy needs. */
export const InitializeResult = Schema.Struct({
  protocolVersion: Schema.String,
  capabilities: Schema.optional(Schema.Unknown)
})
export type InitializeResult = typeof InitializeResult.Type

/** True for a result of `initialize`. */
export const isInitializeResult = Schema.is(InitializeResult)

/** The methods of clients, of all revisions. */
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
 * Returns the metric label of a request: its method if MCP defines it, else `other`; `response` or `batch`; `GET` for a
 * stream. The number of labels is limited.
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

/** Returns the id in a `notifications/cancelled`; `undefined` for other messages. */
export const cancelledRequestId = ({ method, params }: Message): RequestId | undefined =>
  method === CANCELLED && isCancelledParams(params) ? params.requestId : undefined

/** Makes a `notifications/cancelled` from the proxy. */
export const cancelledNotification = (requestId: RequestId, reason: string): Message => ({
  jsonrpc: "2.0",
  method: CANCELLED,
  params: { requestId, reason }
})

/** The warning for clients after a failover (2025-11-25, Logging). */
export const sessionRestartedNotification: Message = {
  jsonrpc: "2.0",
  method: "notifications/message",
  params: {
    level: "warning",
    logger: "shadowcat",
    data: "The server lost this session and opened a new one: its in-memory state is gone"
  }
}

/** The notification after a failover to a server with other tools (2025-11-25, Tools, "List Changed Notification"). */
export const toolsChangedNotification: Message = {
  jsonrpc: "2.0",
  method: "notifications/tools/list_changed"
}

const isProgressParams = Schema.is(Schema.Struct({ progressToken: RequestId }))

const hasProgressToken = Schema.is(Schema.Struct({ _meta: Schema.Struct({ progressToken: RequestId }) }))

/** Returns the token in a `notifications/progress`; `undefined` for other messages. */
export const progressToken = ({ method, params }: Message): RequestId | undefined =>
  method === "notifications/progress" && isProgressParams(params) ? params.progressToken : undefined

/** Returns the progress tokens of the requests in a body. */
export const progressTokens = (body: Body): ReadonlyArray<RequestId> =>
  body.messages.flatMap(({ params }) => (hasProgressToken(params) ? [params._meta.progressToken] : []))
