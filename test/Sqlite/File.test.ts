import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { openDatabase } from "../../src/Sqlite/database.js"
import { type StoreError } from "../../src/ProxyError.js"
import * as Sqlite from "../../src/Sqlite.js"
import * as SqliteFile from "../../src/Sqlite/File.js"
import { SessionStore } from "../../src/SessionStore.js"
import { spawnNode } from "../fixtures/Child.js"
import { makeFolder } from "../fixtures/folder.js"
import { record } from "../fixtures/records.js"

/** Opens a file and closes it. */
const visit = (path: string) => Effect.scoped(Effect.asVoid(SqliteFile.make({ path })))

/** Why a file cannot be opened. */
const refusal = (path: string): Effect.Effect<StoreError, void> => Effect.flip(visit(path))

const inFolder = makeFolder("sqlite")

const newFile = Effect.map(inFolder, (folder) => join(folder, "sessions.db"))

/** A file with some sessions. */
const filled = Effect.tap(newFile, (path) =>
  Effect.forEach(
    Array.from({ length: 200 }, (_, index) => record(`${index}`)),
    (one) => Effect.flatMap(SessionStore, ({ create }) => create(one))
  ).pipe(Effect.provide(Sqlite.layer({ path })), Effect.orDie)
)

describe("a file that cannot be used is told apart, with its path", () => {
  it.scoped("one of a newer version, which stays as it is", () =>
    Effect.gen(function* () {
      const path = yield* filled
      const database = yield* Effect.promise(() => openDatabase(path))
      database.exec("PRAGMA user_version = 99")
      database.close()
      const before = readFileSync(path)
      const error = yield* refusal(path)
      expect(error.reason).toBe("NewerVersion")
      expect(error.message).toContain(path)
      expect(readFileSync(path).equals(before)).toBe(true)
    })
  )

  it.scoped("one of another program with a write-ahead log, which stays so", () =>
    Effect.gen(function* () {
      const path = yield* newFile
      const libsql = JSON.stringify(createRequire(import.meta.url).resolve("libsql"))
      const other = yield* spawnNode("-e", [
        `const database = new (require(${libsql}))(${JSON.stringify(path)})
        database.exec("PRAGMA journal_mode = WAL; CREATE TABLE others (id)")
        database.close()`
      ])
      expect(yield* other.exit).toEqual({ code: 0, signal: null })
      const before = readFileSync(path)
      expect((yield* refusal(path)).message).toContain("another program")
      expect(readFileSync(path).equals(before)).toBe(true)
    })
  )

  it.scoped("one that another process has, until that ends", () =>
    Effect.gen(function* () {
      const path = yield* filled
      const libsql = JSON.stringify(createRequire(import.meta.url).resolve("libsql"))
      const other = yield* spawnNode("-e", [
        `const database = new (require(${libsql}))(${JSON.stringify(path)})
        database.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT")
        console.log("holds it")
        process.stdin.resume()`
      ])
      yield* other.until(() => other.stdout().length > 0)
      const error = yield* refusal(path)
      expect(error.reason).toBe("InUse")
      expect(error.message).toContain(path)
      yield* other.signal("SIGKILL")
      yield* other.exit
      yield* visit(path)
    })
  )

  it.scoped("one that this process has, until it is closed", () =>
    Effect.gen(function* () {
      const path = yield* newFile
      const scope = yield* Scope.make()
      yield* Scope.extend(SqliteFile.make({ path }), scope)
      expect((yield* refusal(path)).reason).toBe("InUse")
      yield* Scope.close(scope, Exit.void)
      yield* visit(path)
    })
  )

  it.scoped("no database, an empty file apart", () =>
    Effect.gen(function* () {
      const path = yield* newFile
      for (const text of ["hello", "garbage ".repeat(2_000)]) {
        writeFileSync(path, text)
        const error = yield* refusal(path)
        expect(error.reason).toBe("Broken")
        expect(error.message).toContain(path)
        expect(readFileSync(path, "utf8")).toBe(text)
      }
      writeFileSync(path, "")
      yield* visit(path)
    })
  )

  it.scoped("one of which a part is missing, or damaged", () =>
    Effect.gen(function* () {
      for (const share of [0.2, 0.5, 0.9]) {
        const path = yield* filled
        truncateSync(path, Math.floor(statSync(path).size * share))
        expect((yield* refusal(path)).reason).toBe("Broken")
      }
      const path = yield* filled
      const { size } = statSync(path)
      const file = openSync(path, "r+")
      for (let page = 4096; page < size; page += 4096) writeSync(file, Buffer.alloc(512, "x"), 0, 512, page)
      closeSync(file)
      const error = yield* Effect.flip(Effect.scoped(Layer.build(Sqlite.layer({ path }))))
      expect(error.reason).toBe("Broken")
    })
  )

  it.scoped("one of another program, which stays as it is", () =>
    Effect.gen(function* () {
      const path = yield* newFile
      const database = yield* Effect.promise(() => openDatabase(path))
      database.exec("CREATE TABLE theirs (id INTEGER PRIMARY KEY)")
      database.close()
      const before = readFileSync(path)
      const error = yield* refusal(path)
      expect(error.reason).toBe("Unavailable")
      expect(error.message).toContain("another program")
      expect(readFileSync(path).equals(before)).toBe(true)
    })
  )

  it.scoped("a folder, a device, and a path that leads nowhere", () =>
    Effect.gen(function* () {
      const folder = yield* inFolder
      for (const path of [folder, "/dev/full", join(folder, "missing", "sessions.db")]) {
        const error = yield* refusal(path)
        expect(error.reason).toBe("Unavailable")
        expect(error.message).toContain(path)
      }
    })
  )

  it.scoped.skipIf(process.getuid?.() === 0)("a folder that may not be written to", () =>
    Effect.gen(function* () {
      const folder = join(yield* inFolder, "locked")
      mkdirSync(folder)
      chmodSync(folder, 0o500)
      expect((yield* refusal(join(folder, "sessions.db"))).reason).toBe("Unavailable")
    })
  )
})

it.scoped("what is created is for its owner's eyes only, whatever the process creates otherwise", () =>
  Effect.gen(function* () {
    const path = yield* newFile
    const usual = process.umask(0)
    yield* Effect.addFinalizer(() => Effect.sync(() => process.umask(usual)))
    const file = yield* SqliteFile.make({ path })
    yield* file.attempt(() => file.prepare("INSERT INTO logs VALUES (1, 'a', 'b', 0, 0)").run())
    const modes = [path, `${path}-wal`].map((name) => (statSync(name).mode & 0o777).toString(8))
    expect(modes).toEqual(["600", "600"])
  })
)

it.scoped(
  "a file is written with a log ahead, and to the disk at each step only where that is asked for",
  () =>
    Effect.gen(function* () {
      for (const [sync, level] of [
        [undefined, 1],
        ["normal", 1],
        ["full", 2]
      ] as const) {
        const file = yield* SqliteFile.make({ path: yield* newFile, sync })
        expect(file.prepare("PRAGMA journal_mode").all()).toMatchObject([{ journal_mode: "wal" }])
        expect(file.prepare("PRAGMA synchronous").all()).toMatchObject([{ synchronous: level }])
      }
    })
)

it.scoped("what is written behind is written after 20 ms, or as soon as 200 rows wait", () =>
  Effect.gen(function* () {
    const file = yield* SqliteFile.make({ path: yield* newFile })
    let flushes = 0
    file.writeBehind({ write: () => () => flushes++ })
    yield* TestClock.adjust("1 minute")
    expect(flushes).toBe(0)
    file.wait(1)
    yield* TestClock.adjust("19 millis")
    expect(flushes).toBe(0)
    yield* TestClock.adjust("1 millis")
    expect(flushes).toBe(1)
    yield* TestClock.adjust("1 minute")
    expect(flushes).toBe(1)
    file.wait(1)
    yield* TestClock.adjust(0)
    file.wait(199)
    yield* TestClock.adjust(0)
    expect(flushes).toBe(2)
    file.wait(3)
    file.wait(-3)
    yield* TestClock.adjust("1 minute")
    expect(flushes).toBe(2)
  })
)

it.scoped("a full disk ends nothing: it is told once, and what waits is written when there is room", () =>
  Effect.gen(function* () {
    const told: Array<string> = []
    const logger = Logger.replace(
      Logger.defaultLogger,
      Logger.make(({ message }) => void told.push(JSON.stringify(message)))
    )
    const path = yield* newFile
    yield* Effect.gen(function* () {
      const file = yield* SqliteFile.make({ path })
      const insert = file.prepare(
        "INSERT INTO logs (session, secret, generation, count) VALUES (?, '', 0, 0)"
      )
      const count = file.prepare("SELECT id FROM logs")
      const waiting: Array<string> = []
      file.writeBehind({
        write: () => {
          for (const text of waiting) insert.run(text)
          return () => (waiting.length = 0)
        }
      })
      file.prepare("PRAGMA max_page_count = 1").all()
      for (let index = 0; index < 200; index++) waiting.push(`${index} `.repeat(200))
      file.wait(200)
      yield* TestClock.adjust("5 seconds")
      expect(count.all()).toEqual([])
      expect(waiting.length).toBe(200)
      expect(told.length).toBe(1)
      expect(told[0]).toContain(path)
      expect((yield* Effect.flip(file.transact(() => insert.run("x".repeat(100_000))))).reason).toBe(
        "Unavailable"
      )
      file.prepare("PRAGMA max_page_count = 100000").all()
      yield* TestClock.adjust("1 second")
      expect(count.all().length).toBe(200)
      expect(told.length).toBe(2)
    }).pipe(Effect.provide(logger))
  })
)
