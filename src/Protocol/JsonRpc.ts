/** JSON-RPC 2.0 messages, and their parser. */
import { isUtf8 } from "node:buffer"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { asBuffer } from "../internal/bytes.js"
import { BadRequest } from "../ProxyError.js"

/** The id of a JSON-RPC request. The ids `1` and `"1"` differ. */
export const RequestId = Schema.Union(Schema.String, Schema.Number)
export type RequestId = typeof RequestId.Type

/** A JSON-RPC request, notification or response. Only its envelope is validated. */
export interface Message {
  readonly jsonrpc: "2.0"
  readonly id?: RequestId | null
  readonly method?: string
  readonly params?: unknown
  readonly result?: unknown
  readonly error?: unknown
}

/** The body of a POST: one message or a batch (only 2025-03-26 has batches). */
export interface Body {
  readonly isBatch: boolean
  readonly messages: readonly [Message, ...ReadonlyArray<Message>]
}

/** True for a JSON-RPC message. A schema would take six times as long for each message of a client. */
const isMessage = (json: unknown): json is Message => {
  if (typeof json !== "object" || json === null || !("jsonrpc" in json) || json.jsonrpc !== "2.0")
    return false
  const id = "id" in json ? json.id : undefined
  if ("method" in json) return typeof json.method === "string" && (id === undefined || isRequestId(id))
  if ("result" in json) return isRequestId(id)
  // An error without a request has the id null, or no id since 2025-11-25.
  return "error" in json && (id === undefined || id === null || isRequestId(id))
}

const isRequestId = (id: unknown): id is RequestId => typeof id === "string" || typeof id === "number"

const isBatch = (json: unknown): json is [Message, ...Array<Message>] =>
  Array.isArray(json) && json.length > 0 && json.every(isMessage)

/** The maximum number of messages in a batch. */
const MAX_BATCH = 256

/** Parses the body of a POST. Fails with −32700 if it is not JSON, and with −32600 if it is not JSON-RPC. */
export const parseBody = (bytes: Uint8Array): Either.Either<Body, BadRequest> => {
  const json = parseJson(bytes)
  if (json === undefined) return Either.left(new BadRequest({ reason: "NotJson" }))
  const body = bodyOf(json)
  if (body === undefined) return Either.left(new BadRequest({ reason: "NotJsonRpc" }))
  return body.messages.length > MAX_BATCH
    ? Either.left(new BadRequest({ reason: "BatchTooLarge" }))
    : Either.right(body)
}

/** Parses the messages of a response or of an SSE event. Returns none if it is not JSON-RPC. */
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

/** Returns the ids of the requests in a body. */
export const requestIds = (body: Body): ReadonlyArray<RequestId> => {
  const ids: Array<RequestId> = []
  for (const { id, method } of body.messages) {
    if (method !== undefined && id !== undefined && id !== null) ids.push(id)
  }
  return ids
}

/** Returns the id of the first request in a body. */
export const requestId = (body: Body | undefined): RequestId | undefined =>
  body === undefined ? undefined : requestIds(body)[0]
