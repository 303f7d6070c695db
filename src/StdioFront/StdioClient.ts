/** The client on standard input and output: routes its messages and keeps their order. */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { Disconnect } from "../ClientResponse.js"
import type { Headers } from "../internal/headers.js"
import { lineOf } from "../internal/lines.js"
import {
  type Body,
  cancelledRequestId,
  classify,
  modernHeaders,
  parseBody,
  PROTOCOL_VERSION,
  type RequestId,
  requestIds,
  SESSION_ID
} from "../Protocol.js"
import { BadRequest, InternalError, type ProxyError, toJsonRpc } from "../ProxyError.js"
import type { Session } from "../Sessions/Session.js"
import type { Sessions } from "../Sessions.js"
import type { Flow, Request } from "../Upstream.js"
import { type LineWriter, StdioResponse } from "./StdioResponse.js"

export interface StdioClientDeps {
  readonly sessions: Sessions["Type"]
  readonly output: LineWriter
  /** The name of the upstream. */
  readonly upstream: string
  /** Pauses the client's messages. */
  readonly flow: Flow
  /** Runs an effect in a fiber of the stdio front. */
  readonly run: (effect: Effect.Effect<void>) => void
}

/** The address under which the sessions of the only client are counted. */
const CLIENT = "stdio"

export class StdioClient {
  private session: Session | undefined
  /** The steps that wait for an earlier message, in order; `undefined` if no step has to wait. */
  private waiting: Array<() => void> | undefined
  /** The modern requests in flight. A disconnect cancels one. */
  private readonly modern = new Map<RequestId, Disconnect>()

  constructor(private readonly deps: StdioClientDeps) {}

  receive(line: Buffer): void {
    if (line.length > 0) this.inOrder(() => this.route(line))
  }

  /** Notes the end of the input. Calls `done` after all messages of the client were relayed. */
  finish(done: () => void): void {
    this.inOrder(done)
  }

  private inOrder(step: () => void): void {
    if (this.waiting === undefined) step()
    else this.waiting.push(step)
  }

  private route(bytes: Buffer): void {
    const parsed = parseBody(bytes)
    if (Either.isLeft(parsed)) return this.reject(parsed.left, [undefined])
    const body = parsed.right
    if (this.cancelsModern(body)) return
    const { session } = this
    // On stdio the session is implicit: every message belongs to the open session.
    const kind = classify(session === undefined ? {} : { [SESSION_ID]: session.id }, parsed)
    switch (kind.type) {
      case "modern":
        return this.relayModern(bytes, body)
      case "initialize":
        return session === undefined ? this.open(bytes, body) : this.relay(session, bytes, body)
      case "inSession":
        if (session !== undefined) this.relay(session, bytes, body)
        return
      case "noSession":
        return this.reject(new BadRequest({ reason: "NotInitialized" }), requestIds(body))
      case "invalid":
        return this.reject(kind.error, requestIds(body))
    }
  }

  private open(bytes: Buffer, body: Body): void {
    const { run, sessions } = this.deps
    this.wait()
    const response = this.response(body, () => {})
    const request: Request = { method: "POST", headers: json, bytes, body }
    run(
      sessions.open(request, CLIENT, response).pipe(
        Effect.map(({ session }) => {
          this.session = session
        }),
        Effect.catchAllDefect((cause) =>
          Effect.zipRight(
            Effect.logError("stdio: initialize failed: defect", cause),
            new InternalError({ cause })
          )
        ),
        Effect.catchAll((error) => Effect.sync(() => response.error(error))),
        Effect.andThen(() => this.proceed())
      )
    )
  }

  private relay(session: Session, bytes: Buffer, body: Body): void {
    const request: Request = { method: "POST", headers: headersOf(session), bytes, body }
    if (body.messages[0].method !== "notifications/initialized") {
      session.exchange(
        request,
        this.response(body, () => {})
      )
      return
    }
    this.wait()
    session.exchange(
      request,
      this.response(body, () => {
        this.openStream(session)
        this.proceed()
      })
    )
  }

  /** Opens the standalone stream. The 405 of a server without such streams has no effect. */
  private openStream(session: Session): void {
    const headers = { ...headersOf(session), accept: "text/event-stream" }
    session.exchange(
      { method: "GET", headers, bytes: undefined, body: undefined },
      this.response(undefined, () => {})
    )
  }

  private relayModern(bytes: Buffer, body: Body): void {
    const ids = requestIds(body)
    const response = this.response(body, () => {
      for (const id of ids) this.modern.delete(id)
    })
    const headers = { ...json, ...modernHeaders(body) }
    const request: Request = { method: "POST", headers, bytes, body }
    const disconnect = this.deps.sessions.exchange(request, CLIENT, response)
    for (const id of response.pendingIds) this.modern.set(id, disconnect)
  }

  /**
   * Cancels a modern request. Returns false if the message does not cancel one. The upstream does not receive the
   * notification, because over HTTP a closed response stream is the cancellation (2026-07-28, "Cancellation").
   */
  private cancelsModern(body: Body): boolean {
    const id = cancelledRequestId(body.messages[0])
    const disconnect = id === undefined ? undefined : this.modern.get(id)
    disconnect?.()
    return disconnect !== undefined
  }

  private response(body: Body | undefined, onSettled: () => void): StdioResponse {
    const { output, upstream } = this.deps
    return new StdioResponse(upstream, output, body === undefined ? [] : requestIds(body), onSettled)
  }

  private reject(error: ProxyError, ids: ReadonlyArray<RequestId | undefined>): void {
    for (const id of ids) {
      this.deps.output.write(lineOf(toJsonRpc(error, id)))
    }
  }

  /** Makes the next messages wait. */
  private wait(): void {
    this.waiting = []
    this.deps.flow.pause()
  }

  private proceed(): void {
    const steps = this.waiting ?? []
    this.waiting = undefined
    for (const step of steps) this.inOrder(step)
    if (this.waiting === undefined) this.deps.flow.unpause()
  }
}

const headersOf = ({ protocolVersion }: Session): Headers => ({
  ...json,
  [PROTOCOL_VERSION]: protocolVersion
})

const json: Headers = { "content-type": "application/json", accept: "application/json, text/event-stream" }
