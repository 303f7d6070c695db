/**
 * Everything that can go wrong in the proxy, in one place. Every error that can reach a client says which
 * HTTP status and which JSON-RPC code it becomes, and its message says what is wrong and what to do.
 */
import { toStringUnknown } from "effect/Inspectable"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"

/** The JSON-RPC error codes that the proxy itself uses. */
const Code = {
  ParseError: -32700,
  InvalidRequest: -32600,
  InternalError: -32603,
  /** Implementation-defined: a limit, an upstream that fails, a proxy that shuts down. */
  ServerError: -32000,
  /** The session is unknown or has ended; the official servers use this code too. */
  SessionNotFound: -32001
} as const

/** How an error is told to a client: an HTTP status and headers around a JSON-RPC error. */
export interface ClientError {
  readonly message: string
  readonly status: number
  readonly code: number
  /** Seconds until another try may succeed. */
  readonly retryAfter?: number
  /** The methods that would be right. */
  readonly allow?: string | undefined
}

const badRequests = {
  NotJson: [400, Code.ParseError, "The body is not JSON in UTF-8"],
  NotJsonRpc: [
    400,
    Code.InvalidRequest,
    "The body is not a JSON-RPC 2.0 message or a non-empty batch of them"
  ],
  MissingSessionId: [
    400,
    Code.InvalidRequest,
    "The Mcp-Session-Id header is missing: send `initialize` first and repeat the session id of its answer"
  ],
  NotInitialized: [400, Code.InvalidRequest, "There is no session yet: send `initialize` first"],
  InitializeInBatch: [400, Code.InvalidRequest, "`initialize` must be sent alone, not in a batch"],
  InitializeTooDeep: [400, Code.InvalidRequest, "The parameters of `initialize` are nested too deeply"],
  BatchTooLarge: [400, Code.InvalidRequest, "The batch holds more than 256 messages"],
  BatchNotSupported: [
    400,
    Code.InvalidRequest,
    "Only MCP 2025-03-26 has batches: send one message at a time"
  ],
  DuplicateRequestId: [400, Code.InvalidRequest, "A request with this id is in flight already"],
  InitializeTooLarge: [413, Code.InvalidRequest, "`initialize` must not be larger than 64 KiB"],
  TooLarge: [413, Code.InvalidRequest, "The body is larger than --max-body allows"],
  BodyTimeout: [408, Code.InvalidRequest, "The request stopped arriving before it was complete"],
  WrongContentType: [
    415,
    Code.InvalidRequest,
    "The body must be sent as Content-Type: application/json, not compressed"
  ],
  NotAcceptable: [
    406,
    Code.InvalidRequest,
    "The Accept header refuses both application/json and text/event-stream, and MCP answers with one of them"
  ],
  WrongMethod: [405, Code.InvalidRequest, "MCP uses POST, GET and DELETE here", "GET, POST, DELETE"],
  PostOnly: [405, Code.InvalidRequest, "From MCP 2026-07-28 on, only POST is used here", "POST"],
  UnknownEventId: [400, Code.InvalidRequest, "The Last-Event-ID header names no event of this session"],
  StreamEnded: [
    405,
    Code.InvalidRequest,
    "The stream has ended, and nothing of it is left to deliver",
    "POST"
  ],
  UnknownRevision: [400, Code.InvalidRequest, "The MCP-Protocol-Version header names no revision of MCP"],
  WrongPath: [404, Code.InvalidRequest, "There is no MCP endpoint at this path"],
  HostNotAllowed: [403, Code.InvalidRequest, "This Host is not allowed: add it with --allow-host"],
  OriginNotAllowed: [403, Code.InvalidRequest, "This Origin is not allowed: add it with --allow-origin"]
} as const

/** A request that the proxy answers itself, for it is not one that could be relayed. */
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
  "max-sessions": [503, "All sessions of this proxy are taken"],
  "max-per-client": [429, "This client has all the sessions that it may have"],
  "max-exchanges": [429, "Too many requests are in flight at once"],
  "max-stateless": [503, "All places for requests without a session are taken"],
  "max-message": [503, "The upstream's command does not read what it is sent"],
  "max-children": [503, "All child processes of this proxy are in use"],
  "max-connections": [503, "This proxy has all the connections that it may have"],
  "max-buffered": [503, "This proxy holds all the request bytes that it may hold"],
  "multi-session": [
    503,
    "This proxy serves one session at a time, and it is in use: start it with --multi-session"
  ]
} as const

/** Seconds after which a client that met a bound is asked to try again. */
const RETRY_AFTER = 5

/** A bound is reached. The message names the option that sets it. */
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
    const what = limits[this.limit][1]
    return this.limit === "multi-session" ? what : `${what} (--${this.limit} ${this.bound})`
  }
}

/** No live session has this id: the client starts anew with `initialize` (Transports, "Session Management"). */
export class SessionNotFound extends Schema.TaggedError<SessionNotFound>()("SessionNotFound", {}) {
  readonly status = 404
  readonly code = Code.SessionNotFound
  override get message() {
    return "Session not found: it is unknown or has ended; start a new one with `initialize`"
  }
}

/** The proxy is shutting down and takes no new work. */
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
  ResponseTimeout: [504, "did not begin to answer within --request-timeout"],
  Stalled: [504, "stopped in the middle of its answer"],
  Closed: [502, "closed the connection before its answer was complete"],
  Redirected: [502, "redirects to another address; give that one as --url"],
  NotMcp: [502, "did not answer `initialize` with an MCP result; is the URL that of its MCP endpoint?"],
  InitializeRefused: [502, "refused `initialize`"],
  Unsupported: [502, "cannot be asked that"],
  HttpError: [502, "answered with an HTTP error"],
  NoResponse: [502, "ended its answer without a response"],
  NotStarted: [502, "cannot be started"],
  StartTimeout: [504, "did not answer `initialize` within --start-timeout"],
  Ended: [502, "is gone"],
  SessionLost: [502, "has lost the session, and with it the answer to this request"],
  Incompatible: [502, "is not what it was: it lacks what the client was told that it has"]
} as const

/** With these, the upstream was sent nothing. */
const unsent: ReadonlySet<keyof typeof upstreamReasons> = new Set([
  "Unreachable",
  "ConnectTimeout",
  "Unsupported",
  "NotStarted"
])

/** The upstream failed to answer. */
export class UpstreamError extends Schema.TaggedError<UpstreamError>()("UpstreamError", {
  reason: Schema.Literal(...Struct.keys(upstreamReasons)),
  /** The upstream's address or command, without anything secret. */
  upstream: Schema.String,
  /** What the system or the upstream itself said. */
  detail: Schema.optional(Schema.String),
  /** Whether it may have carried out the request that it was sent. */
  isUncertain: Schema.optionalWith(Schema.Boolean, { default: () => false })
}) {
  readonly code = Code.ServerError
  get status() {
    return upstreamReasons[this.reason][0]
  }
  override get message() {
    const detail = this.detail === undefined ? "" : ` (${this.detail})`
    const rest = this.isUncertain ? "; it may have carried out the request: repeat it if that is safe" : ""
    return `The upstream ${this.upstream} ${upstreamReasons[this.reason][1]}${detail}${rest}`
  }

  /** The same for a request that was sent and is not answered. */
  get afterSending(): UpstreamError {
    const { detail, reason, upstream } = this
    return unsent.has(reason) ? this : new UpstreamError({ reason, upstream, detail, isUncertain: true })
  }
}

/** A client comes back for events that are no longer kept. */
export class EventsEvicted extends Schema.TaggedError<EventsEvicted>()("EventsLost", {}) {
  readonly status = 200
  readonly code = Code.ServerError
  override get message() {
    return "What came on this stream meanwhile is no longer kept (--max-events, --max-event-bytes): send the request again if that is safe"
  }
}

/** A defect of the proxy itself: the request that met it fails, and nothing else does. */
export class InternalError extends Schema.TaggedError<InternalError>()("InternalError", {
  cause: Schema.Defect
}) {
  readonly status = 500
  readonly code = Code.InternalError
  override get message() {
    return "The proxy has failed to handle this request; please report it"
  }
}

/** Everything that the proxy may answer to a client of its own accord. */
export type ProxyError =
  | BadRequest
  | LimitReached
  | SessionNotFound
  | ShuttingDown
  | UpstreamError
  | StoreError
  | InternalError

/** What an error is counted under: the bound that was reached, what was wrong, or the kind of the error. */
export const errorLabel = (error: ProxyError): string =>
  "limit" in error ? error.limit : "reason" in error ? error.reason : error._tag

/** A session record with this id is stored already. */
export class SessionExists extends Schema.TaggedError<SessionExists>()("SessionExists", {}) {
  override get message() {
    return "A session with this id is stored already"
  }
}

const storeReasons = {
  Unavailable: "cannot be used",
  NewerVersion: "was written by a newer version of shadowcat: use that one, or another file",
  InUse: "is used by another process: each needs a file of its own",
  Broken: "is no database, or a damaged one: restore it, or remove it and lose its sessions"
} as const

/** What is to outlive the process cannot be kept, or not be read. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  reason: Schema.Literal(...Struct.keys(storeReasons)),
  /** Where the sessions are stored, without anything secret. */
  store: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  readonly status = 503
  readonly code = Code.ServerError
  readonly retryAfter = RETRY_AFTER
  override get message() {
    const what = `The session store ${this.store} ${storeReasons[this.reason]}`
    return this.reason === "Unavailable" && this.cause instanceof Error
      ? `${what} (${this.cause.message})`
      : what
  }
}

/** The proxy cannot listen where it was told to. */
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

/** The code that Node or undici gave an error, such as `ECONNREFUSED`. */
export const errorCode = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined

/** The JSON-RPC error response that tells an error to whoever sent the request with this id. */
export const toJsonRpc = (error: ClientError, id: string | number | undefined): string =>
  JSON.stringify({ jsonrpc: "2.0", id: id ?? null, error: { code: error.code, message: error.message } })
