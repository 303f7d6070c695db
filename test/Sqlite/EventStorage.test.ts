import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import { copyFileSync, existsSync } from "node:fs"
import { join } from "node:path"
import * as Tracker from "../../src/EventTracker.js"
import { EventTracker, type EventTrackerOptions } from "../../src/EventTracker.js"
import type { SessionLog } from "../../src/EventTracker/SessionLog.js"
import { retainedEvents, type StreamLog } from "../../src/EventTracker/StreamLog.js"
import { SessionStore } from "../../src/SessionStore.js"
import * as SqliteEvents from "../../src/Sqlite/EventStorage.js"
import * as SqliteFile from "../../src/Sqlite/File.js"
import * as SqliteSessions from "../../src/Sqlite/SessionStore.js"
import { eventStorageContract, eventTrackerContract } from "../../src/testing.js"
import { record } from "../fixtures/records.js"
import { repeat } from "../fixtures/repeat.js"
import { makeMemoryFolder, overNewFile } from "../fixtures/sqlite.js"

const tracker = (options?: Partial<EventTrackerOptions>) =>
  Layer.provide(Tracker.layer(options), SqliteEvents.layer)

eventStorageContract("Sqlite.EventStorage", overNewFile(SqliteEvents.layer))
eventTrackerContract("EventTracker over Sqlite.EventStorage", (options) => overNewFile(tracker(options)))

const event = (text: string): Buffer => Buffer.from(`data: ${text}\n\n`)

/** The stores of one process. */
class Process {
  constructor(
    private readonly path: string,
    private readonly options: Partial<EventTrackerOptions>,
    private readonly services: Context.Context<EventTracker | SessionStore | SqliteFile.SqliteFile>,
    private readonly scope: Scope.CloseableScope
  ) {}

  get store(): SessionStore["Type"] {
    return Context.get(this.services, SessionStore)
  }

  get tracker(): EventTracker["Type"] {
    return Context.get(this.services, EventTracker)
  }

  open(session: string): Effect.Effect<SessionLog> {
    return Effect.orDie(Effect.flatMap(this.tracker.open(session), Effect.fromNullable))
  }

  /** The number of rows in each table. */
  get rows(): ReadonlyArray<number> {
    const { prepare } = Context.get(this.services, SqliteFile.SqliteFile)
    return ["logs", "streams", "events"].map((table) => prepare(`SELECT * FROM ${table}`).all().length)
  }

  /** Waits until all changes are written. */
  get flushed(): Effect.Effect<void> {
    return TestClock.adjust("20 millis")
  }

  /** Ends the process, and starts another with the same file. */
  get restarted(): Effect.Effect<Process, never, Scope.Scope> {
    return Effect.zipRight(Scope.close(this.scope, Exit.void), start(this.path, this.options))
  }

  /** Starts another process with a copy of the file. Later writes of this process do not reach the copy. */
  get killed(): Effect.Effect<Process, never, Scope.Scope> {
    return Effect.suspend(() => {
      const path = `${this.path}+`
      copyFileSync(this.path, path)
      if (existsSync(`${this.path}-wal`)) copyFileSync(`${this.path}-wal`, `${path}-wal`)
      return Effect.zipRight(Scope.close(this.scope, Exit.void), start(path, this.options))
    })
  }
}

const start = (
  path: string,
  options: Partial<EventTrackerOptions>
): Effect.Effect<Process, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const both = Layer.provideMerge(
      Layer.merge(tracker(options), SqliteSessions.layer),
      SqliteFile.layer({ path })
    )
    return new Process(path, options, yield* Effect.orDie(Layer.buildWithScope(both, scope)), scope)
  })

/** Starts a process with a new file and the record of a session `a`. */
const begin = (options: Partial<EventTrackerOptions> = {}): Effect.Effect<Process, never, Scope.Scope> =>
  Effect.gen(function* () {
    const process = yield* start(join(yield* makeMemoryFolder, "sessions.db"), options)
    yield* Effect.orDie(process.store.create(record("a", { timeToLive: Infinity })))
    return process
  })

const framesOf = (stream: StreamLog): ReadonlyArray<string> =>
  Array.from(
    retainedEvents(stream),
    ({ frame, sequence, upstreamId }) => `${sequence} ${upstreamId} ${frame.toString()}`
  )

describe("the SQLite file", () => {
  it.scoped("has no rows of a stream that was created and delivered between two flushes", () =>
    Effect.gen(function* () {
      const process = yield* begin()
      const log = yield* process.open("a")
      const stream = log.createStream([1])
      stream.append(event("x"), undefined)
      stream.end()
      stream.markDelivered()
      yield* process.flushed
      expect(process.rows).toEqual([1, 0, 0])
      stream.beginReplay()
      yield* process.flushed
      expect(process.rows).toEqual([1, 1, 1])
      stream.markDelivered()
      yield* process.flushed
      expect(process.rows).toEqual([1, 0, 0])
    })
  )

  it.scoped("has the streams that are not delivered, without evicted events", () =>
    Effect.gen(function* () {
      const process = yield* begin({ maxEvents: 3 })
      const log = yield* process.open("a")
      const [one, other] = [log.createStream([1]), log.createStream([])]
      for (let count = 0; count < 5; count++) one.append(event("x"), undefined)
      yield* process.flushed
      expect(process.rows).toEqual([1, 2, 3])
      for (let count = 0; count < 2; count++) other.append(event("x"), undefined)
      yield* process.flushed
      expect(process.rows).toEqual([1, 2, 3])
      other.clear()
      yield* process.flushed
      expect(process.rows).toEqual([1, 2, 1])
      one.remove()
      yield* process.flushed
      expect(process.rows).toEqual([1, 1, 0])
    })
  )

  it.scoped("has no log of a closed session, nor of a session whose record was removed", () =>
    Effect.gen(function* () {
      const process = yield* begin()
      yield* Effect.orDie(process.store.create(record("b")))
      for (const session of ["a", "b", "c"])
        (yield* process.open(session)).createStream([1]).append(event("x"), "1")
      yield* process.flushed
      expect(process.rows).toEqual([3, 3, 3])
      const log = yield* process.open("a")
      log.close()
      const reopened = yield* process.open("a")
      expect(reopened.unfinished).toEqual([])
      reopened.close()
      yield* process.flushed
      expect(process.rows).toEqual([2, 2, 2])
      yield* TestClock.adjust("60 seconds")
      yield* Effect.orDie(process.store.removeExpired)
      expect(process.rows).toEqual([1, 1, 1])
      // Session `c` never had a record.
      expect((yield* process.restarted).rows).toEqual([0, 0, 0])
    })
  )

  for (const end of ["log is closed", "process is killed"] as const)
    it.scoped(`has no rows of an open log whose record was removed after the ${end}`, () =>
      Effect.gen(function* () {
        const process = yield* begin()
        const log = yield* process.open("a")
        const stream = log.createStream([1])
        stream.append(event("x"), undefined)
        yield* process.flushed
        yield* Effect.orDie(process.store.remove("a"))
        expect(process.rows).toEqual([0, 0, 0])
        // The storage cannot know whether the log was removed or lost, so the open log is created again.
        stream.append(event("y"), undefined)
        yield* process.flushed
        expect(process.rows).toEqual([1, 1, 2])
        if (end === "log is closed") log.close()
        yield* process.flushed
        expect((end === "log is closed" ? process : yield* process.killed).rows).toEqual([0, 0, 0])
      })
    )
})

describe("another process", () => {
  it.scoped("restores a suspended log and issues none of its ids again", () =>
    Effect.gen(function* () {
      const first = yield* begin()
      const log = yield* first.open("a")
      const [answering, standalone] = [log.createStream([1, "two"]), log.createStream([])]
      answering.append(event("1"), "up-1")
      standalone.append(event("2"), undefined)
      standalone.setCursor("up-7")
      const ids = [answering.idAt(0), answering.idAt(1), standalone.idAt(1)]
      yield* log.suspend
      const second = yield* first.restarted
      const again = yield* second.open("a")
      expect(
        again.unfinished.map(({ cursor, lastSequence, requests }) => ({ cursor, lastSequence, requests }))
      ).toEqual([
        { cursor: "up-1", lastSequence: 1, requests: [1, "two"] },
        { cursor: "up-7", lastSequence: 1, requests: [] }
      ])
      const [one, other] = again.unfinished
      expect(again.find(ids[0] ?? "")).toEqual({ stream: one, sequence: 0 })
      expect(again.find(ids[1] ?? "")).toEqual({ stream: one, sequence: 1 })
      expect(again.find(ids[2] ?? "")).toEqual({ stream: other, sequence: 1 })
      expect(again.addUpstreamId("up-1")).toBe(false)
      expect(ids).not.toContain(one?.idAt(one.lastSequence))
    })
  )

  it.scoped("treats events that were issued but not written as evicted", () =>
    Effect.gen(function* () {
      const first = yield* begin()
      const log = yield* first.open("a")
      const [answering, standalone] = [log.createStream([1]), log.createStream([])]
      for (const stream of [answering, standalone]) stream.append(event("1"), undefined)
      yield* first.flushed
      for (const stream of [answering, standalone]) stream.append(event("2"), undefined)
      const late = log.createStream([3])
      late.append(event("3"), undefined)
      const second = yield* first.killed
      const again = yield* second.open("a")
      const [one, other] = again.unfinished
      expect(again.unfinished.length).toBe(2)
      expect(again.find(answering.idAt(2))).toEqual({ stream: one, sequence: -1 })
      expect(one?.hasEvicted(-1)).toBe(true)
      expect(again.find(standalone.idAt(2))).toEqual({ stream: other, sequence: 1 })
      expect(again.find(late.idAt(1))).toMatchObject({ stream: { requests: [3] }, sequence: -1 })
    })
  )
})

interface Step {
  readonly act: (typeof acts)[number]
  readonly which: number
}

const acts = [
  "begin",
  "listen",
  ...repeat(6, "append"),
  "large",
  "skip",
  "setCursor",
  "end",
  "deliver",
  "replay",
  "clear",
  "remove",
  ...repeat(3, "flush"),
  "reopen",
  "restart",
  "kill"
] as const

interface StreamState {
  readonly requests: ReadonlyArray<unknown>
  readonly cursor: string | undefined
  readonly lastSequence: number
  readonly hasEnded: boolean
  readonly evictedUpTo: number
  readonly frames: ReadonlyArray<string>
}

const stateOf = (stream: StreamLog): StreamState => ({
  requests: stream.requests,
  cursor: stream.cursor,
  lastSequence: stream.lastSequence,
  hasEnded: stream.hasEnded,
  evictedUpTo: stream.evictedUpTo,
  frames: framesOf(stream)
})

/** Performs the steps of one session, and knows what a later process must find. */
class SessionModel {
  readonly issued = new Map<string, ReadonlyArray<unknown>>()
  /** The streams of which a client may miss events, each with one of its ids. */
  private streams: Array<{ readonly log: StreamLog; readonly id: string; isDelivered: boolean }> = []
  /** The state of the streams at the last flush, by an id of each stream. */
  private stored: ReadonlyMap<string, StreamState> = new Map()

  constructor(
    private process: Process,
    private log: SessionLog
  ) {}

  perform({ act, which }: Step): Effect.Effect<void, never, Scope.Scope> {
    const stream = this.streams[which % Math.max(this.streams.length, 1)]
    switch (act) {
      case "begin":
      case "listen":
        return Effect.sync(() => this.begin(act === "begin" ? [which] : []))
      case "flush":
        return Effect.zipRight(this.process.flushed, Effect.sync(this.note))
      case "reopen":
        return Effect.zipRight(this.suspend, this.reopen(Effect.succeed(this.process)))
      case "restart":
        return Effect.zipRight(this.suspend, this.reopen(this.process.restarted))
      case "kill":
        return this.reopen(this.process.killed)
      default:
        return Effect.sync(() => {
          if (stream === undefined) return
          const { log } = stream
          if (act === "append" && !log.hasEnded) this.issue(log, `${which}`)
          if (act === "large" && !log.hasEnded) this.issue(log, "x".repeat(5_000))
          if (act === "skip" && !log.hasEnded) log.skip()
          if (act === "setCursor") log.setCursor(`up-${which}`)
          if (act === "end") log.end()
          if (act === "clear") log.clear()
          if (act === "deliver" && log.hasEnded) {
            log.markDelivered()
            stream.isDelivered = true
          }
          if (act === "replay" && stream.isDelivered && log.after(log.evictedUpTo) !== undefined) {
            log.beginReplay()
            stream.isDelivered = false
          }
          if (act === "remove") {
            log.remove()
            this.streams = this.streams.filter((one) => one !== stream)
          }
        })
    }
  }

  private begin(requests: ReadonlyArray<number>): void {
    const log = this.log.createStream(requests)
    this.streams.push({ log, id: log.idAt(0), isDelivered: false })
    this.addId(log, 0)
  }

  private issue(log: StreamLog, text: string): void {
    const upstreamId = text.length < 3 ? `up-${text}` : undefined
    this.addId(log, log.append(event(text), upstreamId).sequence)
  }

  private addId(log: StreamLog, sequence: number): void {
    const id = log.idAt(sequence)
    expect(this.issued.has(id)).toBe(false)
    this.issued.set(id, log.requests)
  }

  private readonly note = (): void => {
    // A stream without events need not be stored, because its event ids hold its requests.
    const wanted = this.streams.filter(
      ({ isDelivered, log }) =>
        !isDelivered && (log.lastSequence > 0 || log.cursor !== undefined || log.requests.length === 0)
    )
    this.stored = new Map(wanted.map(({ id, log }) => [id, stateOf(log)]))
  }

  private readonly suspend = Effect.suspend(() => {
    this.note()
    return this.log.suspend
  })

  private reopen(next: Effect.Effect<Process, never, Scope.Scope>): Effect.Effect<void, never, Scope.Scope> {
    return Effect.gen(this, function* () {
      this.process = yield* next
      this.log = yield* this.process.open("a")
      const found = Array.from(this.stored, ([id, state]) => ({ id, state, position: this.log.find(id) }))
      this.streams = found.flatMap(({ id, position, state }) => {
        expect(position?.stream).toBeDefined()
        if (position?.stream === undefined) return []
        expect(stateOf(position.stream)).toEqual(state)
        expect(position.sequence).toBe(0)
        this.addId(position.stream, position.stream.lastSequence)
        return [{ log: position.stream, id, isDelivered: false }]
      })
      expect(this.log.unfinished).toEqual(
        this.streams.filter(({ log }) => !log.hasEnded).map(({ log }) => log)
      )
    })
  }

  /** Expects that every id that was ever issued names a position, in a stream with the same requests. */
  findAll(): void {
    for (const [id, requests] of this.issued) {
      const position = this.log.find(id)
      expect(position).toBeDefined()
      if (position?.stream !== undefined) expect(position.stream.requests).toEqual(requests)
    }
  }
}

it.scoped.prop(
  "processes that end or are killed at any time issue no id twice and restore everything that was flushed",
  [
    FastCheck.array(
      FastCheck.record({ act: FastCheck.constantFrom(...acts), which: FastCheck.nat({ max: 9 }) }),
      { maxLength: 60, size: "max" }
    )
  ],
  ([steps]) =>
    Effect.scoped(
      Effect.gen(function* () {
        const process = yield* begin({ maxEvents: 8, maxEventBytes: 4_000, retention: "1000 days" })
        const model = new SessionModel(process, yield* process.open("a"))
        for (const step of steps) yield* model.perform(step)
        model.findAll()
      })
    ),
  { fastCheck: { numRuns: 100 }, timeout: 60_000 }
)
