/**
 * The errors of the proxy. An error that can reach a client has an HTTP status and a JSON-RPC code. Its message names
 * the problem and the remedy.
 */
import { toStringUnknown } from "effect/Inspectable"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"

/** The JSON-RPC error codes that the proxy itself uses. */
const Code = {
  ParseError: -32700,
  InvalidRequest: -32600,
  InternalError: -32603,
  /** Implementation-defined: a limit, an upstream failure, a shutdown. */
  ServerError: -32000,
  /** The session is unknown or has ended. The official servers use the same code. */
  SessionNotFound: -32001
} as const

/** An error as a client receives it: a JSON-RPC error with an HTTP status and headers. */
export interface ClientError {
  readonly message: string
  readonly status: number
  readonly code: number
  /** Seconds until a retry may succeed. */
  readonly retryAfter?: number
  /** The allowed HTTP methods. */
  readonly allow?: string | undefined
}

const badRequests = {
  NotJson: [400, Code.ParseError, "The body is not JSON in UTF-8: send one JSON-RPC message"],
  NotJsonRpc: [
    400,
    Code.InvalidRequest,
    "The body is not a JSON-RPC 2.0 message or a non-empty batch of messages"
  ],
  MissingSessionId: [
    400,
    Code.InvalidRequest,
    "The Mcp-Session-Id header is missing: send `initialize` first, and repeat the session id of its response"
  ],
  NotInitialized: [400, Code.InvalidRequest, "There is no session yet: send `initialize` first"],
  InitializeInBatch: [400, Code.InvalidRequest, "`initialize` must be sent alone, not in a batch"],
  InitializeTooDeep: [
    400,
    Code.InvalidRequest,
    "The parameters of `initialize` are nested too deeply: flatten them"
  ],
  BatchTooLarge: [400, Code.InvalidRequest, "The batch has more than 256 messages: split it"],
  BatchNotSupported: [
    400,
    Code.InvalidRequest,
    "Only MCP 2025-03-26 has batches: send one message per request"
  ],
  DuplicateRequestId: [
    400,
    Code.InvalidRequest,
    "A request with this id is already in flight: use another id"
  ],
  InitializeTooLarge: [
    413,
    Code.InvalidRequest,
    "`initialize` is larger than 64 KiB: send shorter parameters"
  ],
  TooLarge: [413, Code.InvalidRequest, "The body is larger than --max-body: send less, or raise the option"],
  BodyTimeout: [
    408,
    Code.InvalidRequest,
    "The body stopped arriving before it was complete (--stall-timeout): send the request again"
  ],
  WrongContentType: [
    415,
    Code.InvalidRequest,
    "The body must be uncompressed and have the Content-Type application/json"
  ],
  NotAcceptable: [
    406,
    Code.InvalidRequest,
    "The Accept header excludes application/json and text/event-stream: accept at least one of them"
  ],
  WrongMethod: [
    405,
    Code.InvalidRequest,
    "The method is not allowed: use POST, GET or DELETE",
    "GET, POST, DELETE"
  ],
  PostOnly: [
    405,
    Code.InvalidRequest,
    "The method is not allowed: MCP 2026-07-28 and later use POST only",
    "POST"
  ],
  UnknownEventId: [
    400,
    Code.InvalidRequest,
    "The Last-Event-ID header names no event of this session: send the id of an event that was received"
  ],
  StreamEnded: [
    405,
    Code.InvalidRequest,
    "The stream has ended and all its events are delivered: do not resume it",
    "POST"
  ],
  UnknownRevision: [
    400,
    Code.InvalidRequest,
    "The MCP-Protocol-Version header names an unknown revision: send the negotiated one"
  ],
  WrongPath: [404, Code.InvalidRequest, "This path is not the MCP endpoint: use the path of --path"],
  HostNotAllowed: [403, Code.InvalidRequest, "The Host is not allowed: add it with --allow-host"],
  OriginNotAllowed: [403, Code.InvalidRequest, "The Origin is not allowed: add it with --allow-origin"]
} as const

/** A request that the proxy rejects because it cannot be relayed. */
export class BadRequest extends Schema.TaggedError<BadRequest>()("BadRequest", {
  reason: Schema.Literal(...Struct.keys(badRequests))
}) {
  get status() {
    return badRequests[this.reason][0]
  }
  get code() {
    return badRequests[this.reason][1]
  }
  override get message() {
    return badRequests[this.reason][2]
  }
  get allow(): string | undefined {
    return badRequests[this.reason][3]
  }
}

const limits = {
  "max-sessions": [503, "The proxy has its maximum number of sessions"],
  "max-per-client": [429, "This client has its maximum number of sessions"],
  "max-exchanges": [429, "This session has its maximum number of requests in flight"],
  "max-stateless": [503, "The proxy has its maximum number of requests without a session in flight"],
  "max-message": [503, "The upstream's command does not read its input"],
  "max-children": [503, "The proxy has its maximum number of child processes"],
  "max-connections": [503, "The proxy has its maximum number of connections"],
  "max-buffered": [503, "The proxy holds its maximum of request bytes"],
  "multi-session": [
    503,
    "The proxy serves one session at a time, and that one is in use: start it with --multi-session"
  ]
} as const

/** The `Retry-After` of a client that reaches a limit, in seconds. */
const RETRY_AFTER = 5

/** A limit is reached. The message names its option. */
export class LimitReached extends Schema.TaggedError<LimitReached>()("LimitReached", {
  limit: Schema.Literal(...Struct.keys(limits)),
  bound: Schema.Number
}) {
  readonly code = Code.ServerError
  readonly retryAfter = RETRY_AFTER
  get status() {
    return limits[this.limit][0]
  }
  override get message() {
    const text = limits[this.limit][1]
    return this.limit === "multi-session" ? text : `${text} (--${this.limit} ${this.bound}): retry later`
  }
}

/** The error for an unknown session id. The client must send `initialize` again (Transports, "Session Management"). */
export class SessionNotFound extends Schema.TaggedError<SessionNotFound>()("SessionNotFound", {}) {
  readonly status = 404
  readonly code = Code.SessionNotFound
  override get message() {
    return "Session not found: it is unknown or has ended; send `initialize` to open another"
  }
}

/** The proxy is shutting down and accepts no new requests. */
export class ShuttingDown extends Schema.TaggedError<ShuttingDown>()("ShuttingDown", {}) {
  readonly status = 503
  readonly code = Code.ServerError
  readonly retryAfter = RETRY_AFTER
  override get message() {
    return "The proxy is shutting down"
  }
}

const upstreamReasons = {
  Unreachable: [502, "cannot be reached"],
  ConnectTimeout: [504, "did not accept a connection within --connect-timeout"],
  ResponseTimeout: [504, "did not respond within --request-timeout"],
  Stalled: [504, "stopped in the middle of its response"],
  Closed: [502, "closed the connection before its response was complete"],
  Redirected: [502, "redirects to another address: set --url to that address"],
  NotMcp: [502, "did not answer `initialize` with an MCP result: check that --url is its MCP endpoint"],
  InitializeRefused: [502, "rejected `initialize`"],
  Unsupported: [502, "does not support this request"],
  HttpError: [502, "answered with an HTTP error"],
  NoResponse: [502, "ended its response without a JSON-RPC response to this request"],
  NotStarted: [502, "cannot be started"],
  StartTimeout: [504, "did not answer `initialize` within --start-timeout"],
  Ended: [502, "has ended"],
  SessionLost: [502, "lost the session, and with it the response to this request"],
  Incompatible: [502, "no longer has the revision or the capabilities that the client negotiated"]
} as const

/** The reasons that exclude that the upstream received the request. */
const unsent: ReadonlySet<keyof typeof upstreamReasons> = new Set([
  "Unreachable",
  "ConnectTimeout",
  "Unsupported",
  "NotStarted"
])

/** The upstream failed to respond. */
export class UpstreamError extends Schema.TaggedError<UpstreamError>()("UpstreamError", {
  reason: Schema.Literal(...Struct.keys(upstreamReasons)),
  /** The upstream's address or command, without secrets. */
  upstream: Schema.String,
  /** The error of the system or of the upstream. */
  detail: Schema.optional(Schema.String),
  /** True if the upstream may have carried out the request. */
  isUncertain: Schema.optionalWith(Schema.Boolean, { default: () => false })
}) {
  readonly code = Code.ServerError
  get status() {
    return upstreamReasons[this.reason][0]
  }
  override get message() {
    const detail = this.detail === undefined ? "" : ` (${this.detail})`
    const rest = this.isUncertain ? "; it may have carried out the request: retry only if that is safe" : ""
    return `The upstream ${this.upstream} ${upstreamReasons[this.reason][1]}${detail}${rest}`
  }

  /** Returns this error for a request that was sent. Sets `isUncertain` if the upstream may have executed it. */
  get afterSending(): UpstreamError {
    const { detail, reason, upstream } = this
    return unsent.has(reason) ? this : new UpstreamError({ reason, upstream, detail, isUncertain: true })
  }
}

/** The error for a client that resumes a stream after its events were evicted. */
export class EventsEvicted extends Schema.TaggedError<EventsEvicted>()("EventsLost", {}) {
  readonly status = 200
  readonly code = Code.ServerError
  override get message() {
    return "The missed events of this stream are no longer kept (--max-events, --max-event-bytes): send the request again if that is safe"
  }
}

/** A defect of the proxy. Only the request that hits it fails. */
export class InternalError extends Schema.TaggedError<InternalError>()("InternalError", {
  cause: Schema.Defect
}) {
  readonly status = 500
  readonly code = Code.InternalError
  override get message() {
    return "The proxy failed to handle this request: report it with the log of the proxy"
  }
}

/** The errors with which the proxy answers a client. */
export type ProxyError =
  | BadRequest
  | LimitReached
  | SessionNotFound
  | ShuttingDown
  | UpstreamError
  | StoreError
  | InternalError

/** Returns the metric label of an error: the limit, the reason, or the tag. */
export const errorLabel = (error: ProxyError): string =>
  "limit" in error ? error.limit : "reason" in error ? error.reason : error._tag

/** The store already has a session record with this id. */
export class SessionExists extends Schema.TaggedError<SessionExists>()("SessionExists", {}) {
  override get message() {
    return "A session with this id is already stored"
  }
}

const storeReasons = {
  Unavailable: "cannot be used",
  NewerVersion: "was written by a newer version of shadowcat: use that version or another file",
  InUse: "is used by another process: give each process its own file",
  Broken: "is not a database or is damaged: restore it, or remove it with its sessions"
} as const

/** The session store failed to read or write. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  reason: Schema.Literal(...Struct.keys(storeReasons)),
  /** The location of the store, without secrets. */
  store: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  readonly status = 503
  readonly code = Code.ServerError
  readonly retryAfter = RETRY_AFTER
  override get message() {
    const text = `The session store ${this.store} ${storeReasons[this.reason]}`
    return this.reason === "Unavailable" && this.cause instanceof Error
      ? `${text} (${this.cause.message})`
      : text
  }
}

/** The proxy cannot listen on its address. */
export class ListenError extends Schema.TaggedError<ListenError>()("ListenError", {
  host: Schema.String,
  port: Schema.Number,
  /** The option that sets the port. */
  option: Schema.optionalWith(Schema.Literal("port", "admin-port"), { default: () => "port" as const }),
  cause: Schema.Defect
}) {
  override get message() {
    const where = `Cannot listen on ${this.host}:${this.port}`
    switch (errorCode(this.cause)) {
      case "EADDRINUSE":
        return `${where}: the port is in use; choose another with --${this.option}, or --${this.option} 0 for any free one`
      case "EACCES":
        return `${where}: permission denied; choose a port above 1023 with --${this.option}`
      case "EADDRNOTAVAIL":
      case "ENOTFOUND":
      case "EAI_AGAIN":
        return `${where}: this machine has no such address; choose another with --host`
      default:
        return `${where}: ${this.cause instanceof Error ? this.cause.message : toStringUnknown(this.cause)}`
    }
  }
}

/** Returns the code of an error of Node or undici, such as `ECONNREFUSED`. */
export const errorCode = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined

/** Encodes an error as the JSON-RPC response to the request with this id. */
export const toJsonRpc = (error: ClientError, id: string | number | undefined): string =>
  JSON.stringify({ jsonrpc: "2.0", id: id ?? null, error: { code: error.code, message: error.message } })
