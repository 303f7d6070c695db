/** Session records in a SQLite file. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { SessionExists, type StoreError } from "../ProxyError.js"
import { SessionRecord, SessionStore } from "../SessionStore.js"
import { SqliteFile } from "./File.js"

/** What the hot path needs of a record: it never asks the file. */
interface Activity {
  lastActiveAt: number
  timeToLive: number
}

/** How often to look for activity that is to be written, as long as there is any. */
const INTERVAL = Duration.millis(100)

/** Activity of so long a time is one row for each session, in milliseconds: less would cost as much as a relayed call. */
const COALESCED = 1_000

/**
 * Records are created, changed and removed in the file at once. Activity is noted in memory, where expiry is judged,
 * and written behind, once a second for each session: that much of it is what a SIGKILL loses.
 */
export const make: Effect.Effect<SessionStore["Type"], StoreError, Scope.Scope | SqliteFile> = Effect.gen(
  function* () {
    const clock = yield* Effect.clock
    const file = yield* SqliteFile
    const rows = yield* file.attempt(() => statements(file))
    /** The activity of every record in the file, for nobody else writes there. */
    const known = yield* file.attempt(
      () => new Map<string, Activity>(rows.activities().map(({ id, ...activity }) => [id, activity]))
    )
    /** Those that were active since they were written, by when that began. */
    const touched = new Map<string, number>()
    const leaving = new Set<string>()

    file.writeBehind({
      write: () => {
        for (const id of leaving) {
          const activity = known.get(id)
          if (activity !== undefined) rows.touch(id, activity.lastActiveAt)
        }
        return () => leaving.clear()
      }
    })
    /** What was touched up to a time is to be written. */
    const release = (until: number) => {
      for (const [id, since] of touched) {
        if (since > until) break
        touched.delete(id)
        leaving.add(id)
        file.wait(1)
      }
    }
    yield* Effect.addFinalizer(() => Effect.sync(() => release(Infinity)))
    const something = Effect.unsafeMakeLatch()
    const releaseDue = Effect.sync(() => {
      release(clock.unsafeCurrentTimeMillis() - COALESCED)
      if (touched.size === 0) something.unsafeClose()
      return touched.size > 0
    })
    yield* something.await.pipe(
      Effect.zipRight(Effect.sleep(COALESCED)),
      Effect.zipRight(Effect.repeat(releaseDue, { while: Boolean, schedule: Schedule.spaced(INTERVAL) })),
      Effect.forever,
      Effect.forkScoped
    )

    const isAlive = ({ lastActiveAt, timeToLive }: Activity) =>
      clock.unsafeCurrentTimeMillis() < lastActiveAt + timeToLive

    const find = (id: string): Activity | undefined => {
      const activity = known.get(id)
      return activity !== undefined && isAlive(activity) ? activity : undefined
    }
    /** A record as it is with the activity that is not in the file yet. */
    const current = (record: SessionRecord): SessionRecord => {
      const lastActiveAt = known.get(record.id)?.lastActiveAt ?? record.lastActiveAt
      return lastActiveAt === record.lastActiveAt ? record : new SessionRecord({ ...record, lastActiveAt })
    }
    const read = (id: string): SessionRecord | undefined => rows.one(id).map(current)[0]
    const forget = (id: string) => {
      known.delete(id)
      touched.delete(id)
    }

    return SessionStore.of({
      isDurable: true,
      create: (record) =>
        Effect.suspend((): Effect.Effect<void, SessionExists | StoreError> => {
          if (find(record.id) !== undefined) return new SessionExists()
          const stored = known.has(record.id)
            ? file.transact(() => {
                rows.remove(record.id)
                rows.create(record)
              })
            : file.attempt(() => rows.create(record))
          return Effect.map(stored, () => {
            forget(record.id)
            known.set(record.id, activityOf(record))
          })
        }),
      get: (id) => file.attempt(() => Option.fromNullable(find(id) === undefined ? undefined : read(id))),
      touch: (id, at) => {
        const activity = find(id)
        if (activity === undefined || at <= activity.lastActiveAt) return
        activity.lastActiveAt = at
        if (touched.has(id)) return
        touched.set(id, clock.unsafeCurrentTimeMillis())
        something.unsafeOpen()
      },
      update: (id, change) =>
        file.attempt(() => {
          const activity = find(id)
          const record = activity === undefined ? undefined : read(id)
          if (activity === undefined || record === undefined) return false
          const changed = new SessionRecord({ ...record, ...change })
          rows.update(changed)
          activity.timeToLive = changed.timeToLive
          return true
        }),
      remove: (id) =>
        file.attempt(() => {
          const existed = find(id) !== undefined
          if (known.has(id)) rows.remove(id)
          forget(id)
          return existed
        }),
      list: file.attempt(() =>
        rows
          .all()
          .filter(({ id }) => find(id) !== undefined)
          .map(current)
      ),
      count: Effect.sync(() => Array.from(known.values()).filter(isAlive).length),
      findByUpstream: (upstream, upstreamSessionId) =>
        file.attempt(() =>
          Option.map(
            Option.fromNullable(
              rows.byUpstream(upstream, upstreamSessionId).find(({ id }) => find(id) !== undefined)
            ),
            current
          )
        ),
      removeExpired: Effect.suspend(() => {
        const expired = Array.from(known)
          .filter(([, activity]) => !isAlive(activity))
          .map(([id]) => id)
        if (expired.length === 0) return Effect.succeed([])
        const removed = file.transact(() =>
          expired.flatMap((id) => {
            const record = read(id)
            rows.remove(id)
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

/** Sessions outlive the process. */
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

const statements = ({ prepare }: SqliteFile["Type"]) => {
  const columns = Object.keys(Row.fields)
  const select = (which: string) => {
    const statement = prepare(`SELECT ${columns.join(", ")} FROM sessions ${which}`)
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
    `UPDATE sessions SET upstream = ?, upstreamSessionId = ?, protocolVersion = ?, capabilities = ?, logLevel = ?,
      subscriptions = ?, timeToLive = ? WHERE id = ?`
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
        record.protocolVersion,
        record.capabilities,
        record.logLevel ?? null,
        JSON.stringify(record.subscriptions),
        record.timeToLive,
        record.id
      ),
    touch: (id: string, at: number) => void touch.run(at, id),
    remove: (id: string) => void remove.run(id)
  }
}
