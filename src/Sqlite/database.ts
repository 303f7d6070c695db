/** The part of a SQLite driver that the stores use. Everything is synchronous and throws SQLite's errors. */

export type Value = string | number | null | Uint8Array

export interface Statement {
  /** Runs the statement and returns the number of changed rows. */
  readonly run: (...values: ReadonlyArray<Value>) => number
  /** Runs the statement and returns its rows. */
  readonly all: (...values: ReadonlyArray<Value>) => ReadonlyArray<unknown>
}

export interface Database {
  readonly exec: (sql: string) => void
  readonly prepare: (sql: string) => Statement
  /** Reads a pragma that returns one number. */
  readonly number: (pragma: string) => number
  /** Runs the work in a transaction, which is rolled back if the work throws. */
  readonly transact: <A>(work: () => A) => A
  /** Removes the write-ahead log and closes the database. */
  readonly close: () => void
  /** Closes the database without changing its journal mode. */
  readonly closeUnchanged: () => void
}

/** Loads the driver and opens a file. The path must be absolute, because libsql reads some other paths as URLs. */
export const openDatabase = async (path: string): Promise<Database> => {
  const { default: Libsql } = await import("libsql")
  const handle = new Libsql(path)

  const prepare = (sql: string): Statement => {
    const statement = handle.prepare<Array<ReadonlyArray<Value>>>(sql)
    return {
      // The values are passed as one array, because the driver would read a single `null` as named values.
      run: (...values) => statement.run(values).changes,
      all: (...values) => statement.all(values)
    }
  }

  const closeUnchanged = () => {
    try {
      // Otherwise the file stays locked until all prepared statements are garbage-collected.
      handle.exec("PRAGMA locking_mode = NORMAL")
      prepare("SELECT 1 FROM sqlite_master").all()
    } finally {
      handle.close()
    }
  }

  return {
    exec: (sql) => void handle.exec(sql),
    prepare,
    number: (pragma) => {
      const [row] = prepare(`PRAGMA ${pragma}`).all()
      return typeof row === "object" && row !== null ? Number(Object.values(row)[0]) : 0
    },
    transact: (work) => {
      handle.exec("BEGIN IMMEDIATE")
      try {
        const result = work()
        handle.exec("COMMIT")
        return result
      } catch (error) {
        // Some errors roll back the transaction themselves.
        if (handle.inTransaction) handle.exec("ROLLBACK")
        throw error
      }
    },
    close: () => {
      try {
        handle.exec("PRAGMA journal_mode = DELETE")
      } finally {
        closeUnchanged()
      }
    },
    closeUnchanged
  }
}
