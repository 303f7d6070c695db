/** Converts between sessions and their records, and changes records in the store. */
import * as Effect from "effect/Effect"
import { type SessionRecordChange, SessionRecord, type SessionStore } from "../SessionStore.js"
import { Negotiated } from "../UpstreamSession/Negotiated.js"
import type { Session } from "./Session.js"

type Store = SessionStore["Type"]

/** Returns the record of a session. `timeToLive` is in milliseconds. */
export const sessionRecordOf = (session: Session, timeToLive: number): SessionRecord => {
  const { client, createdAt, id, lastActiveAt, negotiated, upstreamSession } = session
  return new SessionRecord({
    id,
    upstream: upstreamSession.name,
    upstreamSessionId: upstreamSession.sessionId,
    protocolVersion: negotiated.protocolVersion,
    initialize: negotiated.initialize,
    capabilities: negotiated.capabilities,
    logLevel: negotiated.logLevel,
    subscriptions: negotiated.subscriptions,
    client,
    createdAt,
    lastActiveAt,
    timeToLive
  })
}

/** Returns the negotiation that a record stores. */
export const negotiatedIn = (record: SessionRecord): Negotiated =>
  new Negotiated(
    record.initialize,
    record.protocolVersion,
    record.capabilities,
    record.logLevel,
    record.subscriptions
  )

/** Changes a record. Logs a failure; the change is then lost when the process ends. */
export const updateRecord = (
  store: Store,
  { handle, id }: Session,
  change: SessionRecordChange
): Effect.Effect<void> =>
  store.update(id, change).pipe(
    Effect.catchAll(({ message }) => Effect.logWarning("store: write failed", { message })),
    Effect.annotateLogs("session", handle),
    Effect.asVoid
  )

/** Removes a record. Logs a failure; the record then expires. */
export const removeRecord = (store: Store, id: string): Effect.Effect<void> =>
  Effect.catchAll(store.remove(id), ({ message }) =>
    Effect.logWarning("store: could not delete session record", { message })
  ).pipe(Effect.asVoid)
