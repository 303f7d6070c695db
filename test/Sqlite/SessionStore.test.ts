import { expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import { copyFileSync } from "node:fs"
import { join } from "node:path"
import { layer } from "../../src/Sqlite/SessionStore.js"
import { SessionStore } from "../../src/SessionStore.js"
import * as SqliteFile from "../../src/Sqlite/File.js"
import { sessionStoreContract } from "../../src/testing.js"
import { record } from "../fixtures/records.js"
import { makeMemoryFolder, overNewFile } from "../fixtures/sqlite.js"

sessionStoreContract("Sqlite.layer", overNewFile(layer))

const over = (path: string) => Layer.provide(layer, SqliteFile.layer({ path }))

/** Every field has something to say. */
const whole = record("a", {
  upstreamSessionId: undefined,
  initialize: JSON.stringify({ clientInfo: { name: "clïent ✓", version: "1" } }),
  logLevel: "debug",
  subscriptions: ["file:///a", "file:///b"],
  createdAt: 1.5,
  timeToLive: Infinity
})

it.scoped("records outlive the process, as they were when it ended", () =>
  Effect.gen(function* () {
    const path = join(yield* makeMemoryFolder, "sessions.db")
    yield* Effect.gen(function* () {
      const store = yield* SessionStore
      expect(store.isDurable).toBe(true)
      for (const one of [whole, record("b"), record("c"), record("d")]) yield* store.create(one)
      yield* store.update("b", { upstreamSessionId: "another", subscriptions: ["file:///c"] })
      yield* store.remove("c")
      yield* TestClock.adjust("10 millis")
      store.touch("d", 10)
    }).pipe(Effect.provide(over(path)))
    const list = Effect.flatMap(SessionStore, ({ list }) => list)
    expect(yield* Effect.provide(list, over(path))).toEqual([
      whole,
      record("b", { upstreamSessionId: "another", subscriptions: ["file:///c"] }),
      record("d", { lastActiveAt: 10 })
    ])
    yield* TestClock.adjust("60 seconds")
    expect(yield* Effect.provide(list, over(path))).toEqual([whole])
  })
)

it.scoped("activity is in the file within a second and a little, in one row for all of it", () =>
  Effect.gen(function* () {
    const path = join(yield* makeMemoryFolder, "sessions.db")
    const scope = yield* Scope.make()
    const services = yield* Layer.buildWithScope(Layer.provideMerge(layer, SqliteFile.layer({ path })), scope)
    const store = Context.get(services, SessionStore)
    const { prepare } = Context.get(services, SqliteFile.SqliteFile)
    const written = () => prepare("SELECT total_changes() AS count").all()
    yield* store.create(record("a"))
    const before = written()
    for (let at = 1; at <= 900; at++) {
      yield* TestClock.adjust("1 millis")
      store.touch("a", at)
    }
    expect(written()).toEqual(before)
    yield* TestClock.adjust("300 millis")
    expect(written()).toMatchObject([{ count: 2 }])
    const path2 = `${path}+`
    copyFileSync(path, path2)
    copyFileSync(`${path}-wal`, `${path2}-wal`)
    const found = yield* Effect.provide(
      Effect.flatMap(SessionStore, ({ get }) => get("a")),
      over(path2)
    )
    expect(Option.getOrThrow(found).lastActiveAt).toBe(900)
    yield* Scope.close(scope, Exit.void)
  })
)
