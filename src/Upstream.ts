/**
 * The seam between what clients speak to and what servers are: whoever holds a lease of an upstream sends it
 * a request and is told the answer through a sink, in callbacks. HTTP and stdio upstreams feed it; the fronts
 * and the logs of streams are its sinks. No fiber runs for an exchange.
 */
import * as Exit from "effect/Exit"
import type { Headers } from "./internal/headers.js"
import type * as Protocol from "./Protocol.js"
import type { UpstreamError } from "./ProxyError.js"

/** What a client sends: a POST with its body, or the GET of a stream. */
export interface Request {
  readonly method: "POST" | "GET"
  /** As the client sent them: the upstream leaves out what is not to be forwarded. */
  readonly headers: Headers
  /** The body as it came, kept whole for another try. */
  readonly bytes: Uint8Array | undefined
  /** The same body, read; `undefined` for a GET, and for a body that the proxy need not understand. */
  readonly body: Protocol.Body | undefined
}

/** Back-pressure: stops and restarts the data of one answer. */
export interface Flow {
  readonly pause: () => void
  readonly unpause: () => void
  /** Whether other answers wait as well while it is paused. */
  readonly isShared?: boolean
}

/** The flow of what is there already, and cannot be stopped. */
export const noFlow: Flow = { pause: () => {}, unpause: () => {} }

/**
 * Receives one answer: `head` once, `data` any number of times, then `end`; or `error` at any point, which is
 * the last call. Nothing is called after an abort.
 */
export interface Sink {
  readonly head: (status: number, headers: Headers, flow: Flow) => void
  readonly data: (chunk: Uint8Array) => void
  readonly end: () => void
  readonly error: (error: UpstreamError) => void
}

/** Gives up an exchange: its connection is closed, its sink hears nothing more. Harmless when repeated. */
export type Abort = () => void

/** Whatever can be asked. */
export interface Upstream {
  /** The address, without anything secret, as shown in logs, errors and session records. */
  readonly name: string
  /** Sends a request. The sink may be called before this returns. */
  readonly exchange: (request: Request, sink: Sink) => Abort
}

/** What one client session holds of an upstream, until its scope closes. */
export interface Lease extends Upstream {
  /** Sends a message of the proxy's own within the session, as the client would send it. */
  readonly send: (message: Protocol.Message, sink: Sink) => Abort
  /**
   * Goes on with a stream that has broken, behind the event with this id; without one, opens the standalone stream
   * anew (2025-11-25, Transports, "Resumability and Redelivery").
   */
  readonly resume: (lastEventId: string | undefined, sink: Sink) => Abort
  /** The id that the upstream gave its session, once `initialize` is answered; some give none. */
  readonly sessionId: () => string | undefined
  /** The revision that `initialize` settled; requests that the proxy makes of itself name it. */
  readonly negotiated: (revision: string) => void
  /** The client ends its session with these fields; the end of the upstream's carries them too. */
  readonly parting: (headers: Headers) => void
  /** What the proxy sends of itself carries the credentials among these fields, which the client has sent. */
  readonly identify: (headers: Headers) => void
  /** Takes over a session that another process has begun at the upstream. */
  readonly adopt: (sessionId: string) => void
  /** The upstream no longer knows its session: there is none to be ended. */
  readonly forget: () => void
  /** Has a listener told, once, that the upstream has ended of itself, and its session with it. At once if it has. */
  readonly onLost: (listener: () => void) => void
}

/** Closes a scope as if its session went on in another process. */
export const suspended: Exit.Exit<string> = Exit.succeed("suspended")

/**
 * The exit of a session's scope when the process ends and the session does not: what the session has at its upstream
 * is left there, for the next process to go on with.
 */
export const isSuspended = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isSuccess(exit) && exit.value === "suspended"

/** How long an answer that is no stream may stall between its head and its end, in milliseconds. */
export const BODY_STALL = 60_000
