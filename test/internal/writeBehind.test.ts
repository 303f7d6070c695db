import { describe, expect, it } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import { make } from "../../src/internal/writeBehind.js"

class DiskFull extends Data.TaggedError("DiskFull") {
  override get message() {
    return "the disk is full"
  }
}

describe("WriteBehind", () => {
  it.scoped("writes 20 ms after the first change, or as soon as 200 rows are dirty", () =>
    Effect.gen(function* () {
      let writes = 0
      const writeBehind = yield* make({ name: "store", write: Effect.sync(() => void writes++) })
      yield* TestClock.adjust("1 minute")
      expect(writes).toBe(0)
      writeBehind.markDirty(1)
      yield* TestClock.adjust("19 millis")
      expect(writes).toBe(0)
      yield* TestClock.adjust("1 millis")
      expect(writes).toBe(1)
      yield* TestClock.adjust("1 minute")
      expect(writes).toBe(1)
      writeBehind.markDirty(1)
      yield* TestClock.adjust(0)
      writeBehind.markDirty(199)
      yield* TestClock.adjust(0)
      expect(writes).toBe(2)
      writeBehind.markDirty(3)
      writeBehind.markDirty(-3)
      yield* TestClock.adjust("1 minute")
      expect(writes).toBe(2)
    })
  )

  it.scoped("writes after another delay and at another row limit if the options say so", () =>
    Effect.gen(function* () {
      let writes = 0
      const write = Effect.sync(() => void writes++)
      const writeBehind = yield* make({ name: "store", write, delay: "1 second", rowLimit: 2 })
      writeBehind.markDirty(1)
      yield* TestClock.adjust("999 millis")
      expect(writes).toBe(0)
      yield* TestClock.adjust("1 millis")
      expect(writes).toBe(1)
      writeBehind.markDirty(2)
      yield* TestClock.adjust(0)
      expect(writes).toBe(2)
    })
  )

  it.scoped("repeats a failed write every second, and logs the first failure and the recovery", () =>
    Effect.gen(function* () {
      const messages: Array<string> = []
      const logger = Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ message }) => void messages.push(JSON.stringify(message)))
      )
      let attempts = 0
      yield* Effect.gen(function* () {
        const write = Effect.suspend(() => (++attempts < 4 ? new DiskFull() : Effect.void))
        const writeBehind = yield* make({ name: "store", write })
        writeBehind.markDirty(1)
        yield* TestClock.adjust("20 millis")
        expect(attempts).toBe(1)
        yield* TestClock.adjust("1 second")
        expect(attempts).toBe(1)
        yield* TestClock.adjust("20 millis")
        expect(attempts).toBe(2)
        yield* TestClock.adjust("1 minute")
      }).pipe(Effect.provide(logger))
      expect(attempts).toBe(4)
      expect(messages).toEqual([
        expect.stringMatching(/store: write failed.*the disk is full/),
        expect.stringContaining("store: writes succeed again")
      ])
    })
  )

  it.scoped("writes again after a defect", () =>
    Effect.gen(function* () {
      let attempts = 0
      const write = Effect.suspend(() => (++attempts < 2 ? Effect.dieMessage("defect") : Effect.void))
      const writeBehind = yield* make({ name: "store", write })
      writeBehind.markDirty(1)
      yield* TestClock.adjust("2 seconds")
      expect(attempts).toBe(2)
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
  )

  it.scoped("flushes when its scope closes, after a write that is in progress", () =>
    Effect.gen(function* () {
      const finish = yield* Deferred.make<void>()
      let [begun, ended] = [0, 0]
      const write = Effect.suspend(() => {
        begun++
        return Effect.zipRight(
          Deferred.await(finish),
          Effect.sync(() => void ended++)
        )
      })
      const scope = yield* Scope.make()
      const writeBehind = yield* Scope.extend(make({ name: "store", write }), scope)
      writeBehind.markDirty(1)
      yield* TestClock.adjust("20 millis")
      writeBehind.markDirty(1)
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("1 minute")
      expect([begun, ended]).toEqual([1, 0])
      yield* Deferred.succeed(finish, undefined)
      yield* Fiber.join(closing)
      expect([begun, ended]).toEqual([2, 2])
    })
  )
})
