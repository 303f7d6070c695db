/** The logs of streams as they lie in a SQLite file. */
import * as Schema from "effect/Schema"
import { RequestId } from "../Protocol.js"
import type { SqliteFile } from "./File.js"
import type { MemoryStream, StoredStream } from "../EventTracker/StreamLog.js"
import type { StreamEvent } from "../EventTracker/SessionLog.js"

const LogRow = Schema.Struct({
  id: Schema.Number,
  secret: Schema.String,
  generation: Schema.Number,
  count: Schema.Number
})
export type LogRow = typeof LogRow.Type

const StreamRow = Schema.Struct({
  number: Schema.Number,
  requests: Schema.parseJson(Schema.Array(RequestId)),
  cursor: Schema.NullOr(Schema.String),
  last: Schema.Number,
  hasEnded: Schema.Number,
  ends: Schema.parseJson(Schema.Array(Schema.Tuple(Schema.Number, Schema.Number)))
})

const EventRow = Schema.Struct({
  stream: Schema.Number,
  sequence: Schema.Number,
  frame: Schema.instanceOf(ArrayBuffer),
  upstreamId: Schema.NullOr(Schema.String)
})

const decodeLogs = Schema.decodeUnknownSync(Schema.Array(LogRow))
const decodeIds = Schema.decodeUnknownSync(Schema.Tuple(Schema.Struct({ id: Schema.Number })))
const decodeStreams = Schema.decodeUnknownSync(Schema.Array(StreamRow))
const decodeEvents = Schema.decodeUnknownSync(Schema.Array(EventRow))

export type Rows = ReturnType<typeof makeRows>

/** Its methods throw what SQLite says. */
export const makeRows = ({ prepare }: SqliteFile["Type"]) => {
  const find = prepare("SELECT id, secret, generation, count FROM logs WHERE session = ?")
  const begin = prepare(
    "INSERT INTO logs (session, secret, generation, count) VALUES (?, ?, 0, 0) RETURNING id"
  )
  const advance = prepare("UPDATE logs SET count = ? WHERE id = ?")
  const reopen = prepare("UPDATE logs SET generation = ? WHERE id = ?")
  const remove = prepare("DELETE FROM logs WHERE id = ?")
  const removeOrphans = prepare(
    "DELETE FROM logs WHERE session NOT IN (SELECT id FROM sessions WHERE lastActiveAt + timeToLive > ?)"
  )
  const streams = prepare(
    "SELECT number, requests, cursor, last, hasEnded, ends FROM streams WHERE log = ? ORDER BY number"
  )
  const putStream = prepare(
    `INSERT INTO streams (log, number, requests, cursor, last, hasEnded, ends) VALUES (?, ?, ?, ?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET cursor = excluded.cursor, last = excluded.last, hasEnded = excluded.hasEnded`
  )
  const putEnds = prepare("UPDATE streams SET ends = ? WHERE log = ? AND number = ?")
  const removeStream = prepare("DELETE FROM streams WHERE log = ? AND number = ?")
  const events = prepare(
    "SELECT stream, sequence, frame, upstreamId FROM events WHERE log = ? ORDER BY stream, sequence"
  )
  const addEvent = prepare(
    "INSERT INTO events (log, stream, sequence, frame, upstreamId) VALUES (?, ?, ?, ?, ?)"
  )
  const evict = prepare("DELETE FROM events WHERE log = ? AND stream = ? AND sequence <= ?")

  return {
    find: (session: string): LogRow | undefined => decodeLogs(find.all(session))[0],
    /** Begins a log, and gives its id. */
    begin: (session: string, secret: string): number => decodeIds(begin.all(session, secret))[0].id,
    /** Notes how many streams there have been. False when the log is gone. */
    advance: (log: number, count: number): boolean => advance.run(count, log) > 0,
    remove: (log: number) => void remove.run(log),
    /** Removes the logs of sessions that nobody can go on with. */
    removeOrphans: (now: number) => void removeOrphans.run(now),

    /** Takes up a log for another generation: its streams, which then know where the last one ended. */
    reopen: ({ generation, id }: LogRow): ReadonlyArray<StoredStream> => {
      reopen.run(generation + 1, id)
      const kept = new Map<number, Array<StoredStream["events"][number]>>()
      for (const { frame, sequence, stream, upstreamId } of decodeEvents(events.all(id))) {
        const event = { sequence, frame: Buffer.from(frame), upstreamId: upstreamId ?? undefined }
        const others = kept.get(stream)
        if (others === undefined) kept.set(stream, [event])
        else others.push(event)
      }
      return decodeStreams(streams.all(id)).map(({ cursor, ends, hasEnded, last, number, requests }) => {
        const known = [...ends, [generation, last] as const].slice(-MAX_ENDS)
        putEnds.run(JSON.stringify(known), id, number)
        return {
          number,
          requests,
          cursor: cursor ?? undefined,
          last,
          hasEnded: hasEnded === 1,
          ends: new Map(known),
          events: kept.get(number) ?? []
        }
      })
    },

    putStream: (log: number, stream: MemoryStream) =>
      void putStream.run(
        log,
        stream.number,
        JSON.stringify(stream.requests),
        stream.cursor ?? null,
        stream.lastSequence,
        stream.hasEnded ? 1 : 0,
        JSON.stringify(Array.from(stream.ends))
      ),
    removeStream: (log: number, number: number) => void removeStream.run(log, number),
    addEvent: (log: number, stream: number, { frame, sequence, upstreamId }: StreamEvent) =>
      void addEvent.run(log, stream, sequence, frame, upstreamId ?? null),
    /** Removes the events up to a place. */
    evict: (log: number, stream: number, place: number) => void evict.run(log, stream, place)
  }
}

/** Ids of so many generations are told from what was never issued then; older ones count as evicted. */
const MAX_ENDS = 64
