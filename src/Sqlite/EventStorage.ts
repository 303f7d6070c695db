/** The logs of streams in a SQLite file. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import {
  EventStorage,
  type LogChange,
  type RejectedChange,
  type StoredEvent
} from "../EventTracker/EventStorage.js"
import type { StoreError } from "../ProxyError.js"
import { SqliteFile } from "./File.js"

/**
 * Stores logs in the tables `logs`, `streams` and `events`. A trigger removes a log with the record of its session. When
 * the file is opened, logs without a record are removed.
 */
export const make: Effect.Effect<EventStorage["Type"], StoreError, SqliteFile> = Effect.gen(function* () {
  const clock = yield* Effect.clock
  const file = yield* SqliteFile
  const sql = yield* file.attempt(() => statements(file))
  yield* file.attempt(() => sql.removeOrphans(clock.unsafeCurrentTimeMillis()))
  return EventStorage.of({
    name: file.path,
    load: (session) => file.attempt(() => sql.load(session)),
    write: (changes) => file.transact(() => changes.flatMap(sql.write)),
    remove: (sessions) => file.transact(() => sessions.forEach(sql.remove))
  })
})

export const layer: Layer.Layer<EventStorage, StoreError, SqliteFile> = Layer.effect(EventStorage, make)

const LogRow = Schema.Struct({
  id: Schema.Number,
  secret: Schema.String,
  generation: Schema.Number,
  count: Schema.Number
})

const StreamRow = Schema.Struct({
  number: Schema.Number,
  requests: Schema.String,
  cursor: Schema.NullOr(Schema.String),
  last: Schema.Number,
  hasEnded: Schema.Number,
  ends: Schema.String
})

const EventRow = Schema.Struct({
  stream: Schema.Number,
  sequence: Schema.Number,
  frame: Schema.instanceOf(ArrayBuffer),
  upstreamId: Schema.NullOr(Schema.String)
})

const decodeLogs = Schema.decodeUnknownSync(Schema.Array(LogRow))
const decodeIds = Schema.decodeUnknownSync(Schema.Array(Schema.Struct({ id: Schema.Number })))
const decodeStreams = Schema.decodeUnknownSync(Schema.Array(StreamRow))
const decodeEvents = Schema.decodeUnknownSync(Schema.Array(EventRow))

/** The returned functions throw SQLite's errors. */
const statements = ({ prepare }: SqliteFile["Type"]) => {
  const findLog = prepare("SELECT id, secret, generation, count FROM logs WHERE session = ?")
  const createLog = prepare(
    `INSERT INTO logs (session, secret, generation, count) VALUES (?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET count = excluded.count
        WHERE secret = excluded.secret AND generation = excluded.generation RETURNING id`
  )
  const openLog = prepare(
    "UPDATE logs SET generation = ?, count = ? WHERE session = ? AND secret = ? AND generation = ? RETURNING id"
  )
  const updateLog = prepare(
    "UPDATE logs SET count = ? WHERE session = ? AND secret = ? AND generation = ? RETURNING id"
  )
  const removeLog = prepare("DELETE FROM logs WHERE session = ?")
  const removeOrphans = prepare(
    "DELETE FROM logs WHERE session NOT IN (SELECT id FROM sessions WHERE lastActiveAt + timeToLive > ?)"
  )
  const findStreams = prepare(
    "SELECT number, requests, cursor, last, hasEnded, ends FROM streams WHERE log = ? ORDER BY number"
  )
  const putStream = prepare(
    `INSERT INTO streams (log, number, requests, cursor, last, hasEnded, ends) VALUES (?, ?, ?, ?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET
        cursor = excluded.cursor, last = excluded.last, hasEnded = excluded.hasEnded, ends = excluded.ends`
  )
  const removeStream = prepare("DELETE FROM streams WHERE log = ? AND number = ?")
  const findEvents = prepare(
    "SELECT stream, sequence, frame, upstreamId FROM events WHERE log = ? ORDER BY stream, sequence"
  )
  const addEvent = prepare(
    `INSERT INTO events (log, stream, sequence, frame, upstreamId) VALUES (?, ?, ?, ?, ?)
      ON CONFLICT DO NOTHING`
  )
  const evictEvents = prepare("DELETE FROM events WHERE log = ? AND stream = ? AND sequence <= ?")

  const eventsOf = (log: number): ReadonlyMap<number, ReadonlyArray<StoredEvent>> => {
    const byStream = new Map<number, Array<StoredEvent>>()
    for (const { frame, sequence, stream, upstreamId } of decodeEvents(findEvents.all(log))) {
      const event = { sequence, frame: Buffer.from(frame), upstreamId: upstreamId ?? undefined }
      const events = byStream.get(stream)
      if (events === undefined) byStream.set(stream, [event])
      else events.push(event)
    }
    return byStream
  }

  /** Returns the row of the log; `undefined` if the log does not have the generation that the change expects. */
  const logOf = ({ generation, kind, secret, session, streamCount }: LogChange): number | undefined => {
    const run = {
      create: () => createLog.all(session, secret, generation, streamCount),
      open: () => openLog.all(generation, streamCount, session, secret, generation - 1),
      update: () => updateLog.all(streamCount, session, secret, generation)
    }
    return decodeIds(run[kind]())[0]?.id
  }

  return {
    load: (session: string) =>
      Option.map(
        Option.fromNullable(decodeLogs(findLog.all(session))[0]),
        ({ count, generation, id, secret }) => {
          const events = eventsOf(id)
          return {
            secret,
            generation,
            streamCount: count,
            streams: decodeStreams(findStreams.all(id)).map(({ cursor, hasEnded, last, ...stream }) => ({
              ...stream,
              cursor: cursor ?? undefined,
              lastSequence: last,
              hasEnded: hasEnded === 1,
              events: events.get(stream.number) ?? []
            }))
          }
        }
      ),

    /** Returns the change if it is rejected. */
    write: (change: LogChange): ReadonlyArray<RejectedChange> => {
      const log = logOf(change)
      if (log === undefined) {
        const { session } = change
        return [{ session, reason: findLog.all(session).length === 0 ? "missing" : "superseded" }]
      }
      for (const number of change.removedStreams) removeStream.run(log, number)
      for (const stream of change.streams) {
        const { cursor, ends, events, evictUpTo, hasEnded, lastSequence, number, requests } = stream
        putStream.run(log, number, requests, cursor ?? null, lastSequence, hasEnded ? 1 : 0, ends)
        if (evictUpTo !== undefined) evictEvents.run(log, number, evictUpTo)
        for (const { frame, sequence, upstreamId } of events)
          addEvent.run(log, number, sequence, frame, upstreamId ?? null)
      }
      return []
    },

    remove: (session: string) => void removeLog.run(session),
    removeOrphans: (now: number) => void removeOrphans.run(now)
  }
}
