import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as EventTracker from "../../src/EventTracker.js"
import { EventStorage } from "../../src/EventTracker/EventStorage.js"
import { retainedEvents } from "../../src/EventTracker/StreamLog.js"
import { eventStorageContract, eventTrackerContract } from "../../src/testing.js"
import { MemoryEventStorage } from "../fixtures/MemoryEventStorage.js"

const storageLayer = Layer.sync(EventStorage, () => new MemoryEventStorage().service)

eventStorageContract("MemoryEventStorage", storageLayer)
eventTrackerContract("EventTracker over MemoryEventStorage", (options) =>
  Layer.provide(EventTracker.layer(options), storageLayer)
)

const event = (text: string): Buffer => Buffer.from(`data: ${text}\n\n`)

const start = (storage: MemoryEventStorage, options: Partial<EventTracker.EventTrackerOptions> = {}) =>
  Effect.map(
    EventTracker.make({ ...EventTracker.defaults, ...options }).pipe(
      Effect.provideService(EventStorage, storage.service)
    ),
    (tracker) => (session: string) => Effect.orDie(Effect.flatMap(tracker.open(session), Effect.fromNullable))
  )

/** Runs a test with a tracker over a new storage. */
const withStorage = (
  test: (
    storage: MemoryEventStorage,
    open: Effect.Effect.Success<ReturnType<typeof start>>
  ) => Effect.Effect<void, unknown, Scope.Scope>,
  options?: Partial<EventTracker.EventTrackerOptions>
) =>
  Effect.suspend(() => {
    const storage = new MemoryEventStorage()
    return Effect.flatMap(start(storage, options), (open) => test(storage, open))
  }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))

describe("a tracker over an asynchronous storage", () => {
  it.scoped("writes events that are appended during a write with the next one", () =>
    withStorage((storage, open) =>
      Effect.gen(function* () {
        const stream = (yield* open("a")).createStream([1])
        const finish = yield* Deferred.make<void>()
        storage.beforeWrite = Deferred.await(finish)
        stream.append(event("1"), undefined)
        yield* TestClock.adjust("20 millis")
        stream.append(event("2"), undefined)
        yield* TestClock.adjust("1 second")
        expect(storage.sequences("a")).toEqual([])
        yield* Deferred.succeed(finish, undefined)
        yield* TestClock.adjust("20 millis")
        expect(storage.sequences("a")).toEqual([[1, 2]])
      })
    )
  )

  it.scoped("removes a stream that is delivered during its first write", () =>
    withStorage((storage, open) =>
      Effect.gen(function* () {
        const stream = (yield* open("a")).createStream([1])
        const finish = yield* Deferred.make<void>()
        storage.beforeWrite = Deferred.await(finish)
        stream.append(event("1"), undefined)
        yield* TestClock.adjust("20 millis")
        stream.end()
        stream.markDelivered()
        yield* Deferred.succeed(finish, undefined)
        yield* TestClock.adjust("20 millis")
        expect(storage.sequences("a")).toEqual([])
      })
    )
  )

  it.scoped("writes the frame of an event that is evicted during the write", () =>
    withStorage(
      (storage, open) =>
        Effect.gen(function* () {
          const log = yield* open("a")
          const stream = log.createStream([1])
          const finish = yield* Deferred.make<void>()
          storage.beforeWrite = Deferred.await(finish)
          stream.append(event("1"), undefined)
          yield* TestClock.adjust("20 millis")
          const [{ frame } = { frame: undefined }] = retainedEvents(stream)
          stream.append(event("2"), undefined)
          yield* Deferred.succeed(finish, undefined)
          yield* TestClock.adjust(0)
          const stored = yield* storage.service.load("a")
          expect(stored).toMatchObject({ value: { streams: [{ events: [{ frame }] }] } })
          yield* TestClock.adjust("20 millis")
          expect(storage.sequences("a")).toEqual([[2]])
        }),
      { maxEvents: 1 }
    )
  )

  it.scoped("repeats a failed write, whether or not it was applied", () =>
    withStorage(
      (storage, open) =>
        Effect.gen(function* () {
          for (const when of ["beforeWrite", "afterWrite"] as const) {
            const log = yield* open(when)
            const [evicting, removing] = [log.createStream([1]), log.createStream([2])]
            storage[when] = MemoryEventStorage.unavailable
            for (const text of ["1", "2"]) evicting.append(event(text), undefined)
            removing.append(event("1"), undefined)
            yield* TestClock.adjust("20 millis")
            evicting.append(event("3"), undefined)
            removing.remove()
            for (const text of ["4", "5"]) evicting.append(event(text), undefined)
            yield* TestClock.adjust("1 minute")
            storage[when] = Effect.void
            yield* TestClock.adjust("2 seconds")
            expect(storage.sequences(when)).toEqual([[3, 4, 5]])
          }
        }),
      { maxEvents: 3 }
    )
  )

  it.scoped("sends a removed stream completely if it is resumed after the removal failed", () =>
    withStorage((storage, open) =>
      Effect.gen(function* () {
        const stream = (yield* open("a")).createStream([1])
        stream.append(event("1"), undefined)
        yield* TestClock.adjust("20 millis")
        storage.afterWrite = MemoryEventStorage.unavailable
        stream.markDelivered()
        yield* TestClock.adjust("20 millis")
        expect(storage.sequences("a")).toEqual([])
        stream.beginReplay()
        storage.afterWrite = Effect.void
        yield* TestClock.adjust("2 seconds")
        expect(storage.sequences("a")).toEqual([[1]])
      })
    )
  )

  it.scoped("writes everything before suspend returns", () =>
    withStorage((storage, open) =>
      Effect.gen(function* () {
        const log = yield* open("a")
        const finish = yield* Deferred.make<void>()
        storage.beforeWrite = Deferred.await(finish)
        log.createStream([1]).append(event("1"), undefined)
        const suspending = yield* Effect.fork(log.suspend)
        yield* TestClock.adjust("1 second")
        expect(suspending.unsafePoll()).toBeNull()
        yield* Deferred.succeed(finish, undefined)
        yield* Fiber.join(suspending)
        expect(storage.sequences("a")).toEqual([[1]])
      })
    )
  )

  it.scoped("opens a closed session again only after its log was removed", () =>
    withStorage((storage, open) =>
      Effect.gen(function* () {
        const first = yield* open("a")
        const id = first.createStream([1]).idAt(0)
        const finish = yield* Deferred.make<void>()
        storage.beforeWrite = Deferred.await(finish)
        first.close()
        yield* TestClock.adjust("20 millis")
        const opening = yield* Effect.fork(open("a"))
        yield* TestClock.adjust("1 second")
        expect(opening.unsafePoll()).toBeNull()
        yield* Deferred.succeed(finish, undefined)
        const second = yield* Fiber.join(opening)
        expect(second.find(id)).toBeUndefined()
        yield* TestClock.adjust("1 second")
        expect(storage.has("a")).toBe(true)
      })
    )
  )

  it.scoped("opens different generations for concurrent openings of one session", () =>
    withStorage((_, open) =>
      Effect.gen(function* () {
        const logs = yield* Effect.all(
          Array.from({ length: 10 }, () => open("a")),
          { concurrency: "unbounded" }
        )
        const ids = logs.map((log) => log.createStream([1]).idAt(0))
        expect(new Set(ids).size).toBe(10)
      })
    )
  )

  it.scoped("creates a log again that the storage has lost, with all retained events", () =>
    withStorage((storage, open) =>
      Effect.gen(function* () {
        const first = yield* open("a")
        for (const text of ["1", "2"]) first.createStream([]).append(event(text), undefined)
        yield* first.suspend
        const log = yield* open("a")
        const [idle, active] = log.unfinished
        active?.append(event("3"), "up-3")
        yield* TestClock.adjust("20 millis")
        const before = yield* storage.service.load("a")
        storage.clear()
        active?.setCursor("up-3")
        yield* TestClock.adjust("20 millis")
        expect(yield* storage.service.load("a")).toEqual(before)
        idle?.append(event("4"), undefined)
        yield* log.suspend
        const next = yield* open("a")
        expect(next.find(idle?.idAt(2) ?? "")).toMatchObject({ sequence: 2, stream: { lastSequence: 2 } })
        expect(storage.sequences("a")).toEqual([
          [1, 2],
          [1, 2]
        ])
      })
    )
  )

  it.scoped("repeats the creation of a lost log, whether or not it was applied", () =>
    withStorage((storage, open) =>
      Effect.gen(function* () {
        for (const when of ["beforeWrite", "afterWrite"] as const) {
          const stream = (yield* open(when)).createStream([1])
          for (const text of ["1", "2"]) stream.append(event(text), undefined)
          yield* TestClock.adjust("20 millis")
          storage.clear()
          let writes = 0
          storage[when] = Effect.suspend(() =>
            ++writes === 2 ? MemoryEventStorage.unavailable : Effect.void
          )
          stream.append(event("3"), undefined)
          yield* TestClock.adjust("20 millis")
          stream.evict()
          yield* TestClock.adjust("2 seconds")
          expect(writes).toBe(3)
          expect(storage.sequences(when)).toEqual([[2, 3]])
        }
      })
    )
  )

  it.scoped("creates a lost log again before suspend returns", () =>
    withStorage((storage, open) =>
      Effect.gen(function* () {
        const log = yield* open("a")
        const stream = log.createStream([1])
        stream.append(event("1"), undefined)
        yield* TestClock.adjust("20 millis")
        storage.clear()
        stream.append(event("2"), undefined)
        yield* log.suspend
        expect(storage.sequences("a")).toEqual([[1, 2]])
      })
    )
  )

  it.scoped("does not create a closed log again", () =>
    withStorage((storage, open) =>
      Effect.gen(function* () {
        const log = yield* open("a")
        const stream = log.createStream([1])
        yield* TestClock.adjust("20 millis")
        const finish = yield* Deferred.make<void>()
        storage.beforeWrite = Deferred.await(finish)
        stream.append(event("1"), undefined)
        yield* TestClock.adjust("20 millis")
        storage.clear()
        log.close()
        yield* Deferred.succeed(finish, undefined)
        yield* TestClock.adjust("1 second")
        expect(storage.has("a")).toBe(false)
      })
    )
  )

  it.scoped("does not write a log that another process has opened", () =>
    Effect.gen(function* () {
      const storage = new MemoryEventStorage()
      const [one, other] = [yield* start(storage), yield* start(storage)]
      const stale = (yield* one("a")).createStream([1])
      const current = (yield* other("a")).createStream([1])
      stale.append(event("stale"), undefined)
      for (const text of ["1", "2"]) current.append(event(text), undefined)
      yield* TestClock.adjust("20 millis")
      stale.append(event("stale"), undefined)
      yield* TestClock.adjust("20 millis")
      expect(storage.sequences("a")).toEqual([[1, 2]])
    })
  )
})
