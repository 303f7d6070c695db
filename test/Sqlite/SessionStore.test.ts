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
import { layer, make } from "../../src/Sqlite/SessionStore.js"
import { SessionStore } from "../../src/SessionStore.js"
import * as SqliteFile from "../../src/Sqlite/File.js"
import { sessionStoreContract } from "../../src/testing.js"
import { record } from "../fixtures/records.js"
import { makeMemoryFolder, overNewFile } from "../fixtures/sqlite.js"

sessionStoreContract("Sqlite.SessionStore", overNewFile(layer))

const storeIn = (path: string) => Layer.provide(layer, SqliteFile.layer({ path }))

/** A record with a value in every field, except the upstream session id. */
const complete = record("a", {
  upstreamSessionId: undefined,
  initialize: JSON.stringify({ clientInfo: { name: "clïent ✓", version: "1" } }),
  logLevel: "debug",
  subscriptions: ["file:///a", "file:///b"],
  createdAt: 1.5,
  timeToLive: Infinity
})

it.scoped("records outlive the process", () =>
  Effect.gen(function* () {
    const path = join(yield* makeMemoryFolder, "sessions.db")
    yield* Effect.gen(function* () {
      const store = yield* SessionStore
      expect(store.isDurable).toBe(true)
      for (const one of [complete, record("b"), record("c"), record("d")]) yield* store.create(one)
      yield* store.update("b", { upstreamSessionId: "another", subscriptions: ["file:///c"] })
      yield* store.remove("c")
      yield* TestClock.adjust("10 millis")
      store.touch("d", 10)
    }).pipe(Effect.provide(storeIn(path)))
    const list = Effect.flatMap(SessionStore, ({ list }) => list)
    expect(yield* Effect.provide(list, storeIn(path))).toEqual([
      complete,
      record("b", { upstreamSessionId: "another", subscriptions: ["file:///c"] }),
      record("d", { lastActiveAt: 10 })
    ])
    yield* TestClock.adjust("60 seconds")
    expect(yield* Effect.provide(list, storeIn(path))).toEqual([complete])
  })
)

it.scoped("activity of one second is one write, within 1.2 seconds", () =>
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
      storeIn(path2)
    )
    expect(Option.getOrThrow(found).lastActiveAt).toBe(900)
    yield* Scope.close(scope, Exit.void)
  })
)

it.scoped("findByUpstream uses an index", () =>
  Effect.gen(function* () {
    const file = yield* SqliteFile.make({ path: join(yield* makeMemoryFolder, "sessions.db") })
    const prepared: Array<string> = []
    const prepare = (sql: string) => {
      prepared.push(sql)
      return file.prepare(sql)
    }
    yield* Effect.provideService(make, SqliteFile.SqliteFile, { ...file, prepare })
    const queries = prepared.filter((sql) => /^SELECT.*upstreamSessionId = \?/.test(sql))
    expect(queries.length).toBe(1)
    for (const sql of queries)
      expect(file.prepare(`EXPLAIN QUERY PLAN ${sql}`).all("http://upstream.test/mcp", "1")).toMatchObject([
        { detail: "SEARCH sessions USING INDEX sessionsByUpstream (upstream=? AND upstreamSessionId=?)" }
      ])
  })
)
