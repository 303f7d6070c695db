/** A SQLite file for the state that outlives the process: session records and the events of streams. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ParseResult from "effect/ParseResult"
import type * as Scope from "effect/Scope"
import { closeSync, openSync, statSync } from "node:fs"
import { resolve } from "node:path"
import { type Database, openDatabase, type Statement } from "./database.js"
import { errorCode, StoreError } from "../ProxyError.js"
import { APPLICATION_ID, migrate, migrations } from "./migrations.js"
import { defaults, type SqliteFileOptions } from "./options.js"

/** A file that only this process uses, with the tables of this version. */
export class SqliteFile extends Context.Tag("shadowcat/SqliteFile")<
  SqliteFile,
  {
    /** The path of the file, as the options name it. */
    readonly path: string
    /** Prepares a statement. Its methods throw SQLite's errors. */
    readonly prepare: (sql: string) => Statement
    /** Runs synchronous work. Fails with a `StoreError` if the work throws. */
    readonly attempt: <A>(work: () => A) => Effect.Effect<A, StoreError>
    /** Runs synchronous work in a transaction. Fails with a `StoreError` if the work throws. */
    readonly transact: <A>(work: () => A) => Effect.Effect<A, StoreError>
  }
>() {}

export const make = (
  options: SqliteFileOptions
): Effect.Effect<SqliteFile["Type"], StoreError, Scope.Scope> =>
  Effect.gen(function* () {
    const path = resolve(options.path)
    const synchronous = SYNCHRONOUS[options.sync ?? defaults.sync]
    const attempt = <A>(work: () => A) =>
      Effect.try({ try: work, catch: (cause) => toStoreError(options.path, cause) })

    yield* attempt(() => createFile(path))
    const opened = Effect.tryPromise({
      try: () => openDatabase(path),
      catch: (cause) => toStoreError(options.path, cause)
    }).pipe(
      Effect.tap((database) =>
        Effect.tapError(
          attempt(() => prepareFile(database, options.path, synchronous)),
          () => Effect.ignore(attempt(() => database.closeUnchanged()))
        )
      )
    )
    const database = yield* Effect.acquireRelease(opened, (database) =>
      Effect.catchAll(
        attempt(() => database.close()),
        ({ message }) => Effect.logWarning("sqlite: could not close the file cleanly", { message })
      )
    )

    return SqliteFile.of({
      path: options.path,
      prepare: (sql) => database.prepare(sql),
      attempt,
      transact: (work) => attempt(() => database.transact(work))
    })
  })

const SYNCHRONOUS = { normal: "NORMAL", full: "FULL" } as const

/**
 * Opens the file, and closes it with its scope. Fails with a `StoreError` if another process uses the file, a newer
 * version of shadowcat wrote it, or it is damaged or not usable.
 */
export const layer = (options: SqliteFileOptions): Layer.Layer<SqliteFile, StoreError> =>
  Layer.scoped(SqliteFile, make(options))

/**
 * Creates the file with a mode that SQLite uses for its other files too. An existing file is not opened, because
 * closing it would release a POSIX lock that this process may have on it.
 */
const createFile = (path: string): void => {
  try {
    closeSync(openSync(path, "ax", 0o600))
  } catch (error) {
    if (errorCode(error) === "ENOENT")
      throw new Error("its folder does not exist: create it first", { cause: error })
    if (errorCode(error) !== "EEXIST") throw error
  }
  if (!statSync(path).isFile()) throw new Error("it is not a file")
}

/** Locks the file, checks which program wrote it, and migrates it. The file of another program is not changed. */
const prepareFile = (database: Database, path: string, synchronous: "FULL" | "NORMAL"): void => {
  database.exec("PRAGMA locking_mode = EXCLUSIVE")
  database.exec("BEGIN EXCLUSIVE")
  database.exec("COMMIT")
  const isNew = database.number("schema_version") === 0
  if (!isNew && database.number("application_id") !== APPLICATION_ID)
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
