/** Opens a session: relays the client's `initialize`, and passes on the answer with the proxy's session id. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { ClientResponse, Disconnect } from "../ClientResponse.js"
import { hasType } from "../internal/headers.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import { BadRequest, type ProxyError, ShuttingDown, UpstreamError } from "../ProxyError.js"
import { ignoreAnswer, type Request, type Sink } from "../Upstream.js"
import { streaming, toClient } from "../Upstream/headers.js"
import type { PooledUpstream } from "../UpstreamPool.js"
import { relayInitialize } from "../UpstreamSession/Initialize.js"
import { Negotiated } from "../UpstreamSession/Negotiated.js"
import { makeUpstream, openStreams, register, type SessionResources } from "./lifecycle.js"
import { sessionRecordOf } from "./records.js"
import { type CloseReason, makeId, Session } from "./Session.js"

/** A session that has just been opened. */
export interface OpenedSession {
  readonly session: Session
  /** Notes that the client has disconnected before the answer to `initialize` was complete. */
  readonly disconnect: Disconnect
}

interface Waiting {
  readonly request: Request
  readonly response: ClientResponse
  readonly opened: Deferred.Deferred<OpenedSession, ProxyError>
}

/**
 * An `initialize` without an answer. The session's fiber references this object until the session ends, so the object
 * drops the request and the response when the opening is settled.
 */
export class PendingOpen {
  readonly id = makeId()
  /** True if the client disconnected before the session was open. */
  isAbandoned = false
  private waiting: Waiting | undefined

  constructor(
    readonly client: string,
    readonly upstream: PooledUpstream,
    request: Request,
    response: ClientResponse
  ) {
    this.waiting = { request, response, opened: Deferred.unsafeMake(FiberId.none) }
  }

  /**
   * Completes when the session is open, and fails if it cannot be opened. The caller interrupts this effect when the
   * client disconnects. If the opening is not settled then, the effect calls `onAbandoned`.
   */
  opened(onAbandoned: () => void): Effect.Effect<OpenedSession, ProxyError> {
    if (this.waiting === undefined) return Effect.interrupt
    const { opened } = this.waiting
    return Effect.onInterrupt(Deferred.await(opened), () =>
      Effect.flatMap(
        Deferred.poll(opened),
        Option.match({
          onNone: () =>
            Effect.sync(() => {
              this.isAbandoned = true
              onAbandoned()
            }),
          onSome: (result) => Effect.match(result, { onFailure: () => {}, onSuccess: abandon })
        })
      )
    )
  }

  /** Returns the request and its response. Interrupts if the opening is settled. */
  get current(): Effect.Effect<Waiting> {
    return Effect.suspend(() =>
      this.waiting === undefined ? Effect.interrupt : Effect.succeed(this.waiting)
    )
  }

  settle(exit: Exit.Exit<OpenedSession, ProxyError>): void {
    if (this.waiting === undefined) return
    const { opened, response } = this.waiting
    this.waiting = undefined
    Deferred.unsafeDone(opened, Exit.isInterrupted(exit) ? Effect.fail(new ShuttingDown()) : exit)
    // After a success, the exchange that passes on the answer settles the response.
    if (Exit.isFailure(exit)) response.settled()
    else if (this.isAbandoned) abandon(exit.value)
  }
}

/** Ends a session whose client disconnected before it learned the id. */
const abandon = ({ disconnect, session }: OpenedSession): void => {
  disconnect()
  session.end("abandoned")
}

/** Opens a session in a new scope and waits for its end. Succeeds with the reason for the end. */
export const runOpened = (
  opening: PendingOpen,
  resources: SessionResources
): Effect.Effect<CloseReason, ProxyError> => {
  const { inFlight, telemetry } = resources.deps
  return Effect.acquireUseRelease(
    Effect.sync(() => inFlight.begin()),
    () => Effect.onExit(open(opening, resources), (exit) => Effect.sync(() => opening.settle(exit))),
    // An abandoned opening stopped counting when its client disconnected.
    () => Effect.sync(() => opening.isAbandoned || inFlight.end())
  ).pipe(
    Effect.tap(({ session: { protocolVersion, upstreamSession } }) =>
      Effect.logInfo("session: opened", {
        client: opening.client,
        protocolVersion,
        upstream: upstreamSession.name
      })
    ),
    Effect.tap(() => Effect.sync(() => telemetry.sessionOpened())),
    Effect.flatMap(({ session }) => Deferred.await(session.ended)),
    Effect.scoped
  )
}

/**
 * Opens a session. Its scope then owns everything that the session holds. When the scope closes, the exchanges
 * are cut first. Then the session is removed from the registry and the store, its log is closed, its upstream session
 * ends, and admission stops counting it. Only the waits for the upstream can be interrupted.
 */
const open = (
  opening: PendingOpen,
  resources: SessionResources
): Effect.Effect<OpenedSession, ProxyError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { client, id } = opening
      const { admission, deps } = resources
      yield* admission.reserve(client)
      const { request, response } = yield* opening.current
      const initialize = yield* asJson(request.body?.messages[0].params)
      const parts = yield* makeUpstream(id, client, opening.upstream, deps)
      yield* restore(parts.upstreamSession.open)
      const held = yield* restore(relayInitialize(parts.upstream, request, deps.deadlines))
      if (held.result === undefined) {
        held.finish(withoutSession(response))
        return yield* new UpstreamError({ reason: "InitializeRefused", upstream: opening.upstream.name })
      }
      const { capabilities, protocolVersion } = held.result
      return yield* Effect.gen(function* () {
        const negotiated = new Negotiated(initialize, protocolVersion, yield* asJson(capabilities))
        const streams = yield* openStreams(id, protocolVersion, parts.resumable, deps)
        const createdAt = deps.clock.unsafeCurrentTimeMillis()
        const session = new Session({ ...parts, id, client, createdAt, negotiated, streams }, deps)
        parts.upstreamSession.begin(negotiated, session)
        const record = sessionRecordOf(session, deps.timeToLive)
        yield* Effect.catchTag(deps.store.create(record), "SessionExists", Effect.die)
        yield* register(session, resources)
        return { session, disconnect: session.passOn(held, request, response) }
      }).pipe(Effect.tapError(() => Effect.sync(() => held.abort())))
    })
  )

/** Serializes parsed JSON. Fails if the JSON is nested too deeply for `JSON.stringify`. */
const asJson = (value: unknown): Effect.Effect<string, BadRequest> =>
  Effect.try({
    try: () => JSON.stringify(value ?? {}),
    catch: () => new BadRequest({ reason: "InitializeTooDeep" })
  })

/** Passes on the upstream's refusal of `initialize`, without a session id. */
const withoutSession = (response: ClientResponse): Sink => ({
  ...ignoreAnswer,
  head: (status, headers, flow) => {
    const forClient = toClient(headers, undefined)
    response.head(status, hasType(headers, EVENT_STREAM) ? streaming(forClient) : forClient, flow)
  },
  data: (chunk) => response.data(chunk),
  end: () => response.end(),
  error: (error) => response.error(error)
})
