/** Ends idle sessions. Removes the records of expired ones and ends their upstream sessions. */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import { SessionRecord, type SessionStore } from "../SessionStore.js"
import type { PooledUpstream, UpstreamPool } from "../UpstreamPool.js"
import * as UpstreamSession from "../UpstreamSession.js"
import { negotiatedIn } from "./records.js"
import type { Session } from "./Session.js"

export interface SweeperDeps {
  readonly store: SessionStore["Type"]
  readonly pool: UpstreamPool["Type"]
  readonly registry: ReadonlyMap<string, Session>
  /** True if a session is being opened, is live or is being closed in this process. */
  readonly isHere: (id: string) => boolean
  readonly upstreamSession: UpstreamSession.UpstreamSessionDeps
  /** Runs an effect in the background. */
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** The maximum number of upstream sessions that are ended concurrently. */
const MAX_ENDINGS = 8

/** Makes the sweep, which `Sessions` runs at the start and then regularly. */
export const makeSweep = (deps: SweeperDeps): Effect.Effect<Effect.Effect<void>> =>
  Effect.map(Effect.makeSemaphore(MAX_ENDINGS), (endings) =>
    Effect.suspend(() => {
      for (const session of deps.registry.values()) session.expire()
      return Effect.flatMap(deps.store.removeExpired, (expired) => {
        // A session of this process ends its upstream session itself.
        const [elsewhere, here] = Arr.partition(expired, ({ id }) => deps.isHere(id))
        for (const record of elsewhere) deps.fork(endings.withPermits(1)(endUpstreamSession(record, deps)))
        return Effect.forEach(here, (record) => storeAgain(record, deps), { discard: true })
      })
    }).pipe(
      Effect.catchAll(({ message }) =>
        Effect.logError("store: could not remove expired sessions", { message })
      ),
      Effect.catchAllDefect((cause) => Effect.logError("sessions: defect in the sweep", cause))
    )
  )

/** Removes the records that a killed process left. Called if sessions cannot be restored. */
export const removeLeftRecords = ({
  pool,
  store
}: Pick<SweeperDeps, "pool" | "store">): Effect.Effect<void> =>
  Effect.flatMap(store.list, (left) =>
    Effect.forEach(
      left.filter(({ upstream }) => pool.get(upstream) !== undefined),
      ({ id }) => store.remove(id),
      { discard: true }
    )
  ).pipe(
    Effect.catchAll(({ message }) => Effect.logWarning("store: could not remove ended sessions", { message }))
  )

/** Ends the upstream session of an expired record. */
const endUpstreamSession = (record: SessionRecord, deps: SweeperDeps): Effect.Effect<void> => {
  const { upstream, upstreamSessionId } = record
  const pooled: PooledUpstream | undefined = deps.pool.get(upstream)
  if (upstreamSessionId === undefined || pooled === undefined) return Effect.void
  return Effect.gen(function* () {
    const session = yield* UpstreamSession.make(pooled, deps.upstreamSession)
    session.negotiate(negotiatedIn(record))
    yield* session.restore(upstreamSessionId)
  }).pipe(Effect.scoped, Effect.ignore)
}

/** Stores a live session again. Its record expires if the operating system suspends the whole process. */
const storeAgain = (record: SessionRecord, { registry, store }: SweeperDeps) =>
  Effect.suspend(() => {
    const live = registry.get(record.id)
    if (live === undefined || live.reason !== undefined) return Effect.void
    const { lastActiveAt } = live
    return Effect.catchTag(
      store.create(new SessionRecord({ ...record, lastActiveAt })),
      "SessionExists",
      () => Effect.void
    )
  })
