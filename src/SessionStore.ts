/** The records of sessions: the state that another process needs to continue a session. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { SessionExists, type StoreError } from "./ProxyError.js"

/**
 * The stored state of a session. It contains no credentials, but its ids give access to the session, so keep it secret.
 * Times are in milliseconds since 1970.
 */
export class SessionRecord extends Schema.Class<SessionRecord>("SessionRecord")({
  /** The id that the proxy issued to the client. */
  id: Schema.NonEmptyString,
  /** The name of the upstream, and its id for the session if it issues one. */
  upstream: Schema.String,
  upstreamSessionId: Schema.optional(Schema.String),
  /** The revision that `initialize` negotiated. */
  protocolVersion: Schema.String,
  /** The parameters of the client's `initialize` request, as JSON. */
  initialize: Schema.String,
  /** The capabilities of the server, as JSON. */
  capabilities: Schema.String,
  /** The client's log level and subscriptions, which a failover sets in the new upstream session. */
  logLevel: Schema.optional(Schema.String),
  subscriptions: Schema.Array(Schema.String),
  /** The address of the client, for `maxPerClient`. */
  client: Schema.String,
  createdAt: Schema.Number,
  lastActiveAt: Schema.Number,
  /** The maximum time without activity, in milliseconds. */
  timeToLive: Schema.Number
}) {
  /** The time of the expiry. The record is absent from then on. */
  get expiresAt(): number {
    return this.lastActiveAt + this.timeToLive
  }
}

/**
 * The fields of a record that may change. `upstream` is one of them, so that a failover can continue the session at
 * another upstream. The negotiated fields are not, because the client keeps what it negotiated.
 */
export type SessionRecordChange = Partial<
  Pick<SessionRecord, "upstream" | "upstreamSessionId" | "logLevel" | "subscriptions" | "timeToLive">
>

/**
 * Stores session records. An expired record is absent for every method, even before `removeExpired` removes it.
 */
export class SessionStore extends Context.Tag("shadowcat/SessionStore")<
  SessionStore,
  {
    /** True if records outlive the process. Then a shutdown suspends sessions instead of closing them. */
    readonly isDurable: boolean

    /** Creates a record. Fails if its id exists. A durable store has stored the record on return. */
    readonly create: (record: SessionRecord) => Effect.Effect<void, SessionExists | StoreError>

    /** Returns the record with an id. */
    readonly get: (id: string) => Effect.Effect<Option.Option<SessionRecord>, StoreError>

    /**
     * Sets the time of the last activity, which postpones the expiry. Ignores an earlier time, and a record that is
     * expired or removed. Synchronous, because every exchange calls it; durable stores write it behind.
     */
    readonly touch: (id: string, at: number) => void

    /** Changes a record. `undefined` removes a field. Returns false if there is no record. */
    readonly update: (id: string, change: SessionRecordChange) => Effect.Effect<boolean, StoreError>

    /** Removes a record. Returns false if there is no record. */
    readonly remove: (id: string) => Effect.Effect<boolean, StoreError>

    /** Returns all records, oldest first. */
    readonly list: Effect.Effect<ReadonlyArray<SessionRecord>, StoreError>

    /** Returns the record of the session to which an upstream gave an id. */
    readonly findByUpstream: (
      upstream: string,
      upstreamSessionId: string
    ) => Effect.Effect<Option.Option<SessionRecord>, StoreError>

    /** Removes the expired records and returns them. */
    readonly removeExpired: Effect.Effect<ReadonlyArray<SessionRecord>, StoreError>
  }
>() {}

interface Entry {
  record: SessionRecord
  lastActiveAt: number
}

/** Makes a store whose records end with the process. */
export const makeMemory: Effect.Effect<SessionStore["Type"]> = Effect.map(Effect.clock, (clock) => {
  const entries = new Map<string, Entry>()

  const isAlive = ({ lastActiveAt, record }: Entry) =>
    clock.unsafeCurrentTimeMillis() < lastActiveAt + record.timeToLive

  const find = (id: string): Entry | undefined => {
    const entry = entries.get(id)
    return entry !== undefined && isAlive(entry) ? entry : undefined
  }
  const living = () => Array.from(entries.values()).filter(isAlive)

  return SessionStore.of({
    isDurable: false,
    create: (record) =>
      Effect.suspend(() => {
        if (find(record.id) !== undefined) return new SessionExists()
        // The list is ordered by age, and a Map keeps the position of a key that is set again.
        entries.delete(record.id)
        entries.set(record.id, { record, lastActiveAt: record.lastActiveAt })
        return Effect.void
      }),
    get: (id) => Effect.sync(() => Option.map(Option.fromNullable(find(id)), toRecord)),
    touch: (id, at) => {
      const entry = find(id)
      if (entry !== undefined && at > entry.lastActiveAt) entry.lastActiveAt = at
    },
    update: (id, change) =>
      Effect.sync(() => {
        const entry = find(id)
        if (entry !== undefined) entry.record = new SessionRecord({ ...entry.record, ...change })
        return entry !== undefined
      }),
    remove: (id) =>
      Effect.sync(() => {
        const existed = find(id) !== undefined
        entries.delete(id)
        return existed
      }),
    list: Effect.sync(() => living().map(toRecord)),
    findByUpstream: (upstream, upstreamSessionId) =>
      Effect.sync(() =>
        Option.map(
          Option.fromNullable(
            living().find(
              ({ record }) => record.upstream === upstream && record.upstreamSessionId === upstreamSessionId
            )
          ),
          toRecord
        )
      ),
    removeExpired: Effect.sync(() => {
      const expired = Array.from(entries.values()).filter((entry) => !isAlive(entry))
      for (const { record } of expired) entries.delete(record.id)
      return expired.map(toRecord)
    })
  })
})

const toRecord = ({ lastActiveAt, record }: Entry): SessionRecord =>
  new SessionRecord({ ...record, lastActiveAt })

/** Provides a store whose records end with the process. */
export const layerMemory: Layer.Layer<SessionStore> = Layer.effect(SessionStore, makeMemory)
