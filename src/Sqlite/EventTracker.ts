/** The events of streams in a SQLite file. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { defaults, EventTracker, type EventTrackerOptions } from "../EventTracker.js"
import type { StoreError } from "../ProxyError.js"
import { SqliteFile } from "./File.js"
import * as Ledger from "../EventTracker/Retention.js"
import { begin, MemoryLog } from "../EventTracker/MemoryLog.js"
import { type Desk, SqliteJournal } from "./Journal.js"
import { makeRows } from "./eventRows.js"

/**
 * A tracker that reads from memory, as the one without a file does, and writes behind: what a log gains in the file
 * is what its clients could still miss.
 */
export const make = (
  options: EventTrackerOptions
): Effect.Effect<EventTracker["Type"], StoreError, Scope.Scope | SqliteFile> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const file = yield* SqliteFile
    const ledger = yield* Ledger.make(options, Duration.toMillis(options.retention))
    const rows = yield* file.attempt(() => makeRows(file))
    yield* file.attempt(() => rows.removeOrphans(clock.unsafeCurrentTimeMillis()))

    const journals = new Map<number, SqliteJournal>()
    const removed = new Set<number>()
    const desk: Desk = {
      rows,
      waiting: new Set(),
      wait: file.wait,
      flush: file.flush,
      finished: ({ log }, isClosed) => {
        journals.delete(log)
        if (!isClosed) return
        removed.add(log)
        file.wait(1)
      }
    }
    file.writeBehind({
      write: () => {
        for (const log of removed) rows.remove(log)
        const written = Array.from(desk.waiting, (journal) => journal.write())
        return () => {
          removed.clear()
          desk.waiting.clear()
          for (const settle of written) settle()
        }
      }
    })

    const open = (session: string) => {
      const stored = rows.find(session)
      if (stored !== undefined && !removed.has(stored.id)) {
        const { count, generation, id, secret } = stored
        return { id, origin: { secret, generation: generation + 1, count, streams: rows.reopen(stored) } }
      }
      if (stored !== undefined) rows.remove(stored.id)
      const origin = begin()
      return { id: rows.begin(session, origin.secret), origin }
    }

    return EventTracker.of({
      options,
      open: (session) =>
        options.maxEvents === 0
          ? Effect.succeed(undefined)
          : file
              .attempt(() => {
                // Whoever has it open already has it no longer.
                const { id } = rows.find(session) ?? {}
                if (id !== undefined) journals.get(id)?.suspended()
              })
              .pipe(
                Effect.zipRight(file.transact(() => open(session))),
                Effect.map(({ id, origin }) => {
                  const journal = new SqliteJournal(id, origin.count, origin.streams, desk)
                  journals.set(id, journal)
                  return new MemoryLog(ledger, origin, journal)
                })
              ),
      size: () => ledger.sums
    })
  })

/**
 * Events outlive the process, for the sessions whose records are in the same file: `SessionStore/Sqlite`. What belongs
 * to no such session is removed at the start.
 */
export const layer = (
  options?: Partial<EventTrackerOptions>
): Layer.Layer<EventTracker, StoreError, SqliteFile> =>
  Layer.scoped(EventTracker, make({ ...defaults, ...options }))
