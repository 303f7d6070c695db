/** Session records in a SQLite file. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { SessionExists, type StoreError } from "../ProxyError.js"
import { SessionRecord, SessionStore } from "../SessionStore.js"
import * as ActivityWriter from "../SessionStore/ActivityWriter.js"
import { SqliteFile } from "./File.js"

/** The part of a record that decides whether it has expired. `touch` reads only this, and not the file. */
interface Activity {
  lastActiveAt: number
  timeToLive: number
}

/**
 * Creates, changes and removes records in the file at once. Activity is kept in memory and written behind, at most once a
 * second per session. A SIGKILL loses the activity of the last second.
 */
export const make: Effect.Effect<SessionStore["Type"], StoreError, Scope.Scope | SqliteFile> = Effect.gen(
  function* () {
    const clock = yield* Effect.clock
    const file = yield* SqliteFile
    const sql = yield* file.attempt(() => statements(file))
    /** The activity of every record in the file. No other process changes the file. */
    const activities = yield* file.attempt(
      () => new Map<string, Activity>(sql.activities().map(({ id, ...activity }) => [id, activity]))
    )
    const activityWriter = yield* ActivityWriter.make((ids) =>
      file.transact(() => {
        for (const id of ids) {
          const activity = activities.get(id)
          if (activity !== undefined) sql.touch(id, activity.lastActiveAt)
        }
      })
    )

    const isAlive = ({ lastActiveAt, timeToLive }: Activity) =>
      clock.unsafeCurrentTimeMillis() < lastActiveAt + timeToLive

    const find = (id: string): Activity | undefined => {
      const activity = activities.get(id)
      return activity !== undefined && isAlive(activity) ? activity : undefined
    }
    /** Returns a record from the file with its latest activity. */
    const current = (record: SessionRecord): SessionRecord => {
      const lastActiveAt = activities.get(record.id)?.lastActiveAt ?? record.lastActiveAt
      return lastActiveAt === record.lastActiveAt ? record : new SessionRecord({ ...record, lastActiveAt })
    }
    const read = (id: string): SessionRecord | undefined => sql.one(id).map(current)[0]
    const forget = (id: string) => {
      activities.delete(id)
      activityWriter.forget(id)
    }

    return SessionStore.of({
      isDurable: true,
      create: (record) =>
        Effect.suspend((): Effect.Effect<void, SessionExists | StoreError> => {
          if (find(record.id) !== undefined) return new SessionExists()
          const stored = activities.has(record.id)
            ? file.transact(() => {
                sql.remove(record.id)
                sql.create(record)
              })
            : file.attempt(() => sql.create(record))
          return Effect.map(stored, () => {
            forget(record.id)
            activities.set(record.id, activityOf(record))
          })
        }),
      get: (id) => file.attempt(() => Option.fromNullable(find(id) === undefined ? undefined : read(id))),
      touch: (id, at) => {
        const activity = find(id)
        if (activity === undefined || at <= activity.lastActiveAt) return
        activity.lastActiveAt = at
        activityWriter.touched(id)
      },
      update: (id, change) =>
        file.attempt(() => {
          const activity = find(id)
          const record = activity === undefined ? undefined : read(id)
          if (activity === undefined || record === undefined) return false
          const changed = new SessionRecord({ ...record, ...change })
          sql.update(changed)
          activity.timeToLive = changed.timeToLive
          return true
        }),
      remove: (id) =>
        file.attempt(() => {
          const existed = find(id) !== undefined
          if (activities.has(id)) sql.remove(id)
          forget(id)
          return existed
        }),
      list: file.attempt(() =>
        sql
          .all()
          .filter(({ id }) => find(id) !== undefined)
          .map(current)
      ),
      findByUpstream: (upstream, upstreamSessionId) =>
        file.attempt(() =>
          Option.map(
            Option.fromNullable(
              sql.byUpstream(upstream, upstreamSessionId).find(({ id }) => find(id) !== undefined)
            ),
            current
          )
        ),
      removeExpired: Effect.suspend(() => {
        const expired = Array.from(activities)
          .filter(([, activity]) => !isAlive(activity))
          .map(([id]) => id)
        if (expired.length === 0) return Effect.succeed([])
        const removed = file.transact(() =>
          expired.flatMap((id) => {
            const record = read(id)
            sql.remove(id)
            return record === undefined ? [] : [record]
          })
        )
        return Effect.tap(removed, () => {
          for (const id of expired) forget(id)
        })
      })
    })
  }
)

/** Provides a store whose records outlive the process. */
export const layer: Layer.Layer<SessionStore, StoreError, SqliteFile> = Layer.scoped(SessionStore, make)

const activityOf = ({ lastActiveAt, timeToLive }: SessionRecord): Activity => ({ lastActiveAt, timeToLive })

const Row = Schema.Struct({
  id: Schema.NonEmptyString,
  upstream: Schema.String,
  upstreamSessionId: Schema.NullOr(Schema.String),
  protocolVersion: Schema.String,
  initialize: Schema.String,
  capabilities: Schema.String,
  logLevel: Schema.NullOr(Schema.String),
  subscriptions: Schema.parseJson(Schema.Array(Schema.String)),
  client: Schema.String,
  createdAt: Schema.Number,
  lastActiveAt: Schema.Number,
  timeToLive: Schema.Number
})

const decode = Schema.decodeUnknownSync(Schema.Array(Row))
const decodeActivities = Schema.decodeUnknownSync(Schema.Array(Row.pick("id", "lastActiveAt", "timeToLive")))

/** The returned functions throw SQLite's errors. */
const statements = ({ prepare }: SqliteFile["Type"]) => {
  const columns = Object.keys(Row.fields)
  const select = (clause: string) => {
    const statement = prepare(`SELECT ${columns.join(", ")} FROM sessions ${clause}`)
    return (...values: ReadonlyArray<string>): ReadonlyArray<SessionRecord> =>
      decode(statement.all(...values)).map(
        ({ logLevel, upstreamSessionId, ...row }) =>
          new SessionRecord({
            ...row,
            upstreamSessionId: upstreamSessionId ?? undefined,
            logLevel: logLevel ?? undefined
          })
      )
  }
  const activities = prepare("SELECT id, lastActiveAt, timeToLive FROM sessions")
  const insert = prepare(
    `INSERT INTO sessions (${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})`
  )
  const update = prepare(
    `UPDATE sessions SET upstream = ?, upstreamSessionId = ?, logLevel = ?, subscriptions = ?, timeToLive = ?
      WHERE id = ?`
  )
  const touch = prepare("UPDATE sessions SET lastActiveAt = ? WHERE id = ?")
  const remove = prepare("DELETE FROM sessions WHERE id = ?")
  return {
    activities: () => decodeActivities(activities.all()),
    all: select("ORDER BY number"),
    one: select("WHERE id = ?"),
    byUpstream: select("WHERE upstream = ? AND upstreamSessionId = ?"),
    create: (record: SessionRecord) =>
      void insert.run(
        record.id,
        record.upstream,
        record.upstreamSessionId ?? null,
        record.protocolVersion,
        record.initialize,
        record.capabilities,
        record.logLevel ?? null,
        JSON.stringify(record.subscriptions),
        record.client,
        record.createdAt,
        record.lastActiveAt,
        record.timeToLive
      ),
    update: (record: SessionRecord) =>
      void update.run(
        record.upstream,
        record.upstreamSessionId ?? null,
        record.logLevel ?? null,
        JSON.stringify(record.subscriptions),
        record.timeToLive,
        record.id
      ),
    touch: (id: string, at: number) => void touch.run(at, id),
    remove: (id: string) => void remove.run(id)
  }
}
