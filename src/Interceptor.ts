/** Interceptors between the clients and the upstreams. They change, answer, delay or observe messages. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Era } from "./Protocol.js"
import type { Upstream } from "./Upstream.js"

export type { Era } from "./Protocol.js"
export { MessageDecorator } from "./Interceptor/MessageDecorator.js"
export { nothingToAbort, respond, withMessages } from "./Upstream.js"
export { SinkDecorator } from "./Upstream/SinkDecorator.js"

/** The origin and the destination of the messages that pass an interceptor. */
export interface InterceptorContext {
  /** The session's handle, as logs and lists show it; `undefined` for a request without a session. */
  readonly session: string | undefined
  /** The client's address. */
  readonly client: string
  /** The upstream's name. */
  readonly upstream: string
  readonly era: Era
  /** The negotiated revision; `undefined` before `initialize` is answered and for a request without a session. */
  readonly revision: () => string | undefined
}

/**
 * Wraps an upstream. The proxy calls the function when a session opens or is restored, and for each request without a
 * session. The returned upstream may read rules and limits that change later.
 *
 * Each message of a client passes once, before the proxy sends or retries it. Each message of the server passes once,
 * after repeated events are dropped and before its event is stored for replay. The proxy's own messages do not pass:
 * `ping`, the `initialize` and `notifications/initialized` of a failover, the `notifications/cancelled` of a time
 * limit, the GETs that resume a broken stream, and DELETE.
 *
 * - Keep the name of `next`: logs and errors show it.
 * - To see or change answers, wrap the sink in a `SinkDecorator` or a `MessageDecorator`.
 * - To change a message of the client, change `bytes` and `body` together; `withMessages` does so.
 * - To answer a request, call `respond` on its sink, and return `nothingToAbort`.
 * - To hold a request and send it later, return an `Abort` from `exchange` that drops the request. The proxy calls it
 *   at a shutdown, at the end of the session, and, without a session, when the client disconnects. In a session a
 *   disconnect aborts nothing. A cancellation is a separate message, `notifications/cancelled`; the abort follows 5 s
 *   later. A cancelled request must not be sent, and needs no answer.
 * - A GET carries no message. A GET with `continues` is the proxy's own: it continues a stream whose messages must
 *   pass. Pass it to `next` unchanged.
 */
export type Interceptor = (next: Upstream, context: InterceptorContext) => Upstream

/** The interceptors of a proxy, outermost first. Default: none, which adds no cost to an exchange. */
export class Interceptors extends Context.Reference<Interceptors>()("shadowcat/Interceptors", {
  defaultValue: (): ReadonlyArray<Interceptor> => []
}) {}

/** Adds interceptors inside the existing ones. */
export const layer = (...interceptors: ReadonlyArray<Interceptor>): Layer.Layer<Interceptors> =>
  Layer.effect(
    Interceptors,
    Effect.map(Interceptors, (outer) => [...outer, ...interceptors])
  )

/** Wraps an upstream in interceptors. Without any, returns the upstream itself. */
export const intercept = (
  interceptors: ReadonlyArray<Interceptor>,
  upstream: Upstream,
  context: InterceptorContext
): Upstream => interceptors.reduceRight((next, interceptor) => interceptor(next, context), upstream)
