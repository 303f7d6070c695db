/** A new session at an upstream that has lost the old one, and how to tell whether it has. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Negotiated } from "./Negotiated.js"
import { relay } from "./Initialize.js"
import { request, type Reply } from "./request.js"
import type { Deadlines } from "../internal/deadlines.js"
import type { Headers } from "../internal/headers.js"
import { isTransient } from "../internal/backoff.js"
import { type Message, parseMessages } from "../Protocol.js"
import { type LimitReached, UpstreamError } from "../ProxyError.js"
import type { Lease, Sink } from "../Upstream.js"
import type { UpstreamPool } from "../UpstreamPool.js"

/** What an upstream says of a session; nobody can say of one that does not answer. */
export type Knowledge =
  | { readonly type: "known" }
  | { readonly type: "silent" }
  /** In these words, which it has for every message that names the session. */
  | { readonly type: "unknown"; readonly denial: string | undefined }

/** Asks the upstream with a `ping` on that session, which every server answers (2025-11-25, Ping). */
export const probe = (lease: Lease): Effect.Effect<Knowledge> =>
  request(lease, { jsonrpc: "2.0", id: "shadowcat/ping", method: "ping" }).pipe(
    Effect.map(knowledge),
    Effect.orElseSucceed((): Knowledge => ({ type: "silent" }))
  )

const knowledge = ({ body, status }: Reply): Knowledge => {
  if (isTransient(status)) return { type: "silent" }
  return status === 404 || (status === 400 && deniesSession(body))
    ? { type: "unknown", denial: denialOf(status, body) }
    : { type: "known" }
}

/** Whether a 400 may deny a session: some servers have no more to say to that than -32000, or no JSON-RPC at all. */
export const deniesSession = (body: Uint8Array): boolean => {
  const error = errorIn(body)
  return error === undefined || error.code === SERVER_ERROR
}

/** What a refusal says, apart from which request it refuses. */
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

/** What a recovery needs to know. */
export interface Lost {
  readonly pool: UpstreamPool["Type"]
  readonly agreement: Negotiated
  /** The client's latest credentials. */
  readonly credentials: Headers
  readonly deadlines: Deadlines
}

/**
 * Opens a session at the upstream in the client's name, as the client did, and settles again what the client has settled
 * since. Fails with `Changed` when the server no longer agrees to what it once did.
 */
export const renew = (lost: Lost): Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope> =>
  Effect.timeoutFail(renewal(lost), {
    duration: PATIENCE,
    onTimeout: () => new UpstreamError({ reason: "Stalled", upstream: lost.pool.name })
  })

/** How long that may take in all. */
const PATIENCE = Duration.seconds(60)

const renewal = (lost: Lost): Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope> =>
  Effect.gen(function* () {
    const { agreement, pool } = lost
    const lease = yield* pool.lease
    yield* initialize(lease, lost)
    lease.negotiated(agreement.protocolVersion)
    yield* request(lease, { jsonrpc: "2.0", method: "notifications/initialized" })
    for (const message of settled(agreement)) yield* request(lease, message)
    return lease
  })

const initialize = (
  lease: Lease,
  { agreement, credentials, deadlines }: Lost
): Effect.Effect<void, UpstreamError> =>
  Effect.gen(function* () {
    const text = `{"jsonrpc":"2.0","id":"shadowcat/initialize","method":"initialize","params":${agreement.initialize}}`
    const [message] = parseMessages(text)
    if (message === undefined) return yield* new UpstreamError({ reason: "NotAsked", upstream: lease.name })
    const headers = {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      ...credentials
    }
    const body = { isBatch: false, messages: [message] } as const
    const held = yield* relay(lease, { method: "POST", headers, bytes: Buffer.from(text), body }, deadlines)
    let status = 0
    held.finish({ ...nobody, head: (told) => (status = told) })
    if (held.result === undefined) {
      return yield* new UpstreamError({
        reason: isTransient(status) ? "Rejected" : "Refused",
        upstream: lease.name,
        detail: `${status}`
      })
    }
    const { capabilities, protocolVersion } = held.result
    if (protocolVersion !== agreement.protocolVersion || !agreement.holds(capabilities)) {
      return yield* new UpstreamError({ reason: "Changed", upstream: lease.name })
    }
  })

/** An upstream that has ended before its session was of any use. */
export const endedEarly = (lease: Lease): UpstreamError =>
  new UpstreamError({ reason: "Gone", upstream: lease.name })

const nobody: Sink = { head: () => {}, data: () => {}, end: () => {}, error: () => {} }

const settled = ({ logLevel, subscriptions }: Negotiated): ReadonlyArray<Message> => [
  ...(logLevel === undefined ? [] : [message("logging/setLevel", { level: logLevel })]),
  ...subscriptions.map((uri) => message("resources/subscribe", { uri }))
]

const message = (method: string, params: object): Message => ({
  jsonrpc: "2.0",
  id: `shadowcat/${method}`,
  method,
  params
})
