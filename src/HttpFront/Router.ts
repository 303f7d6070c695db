/** What becomes of an HTTP request: it is refused, answered here, or handed to a session. */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberId from "effect/FiberId"
import type * as Fiber from "effect/Fiber"
import type { ClientResponse, Disconnect } from "../ClientResponse.js"
import { HttpResponse, type HttpResponseDeps } from "./HttpResponse.js"
import { isAcceptable } from "../Protocol/Accept.js"
import { readBody } from "./readBody.js"
import type { Connections } from "./Connections.js"
import type { OriginPolicy } from "./OriginPolicy.js"
import { first, isReadable } from "../internal/headers.js"
import {
  type Body,
  isInitialize,
  isModern,
  isWithoutSessions,
  parseBody,
  PROTOCOL_VERSION,
  requestId,
  SESSION_ID
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

export interface RouterDeps {
  readonly sessions: Sessions["Type"]
  readonly connections: Connections
  readonly originPolicy: OriginPolicy
  readonly terms: HttpResponseDeps
  /** Runs an effect in a fiber of the front's own. */
  readonly run: <A>(effect: Effect.Effect<A>) => Fiber.RuntimeFiber<A>
  /** The path of the MCP endpoint. */
  readonly path: string
  /** The document at `/health`. */
  readonly health: () => object
}

/** How large an `initialize` may be, in bytes: its parameters are kept as long as the session. */
const MAX_INITIALIZE = 64 * 1024

/** Where the health check is. */
export const HEALTH_PATH = "/health"

export class Router {
  /** Set once, when the proxy shuts down: no new work is taken then. */
  isDraining = false

  constructor(private readonly services: RouterDeps) {}

  handle(message: IncomingMessage, response: ServerResponse): void {
    const { connections, originPolicy, path, terms } = this.services
    const { headers, socket } = message
    const wrong = originPolicy.check(headers)
    const answer = new HttpResponse(
      response,
      terms,
      wrong === undefined ? originPolicy.grants(headers) : undefined
    )
    if (this.isDraining || connections.isSurplus(socket)) response.shouldKeepAlive = false
    if (wrong !== undefined) return answer.error(wrong)
    if (connections.isSurplus(socket)) {
      return answer.error(new LimitReached({ limit: "max-connections", bound: connections.bound }))
    }
    const target = message.url ?? ""
    const pathname = target === path ? path : pathOf(target)
    if (pathname === HEALTH_PATH) return this.health(answer)
    if (pathname !== path) return answer.error(new BadRequest({ reason: "WrongPath" }))
    switch (message.method) {
      case "POST":
        return this.post(message, answer)
      case "GET":
        return this.get(message, answer)
      case "DELETE":
        return this.delete(message, answer)
      case "OPTIONS":
        return answer.empty(204, originPolicy.preflight(headers))
      default:
        return answer.error(new BadRequest({ reason: "WrongMethod" }))
    }
  }

  private post(message: IncomingMessage, answer: HttpResponse): void {
    const { headers } = message
    if (!isReadable(headers, "application/json")) {
      return answer.error(new BadRequest({ reason: "WrongContentType" }))
    }
    if (!isAcceptable(headers.accept)) return answer.error(new BadRequest({ reason: "NotAcceptable" }))
    answer.onDisconnect = readBody(message, this.services.terms, answer, (bytes) =>
      this.read(message, answer, bytes)
    )
  }

  private read(message: IncomingMessage, answer: HttpResponse, bytes: Buffer): void {
    const parsed = parseBody(bytes)
    const body = Either.getOrUndefined(parsed)
    answer.requestId = requestId(body)
    // Whatever session id comes with a request without sessions is ignored.
    const revision = first(message.headers, PROTOCOL_VERSION) ?? ""
    if (isModern(undefined, body) || isWithoutSessions(revision)) {
      return this.route(message, answer, bytes, parsed, undefined)
    }
    this.withSession(message.headers, answer, (session) =>
      this.route(message, answer, bytes, parsed, session)
    )
  }

  private route(
    message: IncomingMessage,
    answer: HttpResponse,
    bytes: Buffer,
    parsed: ReturnType<typeof parseBody>,
    session: Session | undefined
  ): void {
    const { headers } = message
    const body = Either.getOrUndefined(parsed)
    const request: Request = { method: "POST", headers, bytes, body }
    if (isModern(revisionBeside(headers, session), body)) {
      if (this.isDraining) return answer.error(new ShuttingDown())
      relay(this.services.sessions, request, answer)
    } else if (Either.isLeft(parsed)) answer.error(parsed.left)
    else if (this.isDraining && answer.requestId !== undefined) answer.error(new ShuttingDown())
    else if (session !== undefined) relay(session, request, answer)
    else if (headers[SESSION_ID] !== undefined) answer.error(new SessionNotFound())
    else if (!namesInitialize(parsed.right)) answer.error(new BadRequest({ reason: "MissingSessionId" }))
    else if (!isInitialize(parsed.right)) answer.error(new BadRequest({ reason: "InitializeInBatch" }))
    else if (bytes.length > MAX_INITIALIZE) answer.error(new BadRequest({ reason: "InitializeTooLarge" }))
    else this.open(request, clientOf(message), answer)
  }

  private open(request: Request, client: string, answer: HttpResponse): void {
    const { run, sessions } = this.services
    answer.holdRequest()
    const fiber = run(
      told(
        answer,
        Effect.map(sessions.open(request, client, answer), ({ leave, session }) => {
          answer.onDisconnect = () => {
            leave()
            // Nobody knows the session's id.
            if (answer.isQueued) session.end("abandoned")
          }
        })
      )
    )
    if (fiber.unsafePoll() === null) answer.onDisconnect = () => fiber.unsafeInterruptAsFork(FiberId.none)
  }

  private get({ headers }: IncomingMessage, answer: HttpResponse): void {
    this.inSession(headers, answer, (session) => {
      if (!isAcceptable(headers.accept)) answer.error(new BadRequest({ reason: "NotAcceptable" }))
      else if (this.isDraining) answer.error(new ShuttingDown())
      else relay(session, { method: "GET", headers, bytes: undefined, body: undefined }, answer)
    })
  }

  private delete({ headers }: IncomingMessage, answer: HttpResponse): void {
    const { run, sessions } = this.services
    this.inSession(headers, answer, (session) => {
      session.parting(headers)
      // Whatever the upstream says to its end, the client's session is over.
      run(
        told(
          answer,
          Effect.map(sessions.close(session.id, "deleted"), () =>
            answer.empty(200, { "content-length": "0" })
          )
        )
      )
    })
  }

  private health(answer: HttpResponse): void {
    const status = this.isDraining ? "draining" : "ok"
    answer.json(this.isDraining ? 503 : 200, JSON.stringify({ status, ...this.services.health() }))
  }

  /** Hands the session of a GET or DELETE on; without one the answer says why. */
  private inSession(
    headers: IncomingHttpHeaders,
    answer: HttpResponse,
    use: (session: Session) => void
  ): void {
    this.withSession(headers, answer, (session) => {
      const revision = revisionBeside(headers, session)
      if (revision !== undefined && isModern(revision, undefined)) {
        // From 2026-07-28 on, an endpoint answers to POST alone.
        const reason = isWithoutSessions(revision) ? "PostOnly" : "UnknownRevision"
        answer.error(new BadRequest({ reason }))
      } else if (session !== undefined) use(session)
      else if (headers[SESSION_ID] === undefined) answer.error(new BadRequest({ reason: "MissingSessionId" }))
      else answer.error(new SessionNotFound())
    })
  }

  /** Hands on the session that the fields name, if there is one; it may have to be revived first. */
  private withSession(
    headers: IncomingHttpHeaders,
    answer: HttpResponse,
    use: (session: Session | undefined) => void
  ): void {
    const { run, sessions } = this.services
    const id = first(headers, SESSION_ID)
    const session = id === undefined ? undefined : sessions.get(id)
    if (id === undefined || session !== undefined || !sessions.restores) return use(session)
    answer.holdRequest()
    const fiber = run(
      told(
        answer,
        sessions.restore(id, headers).pipe(
          Effect.catchTag("SessionNotFound", () => Effect.succeed(undefined)),
          // Whoever relays the request holds it again.
          Effect.ensuring(Effect.sync(() => answer.settled())),
          Effect.map(use)
        )
      )
    )
    if (fiber.unsafePoll() === null) answer.onDisconnect = () => fiber.unsafeInterruptAsFork(FiberId.none)
  }
}

/** Hands a request to whoever relays it: a session, or all of them for one that belongs to none. */
const relay = (
  to: { readonly exchange: (request: Request, answer: ClientResponse) => Disconnect },
  request: Request,
  answer: HttpResponse
): void => {
  answer.holdRequest()
  answer.onDisconnect = to.exchange(request, answer)
}

/** Whatever goes wrong, defects too, is told to the client. */
const told = (answer: HttpResponse, effect: Effect.Effect<void, ProxyError>): Effect.Effect<void> =>
  effect.pipe(
    Effect.catchAllDefect((cause) =>
      Effect.zipRight(Effect.logError("defect", cause), new InternalError({ cause }))
    ),
    Effect.catchAll((error) => Effect.sync(() => answer.error(error)))
  )

/** The revision that a request names, unless it is the one that its session negotiated, whatever that is. */
const revisionBeside = (headers: IncomingHttpHeaders, session: Session | undefined): string | undefined => {
  const revision = first(headers, PROTOCOL_VERSION)
  return revision === session?.protocolVersion ? undefined : revision
}

/** The path of a request's target, which may be a whole URL (RFC 9112, 3.2.2). */
const pathOf = (target: string): string | undefined => {
  if (target.startsWith("/")) return target.split("?", 1)[0]
  return URL.canParse(target) ? new URL(target).pathname : undefined
}

const namesInitialize = (body: Body): boolean => body.messages.some(({ method }) => method === "initialize")

const clientOf = ({ socket }: IncomingMessage): string => socket.remoteAddress ?? "unknown"
