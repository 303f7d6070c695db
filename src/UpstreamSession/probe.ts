/** Checks if an upstream still knows a session. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { isTransient } from "../internal/backoff.js"
import type { Headers } from "../internal/headers.js"
import { parseMessages } from "../Protocol.js"
import type { Lease } from "../Upstream.js"
import { type Reply, request } from "./request.js"

/** The result of a probe. */
export type ProbeResult =
  | { readonly type: "known" }
  /** The upstream did not answer, or cannot answer now. */
  | { readonly type: "silent" }
  /** The refusal that the upstream returns for every message of an unknown session. */
  | { readonly type: "unknown"; readonly denial: string | undefined }

/** Sends a `ping` in the session, which every server answers (2025-11-25, Ping). */
export const probe = (lease: Lease, headers: Headers): Effect.Effect<ProbeResult> =>
  request(lease, { jsonrpc: "2.0", id: "shadowcat/ping", method: "ping" }, headers).pipe(
    Effect.map(resultOf),
    Effect.orElseSucceed((): ProbeResult => ({ type: "silent" }))
  )

const resultOf = ({ body, status }: Reply): ProbeResult => {
  if (isTransient(status)) return { type: "silent" }
  return status === 404 || (status === 400 && mayDenySession(body))
    ? { type: "unknown", denial: denialOf(status, body) }
    : { type: "known" }
}

/**
 * True if a 400 may mean that the session is unknown. For an unknown session, some servers return the general code
 * -32000 or a body without JSON-RPC.
 */
export const mayDenySession = (body: Uint8Array): boolean => {
  const error = errorIn(body)
  return error === undefined || error.code === SERVER_ERROR
}

/** Encodes a refusal without the id of its request, so that two refusals can be compared. */
export const denialOf = (status: number, body: Uint8Array): string => {
  const error = errorIn(body)
  return JSON.stringify([status, error?.code, error?.message])
}

const isRpcError = Schema.is(Schema.Struct({ code: Schema.Number, message: Schema.String }))

const errorIn = (body: Uint8Array) => {
  const error = parseMessages(body).find(({ method }) => method === undefined)?.error
  return isRpcError(error) ? error : undefined
}

const SERVER_ERROR = -32000
