/** The client on standard input and output: which of its messages go where, and in which order. */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { Disconnect } from "../ClientResponse.js"
import type { Headers } from "../internal/headers.js"
import { lineOf } from "../internal/lines.js"
import {
  type Body,
  cancelledRequestId,
  isInitialize,
  isModern,
  modernHeaders,
  parseBody,
  PROTOCOL_VERSION,
  type RequestId,
  requestIds
} from "../Protocol.js"
import { BadRequest, InternalError, type ProxyError, toJsonRpc } from "../ProxyError.js"
import type { Session } from "../Sessions/Session.js"
import type { Sessions } from "../Sessions.js"
import { type LineWriter, StdioResponse } from "./StdioResponse.js"
import type { Flow, Request } from "../Upstream.js"

export interface StdioClientDeps {
  readonly sessions: Sessions["Type"]
  readonly output: LineWriter
  /** The upstream's name. */
  readonly upstream: string
  /** Stops and restarts what the client sends. */
  readonly flow: Flow
  /** Runs an effect in a fiber of the front's own. */
  readonly run: (effect: Effect.Effect<void>) => void
}

/** Under what the only client's sessions are counted. */
const CLIENT = "stdio"

export class StdioClient {
  private session: Session | undefined
  /** What waits, in order, for the session to be open; `undefined` while nothing has to wait. */
  private held: Array<() => void> | undefined
  /** The requests of 2026-07-28 in flight: to leave one is to cancel it. */
  private readonly modern = new Map<RequestId, Disconnect>()

  constructor(private readonly services: StdioClientDeps) {}

  receive(line: Buffer): void {
    if (line.length > 0) this.inTurn(() => this.route(line))
  }

  /** The client sends nothing more; calls `done` when everything that it has sent is on its way. */
  finish(done: () => void): void {
    this.inTurn(done)
  }

  private inTurn(step: () => void): void {
    if (this.held === undefined) step()
    else this.held.push(step)
  }

  private route(bytes: Buffer): void {
    const parsed = parseBody(bytes)
    if (Either.isLeft(parsed)) return this.tell(parsed.left, [undefined])
    const body = parsed.right
    if (this.isCancelled(body)) return
    if (isModern(undefined, body)) this.relayModern(bytes, body)
    else if (this.session !== undefined) this.relay(this.session, bytes, body)
    else if (isInitialize(body)) this.open(bytes, body)
    else this.tell(new BadRequest({ reason: "NotInitialized" }), requestIds(body))
  }

  private open(bytes: Buffer, body: Body): void {
    const { run, sessions } = this.services
    this.hold()
    const answer = this.answer(body, () => {})
    const request: Request = { method: "POST", headers: json, bytes, body }
    run(
      sessions.open(request, CLIENT, answer).pipe(
        Effect.map(({ session }) => {
          this.session = session
        }),
        Effect.catchAllDefect((cause) =>
          Effect.zipRight(Effect.logError("defect", cause), new InternalError({ cause }))
        ),
        Effect.catchAll((error) => Effect.sync(() => answer.error(error))),
        Effect.andThen(() => this.proceed())
      )
    )
  }

  private relay(session: Session, bytes: Buffer, body: Body): void {
    const request: Request = { method: "POST", headers: this.headersOf(session), bytes, body }
    if (body.messages[0].method !== "notifications/initialized") {
      session.exchange(
        request,
        this.answer(body, () => {})
      )
      return
    }
    this.hold()
    session.exchange(
      request,
      this.answer(body, () => {
        this.listen(session)
        this.proceed()
      })
    )
  }

  /** Opens the stream for what belongs to no request; a server that has none says so, and nothing is lost. */
  private listen(session: Session): void {
    const headers = { ...this.headersOf(session), accept: "text/event-stream" }
    session.exchange(
      { method: "GET", headers, bytes: undefined, body: undefined },
      this.answer(undefined, () => {})
    )
  }

  private relayModern(bytes: Buffer, body: Body): void {
    const ids = requestIds(body)
    const answer = this.answer(body, () => {
      for (const id of ids) this.modern.delete(id)
    })
    const headers = { ...json, ...modernHeaders(body) }
    const leave = this.services.sessions.exchange({ method: "POST", headers, bytes, body }, answer)
    for (const id of answer.awaited) this.modern.set(id, leave)
  }

  /** Over HTTP, to close the answer's stream is the cancel (2026-07-28, "Cancellation"). */
  private isCancelled(body: Body): boolean {
    const id = cancelledRequestId(body.messages[0])
    const leave = id === undefined ? undefined : this.modern.get(id)
    leave?.()
    return leave !== undefined
  }

  private answer(body: Body | undefined, done: () => void): StdioResponse {
    const { output, upstream } = this.services
    return new StdioResponse(upstream, output, body === undefined ? [] : requestIds(body), done)
  }

  private headersOf({ protocolVersion }: Session): Headers {
    return { ...json, [PROTOCOL_VERSION]: protocolVersion }
  }

  private tell(error: ProxyError, ids: ReadonlyArray<RequestId | undefined>): void {
    for (const id of ids) {
      this.services.output.write(lineOf(toJsonRpc(error, id)))
    }
  }

  /** What comes now has to wait. */
  private hold(): void {
    this.held = []
    this.services.flow.pause()
  }

  private proceed(): void {
    const steps = this.held ?? []
    this.held = undefined
    for (const step of steps) this.inTurn(step)
    if (this.held === undefined) this.services.flow.unpause()
  }
}

const json: Headers = { "content-type": "application/json", accept: "application/json, text/event-stream" }
