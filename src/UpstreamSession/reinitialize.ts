/** Opens another session at an upstream that has lost one. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { isTransient } from "../internal/backoff.js"
import type { Deadlines } from "../internal/deadlines.js"
import type { Headers } from "../internal/headers.js"
import { type Message, parseMessages, PROTOCOL_VERSION } from "../Protocol.js"
import { type LimitReached, UpstreamError } from "../ProxyError.js"
import { ignoreAnswer, type Lease } from "../Upstream.js"
import { relayInitialize } from "./Initialize.js"
import type { Negotiated } from "./Negotiated.js"
import { request, requestFor } from "./request.js"

/** The parameters of the new session. */
export interface ReinitializeOptions {
  /** The upstream's name. */
  readonly upstream: string
  readonly negotiated: Negotiated
  /** The client's latest credentials, as header fields. */
  readonly credentials: Headers
  readonly deadlines: Deadlines
}

/** The maximum time of the whole handshake. */
const TIMEOUT = Duration.seconds(60)

/**
 * Sends the client's own `initialize` and restores the log level and the subscriptions that the client has set since.
 * Fails with `Incompatible` if the server now negotiates another revision or lacks a capability that it had.
 */
export const reinitialize = (
  lease: Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope>,
  options: ReinitializeOptions
): Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope> =>
  Effect.gen(function* () {
    const fresh = yield* lease
    yield* initialize(fresh, options)
    const { credentials, negotiated } = options
    const headers = { ...credentials, [PROTOCOL_VERSION]: negotiated.protocolVersion }
    yield* request(fresh, { jsonrpc: "2.0", method: "notifications/initialized" }, headers)
    for (const message of settings(negotiated)) yield* request(fresh, message, headers)
    return fresh
  }).pipe(
    Effect.timeoutFail({
      duration: TIMEOUT,
      onTimeout: () => new UpstreamError({ reason: "Stalled", upstream: options.upstream })
    })
  )

const initialize = (
  lease: Lease,
  { credentials, deadlines, negotiated }: ReinitializeOptions
): Effect.Effect<void, UpstreamError> =>
  Effect.gen(function* () {
    const text = `{"jsonrpc":"2.0","id":"shadowcat/initialize","method":"initialize","params":${negotiated.initialize}}`
    const [message] = parseMessages(text)
    if (message === undefined)
      return yield* new UpstreamError({ reason: "Unsupported", upstream: lease.name })
    const held = yield* relayInitialize(
      lease,
      { ...requestFor(message, credentials), bytes: Buffer.from(text) },
      deadlines
    )
    let status = 0
    held.finish({ ...ignoreAnswer, head: (received) => (status = received) })
    if (held.result === undefined) {
      return yield* new UpstreamError({
        reason: isTransient(status) ? "HttpError" : "InitializeRefused",
        upstream: lease.name,
        detail: `${status}`
      })
    }
    const { capabilities, protocolVersion } = held.result
    if (protocolVersion !== negotiated.protocolVersion || !negotiated.isSatisfiedBy(capabilities)) {
      return yield* new UpstreamError({ reason: "Incompatible", upstream: lease.name })
    }
  })

/** Returns the requests that restore the client's log level and subscriptions. */
const settings = ({ logLevel, subscriptions }: Negotiated): ReadonlyArray<Message> => [
  ...(logLevel === undefined ? [] : [requestMessage("logging/setLevel", { level: logLevel })]),
  ...subscriptions.map((uri) => requestMessage("resources/subscribe", { uri }))
]

const requestMessage = (method: string, params: object): Message => ({
  jsonrpc: "2.0",
  id: `shadowcat/${method}`,
  method,
  params
})
