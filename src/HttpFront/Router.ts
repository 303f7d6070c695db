/** Routes HTTP requests: rejects them, responds to them, or passes them to a session. */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import { isReadable } from "../internal/headers.js"
import { isAcceptable } from "../Protocol/Accept.js"
import {
  checkRevision,
  classify,
  parseBody,
  PROTOCOL_VERSION,
  type RequestClass,
  requestId
} from "../Protocol.js"
import {
  BadRequest,
  InternalError,
  LimitReached,
  type ProxyError,
  SessionNotFound,
  ShuttingDown
} from "../ProxyError.js"
import type { Session } from "../Sessions/Session.js"
import type { Sessions } from "../Sessions.js"
import type { Request } from "../Upstream.js"
import type { Connections } from "./Connections.js"
import { HttpResponse, type HttpResponseDeps } from "./HttpResponse.js"
import type { OriginPolicy } from "./OriginPolicy.js"
import { readBody } from "./readBody.js"

export interface RouterDeps {
  readonly sessions: Sessions["Type"]
  readonly connections: Connections
  readonly originPolicy: OriginPolicy
  readonly response: HttpResponseDeps
  /** Runs an effect in a fiber of the HTTP front. */
  readonly run: <A>(effect: Effect.Effect<A>) => Fiber.RuntimeFiber<A>
  /** The path of the MCP endpoint. */
  readonly path: string
  /** Returns the document at `/health`, without the status. */
  readonly health: () => object
}

/** The maximum size of `initialize`, in bytes. Its parameters are kept as long as the session. */
const MAX_INITIALIZE = 64 * 1024

/** The path of the health check. */
export const HEALTH_PATH = "/health"

export class Router {
  /** Set when the proxy shuts down. The router then rejects new requests. */
  isDraining = false

  constructor(private readonly deps: RouterDeps) {}

  handle(message: IncomingMessage, serverResponse: ServerResponse): void {
    const { connections, originPolicy, path } = this.deps
    const { headers, socket } = message
    const rejection = originPolicy.check(headers)
    const response = new HttpResponse(
      serverResponse,
      this.deps.response,
      rejection === undefined ? originPolicy.grants(headers) : undefined
    )
    if (this.isDraining || connections.isSurplus(socket)) serverResponse.shouldKeepAlive = false
    if (rejection !== undefined) return response.error(rejection)
    if (connections.isSurplus(socket)) {
      return response.error(new LimitReached({ limit: "max-connections", bound: connections.limit }))
    }
    const target = message.url ?? ""
    const pathname = target === path ? path : pathOf(target)
    if (pathname === HEALTH_PATH) return this.health(response)
    if (pathname !== path) return response.error(new BadRequest({ reason: "WrongPath" }))
    switch (message.method) {
      case "POST":
        return this.post(message, response)
      case "GET":
        return this.get(message, response)
      case "DELETE":
        return this.delete(message, response)
      case "OPTIONS":
        return response.empty(204, originPolicy.preflight(headers))
      default:
        return response.error(new BadRequest({ reason: "WrongMethod" }))
    }
  }

  private post(message: IncomingMessage, response: HttpResponse): void {
    const { headers } = message
    if (!isReadable(headers, "application/json")) {
      return response.error(new BadRequest({ reason: "WrongContentType" }))
    }
    if (!isAcceptable(headers.accept)) return response.error(new BadRequest({ reason: "NotAcceptable" }))
    response.onDisconnect = readBody(message, this.deps.response, response, (bytes) =>
      this.route(message, response, bytes)
    )
  }

  private route(message: IncomingMessage, response: HttpResponse, bytes: Buffer): void {
    const parsed = parseBody(bytes)
    const body = Either.getOrUndefined(parsed)
    const id = requestId(body)
    response.requestId = id
    const kind = classify(message.headers, parsed)
    if (this.isDraining && (id !== undefined || kind.type === "modern")) {
      return response.error(new ShuttingDown())
    }
    const headers = withOneRevision(message.headers, kind)
    const request: Request = { method: "POST", headers, bytes, body }
    switch (kind.type) {
      case "modern":
        return this.relayModern(request, clientOf(message), response)
      case "initialize":
        return bytes.length > MAX_INITIALIZE
          ? response.error(new BadRequest({ reason: "InitializeTooLarge" }))
          : this.open(request, clientOf(message), response)
      default:
        this.inSession(kind, headers, response, (session) => relay(session, request, response))
    }
  }

  private relayModern(request: Request, client: string, response: HttpResponse): void {
    response.holdRequest()
    response.onDisconnect = this.deps.sessions.exchange(request, client, response)
  }

  private open(request: Request, client: string, response: HttpResponse): void {
    const { run, sessions } = this.deps
    response.holdRequest()
    const fiber = run(
      reportErrors(
        response,
        Effect.map(sessions.open(request, client, response), ({ disconnect, session }) => {
          response.onDisconnect = () => {
            disconnect()
            // The client has not received the session's id.
            if (response.isQueued) session.end("abandoned")
          }
        })
      )
    )
    interruptOnDisconnect(response, fiber)
  }

  private get({ headers }: IncomingMessage, response: HttpResponse): void {
    const kind = classify(headers, undefined)
    this.inSession(kind, headers, response, (session) => {
      if (!isAcceptable(headers.accept)) response.error(new BadRequest({ reason: "NotAcceptable" }))
      else if (this.isDraining) response.error(new ShuttingDown())
      else {
        const request: Request = {
          method: "GET",
          headers: withOneRevision(headers, kind),
          bytes: undefined,
          body: undefined
        }
        relay(session, request, response)
      }
    })
  }

  private delete({ headers }: IncomingMessage, response: HttpResponse): void {
    const { run, sessions } = this.deps
    const kind = classify(headers, undefined)
    this.inSession(kind, headers, response, (session) => {
      session.useDeleteHeaders(withOneRevision(headers, kind))
      // The client's session ends even if the upstream rejects the DELETE.
      run(
        reportErrors(
          response,
          Effect.map(sessions.close(session.id, "deleted"), () =>
            response.empty(200, { "content-length": "0" })
          )
        )
      )
    })
  }

  private health(response: HttpResponse): void {
    const status = this.isDraining ? "draining" : "ok"
    response.json(this.isDraining ? 503 : 200, JSON.stringify({ status, ...this.deps.health() }))
  }

  /** Calls `use` with the session of a request, or responds with an error if there is none. */
  private inSession(
    kind: RequestClass,
    headers: IncomingHttpHeaders,
    response: HttpResponse,
    use: (session: Session) => void
  ): void {
    switch (kind.type) {
      case "invalid":
        return response.error(kind.error)
      case "inSession":
        return this.withSession(kind, headers, response, use)
      default:
        response.error(new BadRequest({ reason: "MissingSessionId" }))
    }
  }

  private withSession(
    { revision, sessionId }: Extract<RequestClass, { readonly type: "inSession" }>,
    headers: IncomingHttpHeaders,
    response: HttpResponse,
    use: (session: Session) => void
  ): void {
    const { run, sessions } = this.deps
    const live = sessions.get(sessionId)
    if (live !== undefined) return useWith(revision, live, response, use)
    if (!sessions.restores) return response.error(new SessionNotFound())
    response.holdRequest()
    const fiber = run(
      reportErrors(
        response,
        sessions.restore(sessionId, headers).pipe(
          // The session holds the request again when it relays it.
          Effect.ensuring(Effect.sync(() => response.settled())),
          Effect.map((session) => useWith(revision, session, response, use))
        )
      )
    )
    interruptOnDisconnect(response, fiber)
  }
}

/** Calls `use` unless the session does not support the revision of the request. */
const useWith = (
  revision: string | undefined,
  session: Session,
  response: HttpResponse,
  use: (session: Session) => void
): void => {
  const rejection = checkRevision(revision, session.protocolVersion)
  if (rejection === undefined) use(session)
  else response.error(rejection)
}

/** Passes a request to its session. */
const relay = (session: Session, request: Request, response: HttpResponse): void => {
  response.holdRequest()
  response.onDisconnect = session.exchange(request, response)
}

/** Sends every error to the client, including defects. */
const reportErrors = (response: HttpResponse, effect: Effect.Effect<void, ProxyError>): Effect.Effect<void> =>
  effect.pipe(
    Effect.catchAllDefect((cause) =>
      Effect.zipRight(Effect.logError("http: request failed: defect", cause), new InternalError({ cause }))
    ),
    Effect.catchAll((error) => Effect.sync(() => response.error(error)))
  )

const interruptOnDisconnect = (response: HttpResponse, fiber: Fiber.RuntimeFiber<void>): void => {
  if (fiber.unsafePoll() === null) response.onDisconnect = () => fiber.unsafeInterruptAsFork(FiberId.none)
}

/** Replaces equal duplicates of the version header by one. */
const withOneRevision = (headers: IncomingHttpHeaders, kind: RequestClass): IncomingHttpHeaders =>
  "revision" in kind && kind.revision !== headers[PROTOCOL_VERSION]
    ? { ...headers, [PROTOCOL_VERSION]: kind.revision }
    : headers

/** Returns the path of a request target, which may be an absolute URL (RFC 9112, section 3.2.2). */
const pathOf = (target: string): string | undefined => {
  if (target.startsWith("/")) return target.split("?", 1)[0]
  return URL.canParse(target) ? new URL(target).pathname : undefined
}

const clientOf = ({ socket }: IncomingMessage): string => socket.remoteAddress ?? "unknown"
