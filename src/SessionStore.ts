/** What is needed to go on with a session, apart from what is live in this process. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { SessionExists, type StoreError } from "./ProxyError.js"

/**
 * A session as it is stored. It holds no credentials, but its ids are what opens the session: keep it from those
 * who may not. Times are milliseconds since 1970.
 */
export class SessionRecord extends Schema.Class<SessionRecord>("SessionRecord")({
  /** The id that the proxy issued to the client. */
  id: Schema.NonEmptyString,
  /** The upstream's address, and the id of the session there; some upstreams issue none. */
  upstream: Schema.String,
  upstreamSessionId: Schema.optional(Schema.String),
  /** The revision that `initialize` settled. */
  protocolVersion: Schema.String,
  /** The parameters of the client's `initialize`, as JSON. */
  initialize: Schema.String,
  /** What the server declared that it can do, as JSON. */
  capabilities: Schema.String,
  /** What the client has settled since, to be settled again with a server that knows nothing of it. */
  logLevel: Schema.optional(Schema.String),
  subscriptions: Schema.Array(Schema.String),
  /** The client's address, under which its sessions are counted. */
  client: Schema.String,
  createdAt: Schema.Number,
  lastActiveAt: Schema.Number,
  /** How long the session lives without activity. */
  timeToLive: Schema.Number
}) {
  /** The record is absent from this time on. */
  get expiresAt(): number {
    return this.lastActiveAt + this.timeToLive
  }
}

/** What may change in a record. */
export type Change = Partial<
  Pick<
    SessionRecord,
    | "upstream"
    | "upstreamSessionId"
    | "protocolVersion"
    | "capabilities"
    | "logLevel"
    | "subscriptions"
    | "timeToLive"
  >
>

/**
 * Stores session records, with three properties. `create` fails on an id that exists. `touch` never brings back what
 * has expired or was removed. And expiry is the store's own: a record past its time is absent for every method,
 * whether or not anything has swept it away.
 */
export class SessionStore extends Context.Tag("shadowcat/SessionStore")<
  SessionStore,
  {
    /** Whether records outlive the process: then a shutdown leaves sessions for the next one to go on with. */
    readonly isDurable: boolean

    /** Stores a new record. Fails when one with its id exists. A durable store has it for good on return. */
    readonly create: (record: SessionRecord) => Effect.Effect<void, SessionExists | StoreError>

    /** The record with this id. */
    readonly get: (id: string) => Effect.Effect<Option.Option<SessionRecord>, StoreError>

    /**
     * Notes activity at a time and so puts off the expiry. Synchronous, for every exchange does it; durable
     * stores write behind. Never brings back a record that has expired or was removed, never goes back in time.
     */
    readonly touch: (id: string, at: number) => void

    /** Changes a record; what is named as `undefined` is taken out. False when there is none. */
    readonly update: (id: string, change: Change) => Effect.Effect<boolean, StoreError>

    /** Removes a record. False when there is none. */
    readonly remove: (id: string) => Effect.Effect<boolean, StoreError>

    /** All records, oldest first. */
    readonly list: Effect.Effect<ReadonlyArray<SessionRecord>, StoreError>

    /** How many records there are. */
    readonly count: Effect.Effect<number, StoreError>

    /** The record of the session that an upstream knows by this id. */
    readonly findByUpstream: (
      upstream: string,
      upstreamSessionId: string
    ) => Effect.Effect<Option.Option<SessionRecord>, StoreError>

    /** Removes what has expired, and returns it. */
    readonly removeExpired: Effect.Effect<ReadonlyArray<SessionRecord>, StoreError>
  }
>() {}

interface Entry {
  record: SessionRecord
  lastActiveAt: number
}

/** A store in this process's memory: its records end with the process. */
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
        // A Map keeps the place of a key that is set again, and the list is ordered by age.
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
    count: Effect.sync(() => living().length),
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

/** Sessions end with the process. */
export const layerMemory: Layer.Layer<SessionStore> = Layer.effect(SessionStore, makeMemory)
