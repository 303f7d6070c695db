/** A SQLite file that holds what is to outlive the process: sessions, and the events of their streams. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ParseResult from "effect/ParseResult"
import type * as Scope from "effect/Scope"
import { closeSync, openSync, statSync } from "node:fs"
import { resolve } from "node:path"
import { type Database, openDatabase, type Statement } from "./database.js"
import { errorCode, StoreError } from "../ProxyError.js"
import { APPLICATION, migrate, migrations } from "./migrations.js"
import { type Source, WriteBehind } from "./WriteBehind.js"

export interface Options {
  /** Where the file is. It is created, for its owner's eyes only, where there is none; its folder must exist. */
  readonly path: string
  /**
   * What a session that was stored survives: with `normal` a SIGKILL of the process, with `full` a power cut too, for
   * a wait for the disk at each. Default: `normal`.
   */
  readonly sync?: "normal" | "full" | undefined
}

/**
 * A file that this process has for itself, with its tables as this version knows them. What cannot wait is written at
 * once, the rest behind: 20 ms later at the latest, or as soon as 200 rows wait. A file that takes nothing (a full
 * disk) ends nothing: what waits is tried again every second, and the log says when that begins and when it ends.
 */
export class SqliteFile extends Context.Tag("shadowcat/SqliteFile")<
  SqliteFile,
  {
    /** Prepares a statement; its methods throw what SQLite says. */
    readonly prepare: (sql: string) => Statement
    /** Does what cannot wait; what it throws is told as what is wrong with the file. */
    readonly attempt: <A>(work: () => A) => Effect.Effect<A, StoreError>
    /** The same for work that is to happen whole or not at all. */
    readonly transact: <A>(work: () => A) => Effect.Effect<A, StoreError>
    /** Adds what has changes that can wait. */
    readonly writeBehind: (source: Source) => void
    /** So many rows more wait to be written behind; less than none when some need not be any more. */
    readonly wait: (rows: number) => void
    /** Writes at once what waits. False when it could not be written: then it still waits. */
    readonly flush: () => boolean
  }
>() {}

export const make = (options: Options): Effect.Effect<SqliteFile["Type"], StoreError, Scope.Scope> =>
  Effect.gen(function* () {
    const path = resolve(options.path)
    const attempt = <A>(work: () => A) =>
      Effect.try({ try: work, catch: (cause) => toStoreError(options.path, cause) })

    yield* attempt(() => createFile(path))
    const opened = Effect.tryPromise({
      try: () => openDatabase(path),
      catch: (cause) => toStoreError(options.path, cause)
    }).pipe(
      Effect.tap((database) =>
        Effect.tapError(
          attempt(() => takeUp(database, options.path, options.sync === "full" ? "FULL" : "NORMAL")),
          () => Effect.ignore(attempt(() => database.leave()))
        )
      )
    )
    const database = yield* Effect.acquireRelease(opened, (database) =>
      Effect.catchAll(
        attempt(() => database.close()),
        ({ message }) => Effect.logWarning("the session store did not close well", { message })
      )
    )

    const transact = <A>(work: () => A) => attempt(() => database.transact(work))
    const behind = new WriteBehind((work) => {
      try {
        database.transact(work)
      } catch (cause) {
        throw toStoreError(options.path, cause)
      }
    })
    yield* Effect.addFinalizer(() => behind.flushAndTell)
    yield* Effect.forkScoped(behind.run)

    return SqliteFile.of({
      prepare: (sql) => database.prepare(sql),
      attempt,
      transact,
      writeBehind: (source) => behind.add(source),
      wait: (rows) => behind.wait(rows),
      flush: () => behind.flush()
    })
  })

/**
 * Opens the file, and closes it with its scope. Fails with a `StoreError` when another process has it, a newer version
 * of shadowcat has written it, it is damaged, or it cannot be used at all.
 */
export const layer = (options: Options): Layer.Layer<SqliteFile, StoreError> =>
  Layer.scoped(SqliteFile, make(options))

/**
 * What SQLite creates beside the file gets the file's mode. A file that is there is not opened: closing it would give
 * up the lock that this very process may have on it.
 */
const createFile = (path: string): void => {
  try {
    closeSync(openSync(path, "ax", 0o600))
  } catch (error) {
    if (errorCode(error) === "ENOENT")
      throw new Error("its folder does not exist: create that first", { cause: error })
    if (errorCode(error) !== "EEXIST") throw error
  }
  if (!statSync(path).isFile()) throw new Error("it is not a file")
}

/** Locks the file, looks whose it is, and brings it to this version; nothing is written to one of others. */
const takeUp = (database: Database, path: string, synchronous: "FULL" | "NORMAL"): void => {
  database.exec("PRAGMA locking_mode = EXCLUSIVE")
  database.exec("BEGIN EXCLUSIVE")
  database.exec("COMMIT")
  const isNew = database.number("schema_version") === 0
  if (!isNew && database.number("application_id") !== APPLICATION)
    throw new Error("it is the database of another program")
  if (database.number("user_version") > migrations.length)
    throw new StoreError({ reason: "NewerVersion", store: path })
  database.exec("PRAGMA journal_mode = WAL")
  database.exec(`PRAGMA synchronous = ${synchronous}`)
  migrate(database)
}

const toStoreError = (store: string, cause: unknown): StoreError =>
  cause instanceof StoreError ? cause : new StoreError({ reason: reasonOf(cause), store, cause })

const reasonOf = (cause: unknown): StoreError["reason"] => {
  if (ParseResult.isParseError(cause)) return "Broken"
  const code = errorCode(cause) ?? ""
  if (/^SQLITE_(BUSY|LOCKED)/.test(code)) return "InUse"
  if (/^SQLITE_(CORRUPT|NOTADB)/.test(code)) return "Broken"
  return "Unavailable"
}
