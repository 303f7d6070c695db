/** How a session begins: from the client's `initialize` to the answer under an id of the proxy's own. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Admission } from "./Admission.js"
import { Negotiated } from "../UpstreamSession/Negotiated.js"
import type { ClientResponse, Disconnect } from "../ClientResponse.js"
import type { SessionLog } from "../EventTracker.js"
import { relay } from "../UpstreamSession/Initialize.js"
import { hasType } from "../internal/headers.js"
import { streaming, toClient } from "../Upstream/headers.js"
import { released } from "../internal/released.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import { BadRequest, type ProxyError, ShuttingDown, type StoreError, UpstreamError } from "../ProxyError.js"
import { type CloseReason, makeId, Session, type Shared } from "./Session.js"
import { SessionRecord } from "../SessionStore.js"
import { isSuspended, type Request, type Sink } from "../Upstream.js"
import * as UpstreamSession from "../UpstreamSession.js"

/** A session that has just been opened. */
export interface Opened {
  readonly session: Session
  /** Tells that the client has gone before the answer to `initialize` was complete. */
  readonly leave: Disconnect
}

/** What an opening takes from, and leaves to the session's scope to give back. */
export interface Resources {
  readonly admission: Admission
  readonly terms: UpstreamSession.Terms
  readonly shared: Shared
  readonly registry: Map<string, Session>
}

interface Pending {
  readonly request: Request
  readonly answer: ClientResponse
  readonly opened: Deferred.Deferred<Opened, ProxyError>
}

/**
 * An `initialize` under way. The session's fiber holds it for as long as the session lives, so it lets go of
 * the request and the answer when it is settled.
 */
export class Opening {
  readonly id = makeId()
  /** Whether the client has gone in the meantime. */
  isLeft = false
  private pending: Pending | undefined

  constructor(
    readonly client: string,
    request: Request,
    answer: ClientResponse
  ) {
    this.pending = { request, answer, opened: Deferred.unsafeMake(FiberId.none) }
  }

  /**
   * Completes when the session is open, or will not be. An interruption means that the client has gone; `left` is
   * called when the opening is still under way then.
   */
  opened(left: () => void): Effect.Effect<Opened, ProxyError> {
    if (this.pending === undefined) return Effect.interrupt
    const { opened } = this.pending
    return Effect.onInterrupt(Deferred.await(opened), () =>
      Effect.flatMap(
        Deferred.poll(opened),
        Option.match({
          onNone: () =>
            Effect.sync(() => {
              this.isLeft = true
              left()
            }),
          onSome: (result) => Effect.match(result, { onFailure: () => {}, onSuccess: abandon })
        })
      )
    )
  }

  /** What is under way; interrupts when nothing is any more. */
  get current(): Effect.Effect<Pending> {
    return Effect.suspend(() =>
      this.pending === undefined ? Effect.interrupt : Effect.succeed(this.pending)
    )
  }

  settle(exit: Exit.Exit<Opened, ProxyError>): void {
    if (this.pending === undefined) return
    const { answer, opened } = this.pending
    this.pending = undefined
    Deferred.unsafeDone(opened, Exit.isInterrupted(exit) ? Effect.fail(new ShuttingDown()) : exit)
    // Otherwise the exchange that passes the answer on settles it.
    if (Exit.isFailure(exit)) answer.settled()
    else if (this.isLeft) abandon(exit.value)
  }
}

/** Ends a session whose client has gone before it learned the id. */
const abandon = ({ leave, session }: Opened): void => {
  leave()
  session.end("abandoned")
}

/** The whole life of a session, in a scope of its own; succeeds with the reason for its end. */
export const live = (opening: Opening, resources: Resources): Effect.Effect<CloseReason, ProxyError> =>
  Effect.acquireUseRelease(
    Effect.sync(() => resources.shared.inFlight.enter()),
    () => Effect.onExit(open(opening, resources), (exit) => Effect.sync(() => opening.settle(exit))),
    // Whoever has left is not waited for, and was counted out then.
    () => Effect.sync(() => opening.isLeft || resources.shared.inFlight.leave())
  ).pipe(
    Effect.tap(({ session: { protocolVersion, upstream } }) =>
      Effect.logInfo("session opened", { client: opening.client, protocolVersion, upstream: upstream.name })
    ),
    Effect.tap(() => Effect.sync(() => resources.shared.telemetry.sessionOpened())),
    Effect.flatMap(({ session }) => Deferred.await(session.ended)),
    Effect.scoped
  )

/**
 * Opens a session in a scope, which from then on owns all that it holds; the finalizers run in reverse: the
 * exchanges are cut, the session leaves the registry and the store, the upstream's session is ended, and the
 * place is free again. Only the wait for the upstream can be interrupted.
 */
const open = (opening: Opening, resources: Resources): Effect.Effect<Opened, ProxyError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { admission, shared, terms } = resources
      const scope = yield* Effect.scope
      yield* admission.reserve(opening.client, scope)
      const { answer, request } = yield* opening.current
      const initialize = yield* asJson(request.body?.messages[0].params)
      const upstream = yield* UpstreamSession.make(terms)
      const lease = yield* restore(upstream.leased)
      const held = yield* restore(relay(lease, request, shared.deadlines))
      if (held.result === undefined) {
        held.finish(withoutSession(answer))
        return yield* new UpstreamError({ reason: "Refused", upstream: lease.name })
      }
      const { capabilities, protocolVersion } = held.result
      return yield* Effect.gen(function* () {
        const agreement = new Negotiated(initialize, protocolVersion, yield* asJson(capabilities))
        const { client, id } = opening
        const log = yield* openLog(id, shared)
        const now = shared.clock.unsafeCurrentTimeMillis()
        const session = new Session(id, client, now, upstream, agreement, shared, log)
        yield* Effect.catchTag(shared.store.create(recordOf(session, shared)), "SessionExists", Effect.die)
        yield* register(session, resources, scope)
        return { session, leave: session.begin(held, request, answer) }
      }).pipe(Effect.tapError(() => Effect.sync(() => held.abort())))
    })
  )

/** The log of a session's streams. It ends with the scope: for good, or in this process alone. */
export const openLog = (
  id: string,
  { tracker }: Shared
): Effect.Effect<SessionLog | undefined, StoreError, Scope.Scope> =>
  released(tracker.open(id), (log, exit) => {
    if (log === undefined) return Effect.void
    return isSuspended(exit) ? log.suspend : Effect.sync(() => log.close())
  })

/**
 * From here on the scope holds the session: it is found by its id until the scope closes, and its record stays until
 * then, or longer if it is suspended.
 */
export const register = (
  session: Session,
  { registry, shared }: Resources,
  scope: Scope.Scope
): Effect.Effect<void> =>
  Effect.gen(function* () {
    yield* Scope.addFinalizerExit(scope, (exit) =>
      isSuspended(exit) ? Effect.void : removed(shared.store, session.id)
    )
    registry.set(session.id, session)
    yield* Scope.addFinalizer(
      scope,
      Effect.sync(() => {
        registry.delete(session.id)
        session.cut()
      })
    )
  })

/** A record that cannot be removed expires by itself. */
const removed = (store: Shared["store"], id: string): Effect.Effect<void> =>
  Effect.catchAll(store.remove(id), ({ message }) => Effect.logWarning("a record stays", { message }))

/** What could be parsed may still be too deep to be written again. */
const asJson = (value: unknown): Effect.Effect<string, BadRequest> =>
  Effect.try({
    try: () => JSON.stringify(value ?? {}),
    catch: () => new BadRequest({ reason: "InitializeTooDeep" })
  })

const recordOf = ({ agreement, client, createdAt, id, lastActiveAt, upstream }: Session, shared: Shared) =>
  new SessionRecord({
    id,
    upstream: upstream.name,
    upstreamSessionId: upstream.sessionId(),
    protocolVersion: agreement.protocolVersion,
    initialize: agreement.initialize,
    capabilities: agreement.capabilities,
    logLevel: agreement.logLevel,
    subscriptions: agreement.subscriptions,
    client,
    createdAt,
    lastActiveAt,
    timeToLive: shared.timeToLive
  })

/** An upstream's own refusal reaches the client as it is, but for the id of a session that there is not. */
const withoutSession = (answer: ClientResponse): Sink => ({
  head: (status, headers, flow) => {
    const forClient = toClient(headers, undefined)
    answer.head(status, hasType(headers, EVENT_STREAM) ? streaming(forClient) : forClient, flow)
  },
  data: (chunk) => answer.data(chunk),
  end: () => answer.end(),
  error: (error) => answer.error(error)
})
