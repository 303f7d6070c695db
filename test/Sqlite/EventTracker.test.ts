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
import { EventTracker, type EventTrackerOptions } from "../../src/EventTracker.js"
import type { SessionLog, StreamLog } from "../../src/EventTracker/SessionLog.js"
import { layer } from "../../src/Sqlite/EventTracker.js"
import { layer as layerSessions } from "../../src/Sqlite/SessionStore.js"
import { SessionStore } from "../../src/SessionStore.js"
import * as SqliteFile from "../../src/Sqlite/File.js"
import { eventTrackerContract } from "../../src/testing.js"
import { record } from "../fixtures/records.js"
import { repeat } from "../fixtures/repeat.js"
import { inMemory, overNewFile } from "../fixtures/sqlite.js"

eventTrackerContract("Sqlite.layer", (options) => overNewFile(layer(options)))

const event = (text: string): Buffer => Buffer.from(`data: ${text}\n\n`)

/** The part of one process. */
class Part {
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

  /** How many rows there are of each kind. */
  get rows(): ReadonlyArray<number> {
    const { prepare } = Context.get(this.services, SqliteFile.SqliteFile)
    return ["logs", "streams", "events"].map((table) => prepare(`SELECT * FROM ${table}`).all().length)
  }

  /** Writes what waits. */
  get flushed(): Effect.Effect<void> {
    return TestClock.adjust("20 millis")
  }

  /** Ends, and another begins with what is in the file. */
  get restarted(): Effect.Effect<Part, never, Scope.Scope> {
    return Effect.zipRight(Scope.close(this.scope, Exit.void), start(this.path, this.options))
  }

  /** Another begins with what is in the file at this moment; what this one writes from now on, nobody reads. */
  get killed(): Effect.Effect<Part, never, Scope.Scope> {
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
): Effect.Effect<Part, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const both = Layer.provideMerge(Layer.merge(layer(options), layerSessions), SqliteFile.layer({ path }))
    return new Part(path, options, yield* Effect.orDie(Layer.buildWithScope(both, scope)), scope)
  })

/** A process's part on a file of its own, with the record of a session `a`. */
const begin = (options: Partial<EventTrackerOptions> = {}): Effect.Effect<Part, never, Scope.Scope> =>
  Effect.gen(function* () {
    const part = yield* start(join(yield* inMemory, "sessions.db"), options)
    yield* Effect.orDie(part.store.create(record("a", { timeToLive: Infinity })))
    return part
  })

const framesBehind = (stream: StreamLog | undefined, sequence: number): ReadonlyArray<string> => {
  const frames: Array<string> = []
  for (let next = stream?.after(sequence); next !== undefined; next = stream?.after(next.sequence))
    frames.push(`${next.sequence} ${next.upstreamId} ${next.frame.toString()}`)
  return frames
}

describe("what is in the file", () => {
  it.scoped("a stream that was begun and delivered whole between two flushes costs nothing", () =>
    Effect.gen(function* () {
      const part = yield* begin()
      const log = yield* part.open("a")
      const stream = log.createStream([1])
      stream.append(event("x"), undefined)
      stream.end()
      stream.markDelivered()
      yield* part.flushed
      expect(part.rows).toEqual([1, 0, 0])
      stream.beginReplay()
      yield* part.flushed
      expect(part.rows).toEqual([1, 1, 1])
      stream.markDelivered()
      yield* part.flushed
      expect(part.rows).toEqual([1, 0, 0])
    })
  )

  it.scoped("is what may still be asked for, and no event that was let go of", () =>
    Effect.gen(function* () {
      const part = yield* begin({ maxEvents: 3 })
      const log = yield* part.open("a")
      const [one, other] = [log.createStream([1]), log.createStream([])]
      for (let count = 0; count < 5; count++) one.append(event("x"), undefined)
      yield* part.flushed
      expect(part.rows).toEqual([1, 2, 3])
      for (let count = 0; count < 2; count++) other.append(event("x"), undefined)
      yield* part.flushed
      expect(part.rows).toEqual([1, 2, 3])
      other.clear()
      yield* part.flushed
      expect(part.rows).toEqual([1, 2, 1])
      one.remove()
      yield* part.flushed
      expect(part.rows).toEqual([1, 1, 0])
    })
  )

  it.scoped("is nothing of a session that is closed, nor of one whose record is gone", () =>
    Effect.gen(function* () {
      const part = yield* begin()
      yield* Effect.orDie(part.store.create(record("b")))
      for (const session of ["a", "b", "c"])
        (yield* part.open(session)).createStream([1]).append(event("x"), "1")
      yield* part.flushed
      expect(part.rows).toEqual([3, 3, 3])
      const log = yield* part.open("a")
      log.close()
      const anew = yield* part.open("a")
      expect(anew.unfinished).toEqual([])
      anew.close()
      yield* part.flushed
      expect(part.rows).toEqual([2, 2, 2])
      yield* TestClock.adjust("60 seconds")
      yield* Effect.orDie(part.store.removeExpired)
      expect(part.rows).toEqual([1, 1, 1])
      // The session that is left never had a record.
      expect((yield* part.restarted).rows).toEqual([0, 0, 0])
    })
  )

  it.scoped("stays without a record that goes while the log is open", () =>
    Effect.gen(function* () {
      const part = yield* begin()
      const stream = (yield* part.open("a")).createStream([1])
      stream.append(event("x"), undefined)
      yield* part.flushed
      yield* Effect.orDie(part.store.remove("a"))
      stream.append(event("y"), undefined)
      yield* part.flushed
      expect(part.rows).toEqual([0, 0, 0])
    })
  )
})

describe("another process", () => {
  it.scoped("goes on with what was suspended, and knows the ids that it does not issue again", () =>
    Effect.gen(function* () {
      const first = yield* begin()
      const log = yield* first.open("a")
      const [answer, standalone] = [log.createStream([1, "two"]), log.createStream([])]
      answer.append(event("1"), "up-1")
      standalone.append(event("2"), undefined)
      standalone.setCursor("up-7")
      const ids = [answer.idAt(0), answer.idAt(1), standalone.idAt(1)]
      log.suspend()
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

  it.scoped("counts as evicted what was issued and did not reach the file", () =>
    Effect.gen(function* () {
      const first = yield* begin()
      const log = yield* first.open("a")
      const [answer, standalone] = [log.createStream([1]), log.createStream([])]
      for (const stream of [answer, standalone]) stream.append(event("1"), undefined)
      yield* first.flushed
      for (const stream of [answer, standalone]) stream.append(event("2"), undefined)
      const late = log.createStream([3])
      late.append(event("3"), undefined)
      const second = yield* first.killed
      const again = yield* second.open("a")
      const [one, other] = again.unfinished
      expect(again.unfinished.length).toBe(2)
      expect(again.find(answer.idAt(2))).toEqual({ stream: one, sequence: -1 })
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
  "reach",
  "end",
  "deliver",
  "undeliver",
  "clear",
  "forget",
  ...repeat(3, "flush"),
  "reopen",
  "restart",
  "kill"
] as const

interface Kept {
  readonly requests: ReadonlyArray<unknown>
  readonly cursor: string | undefined
  readonly last: number
  readonly hasEnded: boolean
  readonly beforeOldest: number
  readonly frames: ReadonlyArray<string>
}

const keptOf = (stream: StreamLog): Kept => ({
  requests: stream.requests,
  cursor: stream.cursor,
  last: stream.lastSequence,
  hasEnded: stream.hasEnded,
  beforeOldest: stream.evictedUpTo,
  frames: framesBehind(stream, stream.evictedUpTo)
})

/** What one session does, and what of it must be found again. */
class Client {
  readonly issued = new Map<string, ReadonlyArray<unknown>>()
  /** The streams that somebody may still miss something of, with an id of each. */
  private streams: Array<{ readonly log: StreamLog; readonly id: string; isDelivered: boolean }> = []
  /** What was in the file at the last flush, by an id of each stream. */
  private stored: ReadonlyMap<string, Kept> = new Map()

  constructor(
    private part: Part,
    private log: SessionLog
  ) {}

  perform({ act, which }: Step): Effect.Effect<void, never, Scope.Scope> {
    const stream = this.streams[which % Math.max(this.streams.length, 1)]
    switch (act) {
      case "begin":
      case "listen":
        return Effect.sync(() => this.begin(act === "begin" ? [which] : []))
      case "flush":
        return Effect.zipRight(this.part.flushed, Effect.sync(this.note))
      case "reopen":
        return Effect.zipRight(this.suspend, this.goOn(Effect.succeed(this.part)))
      case "restart":
        return Effect.zipRight(this.suspend, this.goOn(this.part.restarted))
      case "kill":
        return this.goOn(this.part.killed)
      default:
        return Effect.sync(() => {
          if (stream === undefined) return
          const { log } = stream
          if (act === "append" && !log.hasEnded) this.issue(log, `${which}`)
          if (act === "large" && !log.hasEnded) this.issue(log, "x".repeat(5_000))
          if (act === "skip" && !log.hasEnded) log.skip()
          if (act === "reach") log.setCursor(`up-${which}`)
          if (act === "end") log.end()
          if (act === "clear") log.clear()
          if (act === "deliver" && log.hasEnded) {
            log.markDelivered()
            stream.isDelivered = true
          }
          if (act === "undeliver" && stream.isDelivered && log.after(log.evictedUpTo) !== undefined) {
            log.beginReplay()
            stream.isDelivered = false
          }
          if (act === "forget") {
            log.remove()
            this.streams = this.streams.filter((one) => one !== stream)
          }
        })
    }
  }

  private begin(requests: ReadonlyArray<number>): void {
    const log = this.log.createStream(requests)
    this.streams.push({ log, id: log.idAt(0), isDelivered: false })
    this.once(log, 0)
  }

  private issue(log: StreamLog, text: string): void {
    const upstreamId = text.length < 3 ? `up-${text}` : undefined
    this.once(log, log.append(event(text), upstreamId).sequence)
  }

  private once(log: StreamLog, sequence: number): void {
    const id = log.idAt(sequence)
    expect(this.issued.has(id)).toBe(false)
    this.issued.set(id, log.requests)
  }

  private readonly note = (): void => {
    // Of what has said nothing, the id that its client has tells enough.
    const wanted = this.streams.filter(
      ({ isDelivered, log }) =>
        !isDelivered && (log.lastSequence > 0 || log.cursor !== undefined || log.requests.length === 0)
    )
    this.stored = new Map(wanted.map(({ id, log }) => [id, keptOf(log)]))
  }

  private readonly suspend = Effect.sync(() => {
    this.note()
    this.log.suspend()
  })

  private goOn(next: Effect.Effect<Part, never, Scope.Scope>): Effect.Effect<void, never, Scope.Scope> {
    return Effect.gen(this, function* () {
      this.part = yield* next
      this.log = yield* this.part.open("a")
      const found = Array.from(this.stored, ([id, kept]) => ({ id, kept, place: this.log.find(id) }))
      this.streams = found.flatMap(({ id, kept, place }) => {
        expect(place?.stream).toBeDefined()
        if (place?.stream === undefined) return []
        expect(keptOf(place.stream)).toEqual(kept)
        expect(place.sequence).toBe(0)
        this.once(place.stream, place.stream.lastSequence)
        return [{ log: place.stream, id, isDelivered: false }]
      })
      expect(this.log.unfinished).toEqual(
        this.streams.filter(({ log }) => !log.hasEnded).map(({ log }) => log)
      )
    })
  }

  /** Whoever comes back with any id that was ever issued finds a place, in a stream that answers what its own did. */
  find(): void {
    for (const [id, requests] of this.issued) {
      const place = this.log.find(id)
      expect(place).toBeDefined()
      if (place?.stream !== undefined) expect(place.stream.requests).toEqual(requests)
    }
  }
}

it.scoped.prop(
  "whatever a session does between the ends of its processes, no id is issued twice, and all that was flushed is there",
  [
    FastCheck.array(
      FastCheck.record({ act: FastCheck.constantFrom(...acts), which: FastCheck.nat({ max: 9 }) }),
      { maxLength: 60, size: "max" }
    )
  ],
  ([steps]) =>
    Effect.scoped(
      Effect.gen(function* () {
        const part = yield* begin({ maxEvents: 8, maxEventBytes: 4_000, retention: "1000 days" })
        const client = new Client(part, yield* part.open("a"))
        for (const step of steps) yield* client.perform(step)
        client.find()
      })
    ),
  { fastCheck: { numRuns: 100 }, timeout: 60_000 }
)
