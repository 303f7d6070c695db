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
import * as WriteBehind from "../../src/internal/writeBehind.js"
import * as Sqlite from "../../src/Sqlite.js"
import * as SqliteFile from "../../src/Sqlite/File.js"
import { SessionStore } from "../../src/SessionStore.js"
import { spawnNode } from "../fixtures/Child.js"
import { makeFolder } from "../fixtures/folder.js"
import { record } from "../fixtures/records.js"

/** Opens a file and closes it. */
const openAndClose = (path: string) => Effect.scoped(Effect.asVoid(SqliteFile.make({ path })))

/** Returns the error of opening a file. */
const openingError = (path: string): Effect.Effect<StoreError, void> => Effect.flip(openAndClose(path))

const makeTestFolder = makeFolder("sqlite")

const newFile = Effect.map(makeTestFolder, (folder) => join(folder, "sessions.db"))

/** Makes a file with 200 session records. */
const makeFilled = Effect.tap(newFile, (path) =>
  Effect.forEach(
    Array.from({ length: 200 }, (_, index) => record(`${index}`)),
    (one) => Effect.flatMap(SessionStore, ({ create }) => create(one))
  ).pipe(Effect.provide(Sqlite.layer({ path })), Effect.orDie)
)

describe("opening fails with an error that names the reason and the path", () => {
  it.scoped("for a file of a newer version, which is not changed", () =>
    Effect.gen(function* () {
      const path = yield* makeFilled
      const database = yield* Effect.promise(() => openDatabase(path))
      database.exec("PRAGMA user_version = 99")
      database.close()
      const before = readFileSync(path)
      const error = yield* openingError(path)
      expect(error.reason).toBe("NewerVersion")
      expect(error.message).toContain(path)
      expect(readFileSync(path).equals(before)).toBe(true)
    })
  )

  it.scoped("for a file of another program with a write-ahead log, which is not changed", () =>
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
      expect((yield* openingError(path)).message).toContain("another program")
      expect(readFileSync(path).equals(before)).toBe(true)
    })
  )

  it.scoped("for a file that another process uses, until that process ends", () =>
    Effect.gen(function* () {
      const path = yield* makeFilled
      const libsql = JSON.stringify(createRequire(import.meta.url).resolve("libsql"))
      const other = yield* spawnNode("-e", [
        `const database = new (require(${libsql}))(${JSON.stringify(path)})
        database.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT")
        console.log("locked")
        process.stdin.resume()`
      ])
      yield* other.until(() => other.stdout().length > 0)
      const error = yield* openingError(path)
      expect(error.reason).toBe("InUse")
      expect(error.message).toContain(path)
      yield* other.signal("SIGKILL")
      yield* other.exit
      yield* openAndClose(path)
    })
  )

  it.scoped("for a file that this process uses, until its scope closes", () =>
    Effect.gen(function* () {
      const path = yield* newFile
      const scope = yield* Scope.make()
      yield* Scope.extend(SqliteFile.make({ path }), scope)
      expect((yield* openingError(path)).reason).toBe("InUse")
      yield* Scope.close(scope, Exit.void)
      yield* openAndClose(path)
    })
  )

  it.scoped("for a file that is not a database, unless it is empty", () =>
    Effect.gen(function* () {
      const path = yield* newFile
      for (const text of ["hello", "garbage ".repeat(2_000)]) {
        writeFileSync(path, text)
        const error = yield* openingError(path)
        expect(error.reason).toBe("Broken")
        expect(error.message).toContain(path)
        expect(readFileSync(path, "utf8")).toBe(text)
      }
      writeFileSync(path, "")
      yield* openAndClose(path)
    })
  )

  it.scoped("for a truncated file and for a damaged one", () =>
    Effect.gen(function* () {
      for (const share of [0.2, 0.5, 0.9]) {
        const path = yield* makeFilled
        truncateSync(path, Math.floor(statSync(path).size * share))
        expect((yield* openingError(path)).reason).toBe("Broken")
      }
      const path = yield* makeFilled
      const { size } = statSync(path)
      const file = openSync(path, "r+")
      for (let page = 4096; page < size; page += 4096) writeSync(file, Buffer.alloc(512, "x"), 0, 512, page)
      closeSync(file)
      const error = yield* Effect.flip(Effect.scoped(Layer.build(Sqlite.layer({ path }))))
      expect(error.reason).toBe("Broken")
    })
  )

  it.scoped("for a file of another program, which is not changed", () =>
    Effect.gen(function* () {
      const path = yield* newFile
      const database = yield* Effect.promise(() => openDatabase(path))
      database.exec("CREATE TABLE theirs (id INTEGER PRIMARY KEY)")
      database.close()
      const before = readFileSync(path)
      const error = yield* openingError(path)
      expect(error.reason).toBe("Unavailable")
      expect(error.message).toContain("another program")
      expect(readFileSync(path).equals(before)).toBe(true)
    })
  )

  it.scoped("for a directory, for a device, and for a missing directory", () =>
    Effect.gen(function* () {
      const folder = yield* makeTestFolder
      for (const path of [folder, "/dev/full", join(folder, "missing", "sessions.db")]) {
        const error = yield* openingError(path)
        expect(error.reason).toBe("Unavailable")
        expect(error.message).toContain(path)
      }
    })
  )

  it.scoped.skipIf(process.getuid?.() === 0)("for a directory without write permission", () =>
    Effect.gen(function* () {
      const folder = join(yield* makeTestFolder, "locked")
      mkdirSync(folder)
      chmodSync(folder, 0o500)
      expect((yield* openingError(join(folder, "sessions.db"))).reason).toBe("Unavailable")
    })
  )
})

it.scoped("creates files that only the owner can read, independent of the umask", () =>
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

it.scoped("uses a write-ahead log, and waits for the disk only with sync: full", () =>
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

it.scoped("a full disk is reported once, and the changes are written when there is space", () =>
  Effect.gen(function* () {
    const messages: Array<string> = []
    const logger = Logger.replace(
      Logger.defaultLogger,
      Logger.make(({ message }) => void messages.push(JSON.stringify(message)))
    )
    const path = yield* newFile
    yield* Effect.gen(function* () {
      const file = yield* SqliteFile.make({ path })
      const insert = file.prepare(
        "INSERT INTO logs (session, secret, generation, count) VALUES (?, '', 0, 0)"
      )
      const count = file.prepare("SELECT id FROM logs")
      const waiting: Array<string> = []
      const writeBehind = yield* WriteBehind.make({
        name: "store",
        write: Effect.map(
          file.transact(() => waiting.forEach((text) => insert.run(text))),
          () => void (waiting.length = 0)
        )
      })
      file.prepare("PRAGMA max_page_count = 1").all()
      for (let index = 0; index < 200; index++) waiting.push(`${index} `.repeat(200))
      writeBehind.markDirty(200)
      yield* TestClock.adjust("5 seconds")
      expect(count.all()).toEqual([])
      expect(waiting.length).toBe(200)
      expect(messages.length).toBe(1)
      expect(messages[0]).toContain(path)
      expect((yield* Effect.flip(file.transact(() => insert.run("x".repeat(100_000))))).reason).toBe(
        "Unavailable"
      )
      file.prepare("PRAGMA max_page_count = 100000").all()
      yield* TestClock.adjust("1 second")
      expect(count.all().length).toBe(200)
      expect(messages.length).toBe(2)
    }).pipe(Effect.provide(logger))
  })
)
