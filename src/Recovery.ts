/** A new session at an upstream that has lost the old one, and how to tell whether it has. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Agreement } from "./Agreement.js"
import { relay } from "./Initialize.js"
import { ask, type Reply } from "./Inquiry.js"
import type { Deadlines } from "./internal/deadlines.js"
import type { Headers } from "./internal/headers.js"
import { type Message, parseMessages } from "./Protocol.js"
import { type LimitReached, UpstreamError } from "./ProxyError.js"
import type { Lease, Sink } from "./Upstream.js"
import type { UpstreamPool } from "./UpstreamPool.js"

/** Whether an upstream knows a session; nobody can say of one that does not answer. */
export type Knowledge = "known" | "unknown" | "silent"

/** Asks the upstream with a `ping` on that session, which every server answers (2025-11-25, Ping). */
export const probe = (lease: Lease): Effect.Effect<Knowledge> =>
  ask(lease, { jsonrpc: "2.0", id: "shadowcat/ping", method: "ping" }).pipe(
    Effect.map(knowledge),
    Effect.orElseSucceed(() => "silent" as const)
  )

const knowledge = ({ response, status }: Reply): Knowledge => {
  if (status >= 500) return "silent"
  return status === 404 || (status === 400 && deniesSession(response)) ? "unknown" : "known"
}

/** Some servers deny a session with a 400, as an error that says nothing else, or without any. */
export const deniesSession = (response: Message | undefined): boolean => {
  const error = response?.error
  return typeof error !== "object" || error === null || ("code" in error && error.code === SERVER_ERROR)
}

/** The same, of the body of an answer. */
export const bodyDeniesSession = (body: Uint8Array): boolean =>
  deniesSession(parseMessages(body).find(({ method }) => method === undefined))

const SERVER_ERROR = -32000

/** What a recovery needs to know. */
export interface Lost {
  readonly pool: UpstreamPool["Type"]
  readonly agreement: Agreement
  /** The client's latest credentials. */
  readonly credentials: Headers
  readonly deadlines: Deadlines
}

/**
 * Opens a session at the upstream in the client's name, as the client did, and settles again what the client has settled
 * since. Fails with `Changed` when the server no longer agrees to what it once did.
 */
export const renew = (lost: Lost): Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope> =>
  Effect.gen(function* () {
    const { agreement, pool } = lost
    const lease = yield* pool.lease
    yield* initialize(lease, lost)
    lease.negotiated(agreement.protocolVersion)
    yield* ask(lease, { jsonrpc: "2.0", method: "notifications/initialized" })
    for (const message of settled(agreement)) yield* ask(lease, message)
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
        reason: status >= 500 ? "Rejected" : "Refused",
        upstream: lease.name,
        detail: `${status}`
      })
    }
    const { capabilities, protocolVersion } = held.result
    if (protocolVersion !== agreement.protocolVersion || !agreement.holds(capabilities)) {
      return yield* new UpstreamError({ reason: "Changed", upstream: lease.name })
    }
  })

const nobody: Sink = { head: () => {}, data: () => {}, end: () => {}, error: () => {} }

const settled = ({ logLevel, subscriptions }: Agreement): ReadonlyArray<Message> => [
  ...(logLevel === undefined ? [] : [request("logging/setLevel", { level: logLevel })]),
  ...subscriptions.map((uri) => request("resources/subscribe", { uri }))
]

const request = (method: string, params: object): Message => ({
  jsonrpc: "2.0",
  id: `shadowcat/${method}`,
  method,
  params
})
