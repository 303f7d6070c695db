/** The fibers of the sessions. Each session has one, from its opening to the release of its resources. */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberMap from "effect/FiberMap"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { InFlight } from "../internal/inFlight.js"
import type { ProxyError } from "../ProxyError.js"
import type { SessionResources } from "./lifecycle.js"
import { type CloseReason, handleOf } from "./Session.js"

export interface SessionFibers {
  /** Starts a session's fiber. It runs synchronously up to its first asynchronous step. */
  readonly run: (id: string, life: Effect.Effect<CloseReason, ProxyError>) => void
  /** The fiber of a session that is being opened, is live or is being closed. */
  readonly get: (id: string) => Fiber.RuntimeFiber<void> | undefined
  /** Ends a session and waits until its resources are released. Returns false if there is no such session. */
  readonly close: (id: string, reason: CloseReason) => Effect.Effect<boolean>
  /** Ends all live sessions, interrupts the opening ones, and waits until their resources are released. */
  readonly endAll: (reason: CloseReason) => Effect.Effect<void>
  /** Completes in single-session mode when the session has ended and no other one has replaced it. */
  readonly over: Effect.Effect<CloseReason>
}

/** The reasons after which another session may open in single-session mode. */
const reopenableReasons: ReadonlySet<CloseReason> = new Set(["replaced", "abandoned"])

/** Runs session fibers. Closing the scope interrupts them. */
export const makeSessionFibers = (
  multiSession: boolean,
  { deps, registry }: SessionResources
): Effect.Effect<SessionFibers, never, Scope.Scope> =>
  Effect.gen(function* () {
    const over = yield* Deferred.make<CloseReason>()
    const fibers = yield* FiberMap.make<string, void, never>()
    const run = yield* FiberMap.runtime(fibers)()

    const ended = (reason: CloseReason) => {
      deps.telemetry.sessionClosed(reason)
      return Effect.logInfo("session: closed", { reason })
    }
    const failed = ({ _tag, message }: ProxyError) =>
      _tag === "SessionNotFound"
        ? Effect.logDebug("session: not found")
        : Effect.logWarning("session: could not be opened", { message })

    return {
      run: (id, life) =>
        void run(
          id,
          life.pipe(
            Effect.tap((reason) =>
              multiSession || reopenableReasons.has(reason) ? Effect.void : Deferred.succeed(over, reason)
            ),
            Effect.tapBoth({ onSuccess: ended, onFailure: failed }),
            Effect.ignore,
            Effect.catchAllDefect((cause) => Effect.logError("session: defect", cause)),
            Effect.annotateLogs("session", handleOf(id))
          )
        ),
      get: (id) => Option.getOrUndefined(FiberMap.unsafeGet(fibers, id)),
      close: (id, reason) =>
        Effect.suspend(() => {
          registry.get(id)?.end(reason)
          return Option.match(FiberMap.unsafeGet(fibers, id), {
            onNone: () => Effect.succeed(false),
            onSome: (fiber) => Effect.as(Fiber.await(fiber), true)
          })
        }),
      endAll: (reason) =>
        Effect.suspend(() => {
          for (const [id, fiber] of fibers) {
            const session = registry.get(id)
            if (session === undefined) fiber.unsafeInterruptAsFork(FiberId.none)
            else session.end(reason)
          }
          return FiberMap.awaitEmpty(fibers)
        }),
      over: Deferred.await(over)
    }
  })

/** The openings whose client has disconnected. */
export interface AbandonedOpenings {
  /** Adds an opening. It may complete, so that its session can be ended; after 60 s it is interrupted. */
  readonly add: (id: string) => void
  readonly interruptAll: Effect.Effect<void>
}

/** The maximum time of an abandoned opening. */
const ABANDONED_TIMEOUT = Duration.seconds(60)

export const makeAbandonedOpenings = (
  fibers: SessionFibers,
  inFlight: InFlight
): Effect.Effect<AbandonedOpenings, never, Scope.Scope> =>
  Effect.map(FiberSet.makeRuntime<never>(), (fork) => {
    const openings = new Map<string, Fiber.RuntimeFiber<void>>()
    return {
      add: (id) => {
        const fiber = fibers.get(id)
        if (fiber === undefined) return
        // A shutdown does not wait for an abandoned opening.
        inFlight.end()
        openings.set(id, fiber)
        fork(
          Fiber.await(fiber).pipe(
            Effect.timeoutOption(ABANDONED_TIMEOUT),
            Effect.andThen(Fiber.interrupt(fiber)),
            Effect.ensuring(Effect.sync(() => openings.delete(id)))
          )
        )
      },
      interruptAll: Effect.suspend(() =>
        Effect.forEach(openings.values(), Fiber.interrupt, { discard: true })
      )
    }
  })
