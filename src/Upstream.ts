/**
 * The seam between clients and servers. A caller sends a request to an `Upstream` and receives the answer through a
 * `Sink`, in callbacks: no fiber runs for an exchange. `Upstream/` implements it over HTTP and stdio. Every layer
 * between them and the fronts wraps it: failover, resumption of streams, interceptors.
 */
import * as Exit from "effect/Exit"
import type { Headers } from "./internal/headers.js"
import type { Body, RequestId } from "./Protocol.js"
import type { UpstreamError } from "./ProxyError.js"

/** What a client sends: a POST with its body, or the GET of a stream. */
export interface Request {
  readonly method: "POST" | "GET"
  /** The client's header fields. The upstream drops those that must not be forwarded. */
  readonly headers: Headers
  /** The body as received. It is kept whole, so that the request can be sent again. */
  readonly bytes: Uint8Array | undefined
  /** The parsed body; `undefined` without one, and for a body that the proxy does not need to understand. */
  readonly body: Body | undefined
  /** Set for a GET of the proxy itself, which continues a stream. `headers` is empty then: the upstream session adds them. */
  readonly continues?: Continuation
}

/** The place at which a stream continues. */
export interface Continuation {
  /** The requests that the stream has yet to answer; none for a standalone stream. */
  readonly requests: ReadonlyArray<RequestId>
  /** The upstream's id of the last event that was read; `undefined` if it gave none. */
  readonly lastEventId: string | undefined
  /** `once`: the first answer is the answer. `until resumed`: the GET is repeated until the upstream resumes the stream. */
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

/** Which part of a resumable event stream a chunk is. */
export type StreamPart =
  /** A whole event, without its `id` and `retry` fields; `id` is the upstream's id of it. */
  | { readonly type: "event"; readonly id: string | undefined }
  /** An empty chunk: the upstream set its last event id without sending an event, or withdrew it. */
  | { readonly type: "cursor"; readonly id: string | undefined }
  /** A piece of an event that is too large to be held in memory. */
  | { readonly type: "piece"; readonly isFirst: boolean; readonly isLast: boolean }
  /** An empty chunk: the connection has broken, and the stream is resumed. The rest of an unfinished event will not come. */
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
   * Receives bytes of the body. `part` is set for the event streams of a session that the proxy tracks. A sink that stands
   * before another one passes it on; an event stream that it writes itself has none.
   */
  readonly data: (chunk: Uint8Array, part?: StreamPart) => void
  readonly end: () => void
  readonly error: (error: UpstreamError) => void
}

/** Ignores an answer. */
export const ignoreAnswer: Sink = { head: () => {}, data: () => {}, end: () => {}, error: () => {} }

/** Answers a request without asking an upstream. */
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
  /** Sends a request. It may call the sink before it returns. */
  readonly exchange: (request: Request, sink: Sink) => Abort
}

/** What one client session holds of an upstream, until its scope closes. */
export interface Lease extends Upstream {
  /**
   * The id that the upstream gave its session: known once `initialize` is answered, and at once for a lease that
   * continues a session. Some upstreams give none.
   */
  readonly sessionId: () => string | undefined
  /**
   * Registers a listener that is called once when the upstream exits by itself, at once if it already has. Absent for
   * servers: one that is unreachable may come back and still know the session.
   */
  readonly onExit?: (listener: () => void) => void
}

/** What a lease needs of the session that takes it. */
export interface LeaseOptions {
  /** The id of an upstream session that another process opened and this lease continues. */
  readonly sessionId: string | undefined
  /** The negotiated revision, on which batches depend; `undefined` before `initialize` is answered. */
  readonly revision: () => string | undefined
  /** The header fields of the request that ends the upstream session, read when the scope closes. */
  readonly endHeaders: () => Headers
}

/** Closes a scope whose session continues in another process. */
export const suspended: Exit.Exit<string> = Exit.succeed("suspended")

/** Closes the scope of a lease whose upstream session is lost already. */
export const lost: Exit.Exit<string> = Exit.succeed("lost")

/**
 * True if the process ends and the session does not. The upstream session is then left open for the next process to
 * continue.
 */
export const isSuspended = (exit: Exit.Exit<unknown, unknown>): boolean => hasOutcome(exit, "suspended")

/** True if there is an upstream session to end when the scope of its lease closes. */
export const endsUpstreamSession = (exit: Exit.Exit<unknown, unknown>): boolean =>
  !hasOutcome(exit, "suspended") && !hasOutcome(exit, "lost")

const hasOutcome = (exit: Exit.Exit<unknown, unknown>, value: string): boolean =>
  Exit.isSuccess(exit) && exit.value === value

/** How long an answer that is no event stream may stall between its head and its end, in milliseconds. */
export const BODY_STALL = 60_000
