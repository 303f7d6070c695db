/**
 * The interface between clients and servers. A caller sends a request to an `Upstream` and receives the answer through
 * the callbacks of a `Sink`, so that no fiber runs for an exchange. `Upstream/` implements `Upstream` over HTTP and
 * stdio. Failover, resumption of streams and interceptors wrap these implementations.
 */
import * as Exit from "effect/Exit"
import type { Headers } from "./internal/headers.js"
import type { Body, RequestId } from "./Protocol.js"
import type { UpstreamError } from "./ProxyError.js"

/** A request of a client: a POST with its body, or the GET of a stream. */
export interface Request {
  readonly method: "POST" | "GET"
  /** The client's header fields. The upstream drops those that must not be forwarded. */
  readonly headers: Headers
  /** The body as received, from which the request can be sent again. */
  readonly bytes: Uint8Array | undefined
  /** The parsed body; `undefined` for a request without a body, and for a body that is not JSON-RPC. */
  readonly body: Body | undefined
  /** Set for a GET of the proxy that continues a stream. `headers` is empty: the upstream session adds the fields. */
  readonly continues?: Continuation
}

/** Returns the request with a batch of other messages. */
export const withMessages = (request: Request, messages: Body["messages"]): Request => ({
  ...request,
  body: { isBatch: true, messages },
  bytes: Buffer.from(JSON.stringify(messages))
})

/** The place at which a stream continues. */
export interface Continuation {
  /** The requests that the stream has yet to answer; none for a standalone stream. */
  readonly requests: ReadonlyArray<RequestId>
  /** The upstream's id of the last event that was read; `undefined` if the event had none. */
  readonly lastEventId: string | undefined
  /** `once` passes on the first answer. `until resumed` repeats the GET until the upstream resumes the stream. */
  readonly mode: "once" | "until resumed"
}

/** Back-pressure: pauses and unpauses the data of one answer. */
export interface Flow {
  readonly pause: () => void
  readonly unpause: () => void
  /** True if pausing this answer also pauses others: all messages of a child process share one pipe. */
  readonly isShared?: boolean
}

/** The flow of an answer that is already complete. */
export const noFlow: Flow = { pause: () => {}, unpause: () => {} }

/** The kind of a chunk of a tracked event stream. */
export type StreamPart =
  /** A whole event, without its `id` and `retry` fields. `id` is the id that the upstream gave to the event. */
  | { readonly type: "event"; readonly id: string | undefined }
  /** An empty chunk: the upstream set or reset the last event id without an event. */
  | { readonly type: "cursor"; readonly id: string | undefined }
  /** A piece of an event that is too large to be held in memory. */
  | { readonly type: "piece"; readonly isFirst: boolean; readonly isLast: boolean }
  /** An empty chunk: the connection has broken, and the stream is resumed. An incomplete event stays incomplete. */
  | { readonly type: "break" }
  /** An empty chunk: every request of the stream is answered. */
  | { readonly type: "complete" }

/**
 * Receives one answer: `head` once, `data` any number of times, then `end`; or `error` at any point, as the last call.
 * Nothing is called after an abort.
 */
export interface Sink {
  readonly head: (status: number, headers: Headers, flow: Flow) => void
  /**
   * Receives bytes of the body. `part` is set for tracked event streams. A sink that wraps another one passes `part`
   * on, and omits it for an event stream that it writes itself.
   */
  readonly data: (chunk: Uint8Array, part?: StreamPart) => void
  readonly end: () => void
  readonly error: (error: UpstreamError) => void
}

/** Ignores an answer. */
export const ignoreAnswer: Sink = { head: () => {}, data: () => {}, end: () => {}, error: () => {} }

/** Answers a request without an upstream. */
export const respond = (sink: Sink, status: number, json = ""): void => {
  const type = json === "" ? {} : { "content-type": "application/json" }
  const bytes = Buffer.from(json)
  sink.head(status, { ...type, "content-length": String(bytes.length) }, noFlow)
  if (json !== "") sink.data(bytes)
  sink.end()
}

/** Aborts an exchange: closes its connection and silences its sink. Further calls have no effect. */
export type Abort = () => void

/** The abort of an exchange that is already over. */
export const nothingToAbort: Abort = () => {}

/** A target of requests. */
export interface Upstream {
  /** The address or command, without secrets, as shown in logs, errors and session records. */
  readonly name: string
  /**
   * Sends a request. It may call the sink before it returns. A caller that decides to abort during such a call must do
   * so after `exchange` has returned.
   */
  readonly exchange: (request: Request, sink: Sink) => Abort
}

/** The use of an upstream by one client session, until the scope of the lease closes. */
export interface Lease extends Upstream {
  /**
   * Returns the id that the upstream issued for its session. It is `undefined` before `initialize` is answered, unless
   * the lease continues a session, and for upstreams that issue no id.
   */
  readonly sessionId: () => string | undefined
  /**
   * Registers a listener that is called once when the upstream exits by itself, or now if it has exited. Absent for
   * servers, because an unreachable server may become reachable and still know the session.
   */
  readonly onExit?: (listener: () => void) => void
}

/** The session that takes a lease. */
export interface LeaseOptions {
  /** The id of the upstream session that this lease continues; `undefined` for a new session. */
  readonly sessionId: string | undefined
  /** Returns the negotiated revision, on which batches depend; `undefined` before `initialize` is answered. */
  readonly revision: () => string | undefined
  /** Returns the header fields of the request that ends the upstream session. Called when the scope closes. */
  readonly endHeaders: () => Headers
}

/** The exit that closes the scope of a session that another process continues. */
export const suspended: Exit.Exit<string> = Exit.succeed("suspended")

/** The exit that closes the scope of a lease whose upstream session is lost. */
export const lost: Exit.Exit<string> = Exit.succeed("lost")

/** True if another process continues the session. The upstream session then stays open. */
export const isSuspended = (exit: Exit.Exit<unknown, unknown>): boolean => hasOutcome(exit, "suspended")

/** True if there is an upstream session to end when the scope of its lease closes. */
export const endsUpstreamSession = (exit: Exit.Exit<unknown, unknown>): boolean =>
  !hasOutcome(exit, "suspended") && !hasOutcome(exit, "lost")

const hasOutcome = (exit: Exit.Exit<unknown, unknown>, value: string): boolean =>
  Exit.isSuccess(exit) && exit.value === value

/** The maximum time without data in the body of an answer that is not an event stream, in milliseconds. */
export const BODY_STALL = 60_000
