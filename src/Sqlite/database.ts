/** A SQLite database, as far as it is used here. Everything is synchronous, and throws what SQLite says. */

export type Value = string | number | null | Uint8Array

export interface Statement {
  /** How many rows it has changed. */
  readonly run: (...values: ReadonlyArray<Value>) => number
  /** The rows that it gives. */
  readonly all: (...values: ReadonlyArray<Value>) => ReadonlyArray<unknown>
}

export interface Database {
  readonly exec: (sql: string) => void
  readonly prepare: (sql: string) => Statement
  /** What a pragma with one number for an answer says. */
  readonly number: (pragma: string) => number
  /** All of the work, or none of it when it throws. */
  readonly transact: <A>(work: () => A) => A
  readonly close: () => void
  /** Closes it as it is, for whoever it belongs to. */
  readonly leave: () => void
}

/** Opens a file, and loads what it takes to do so. The path must be absolute: others may lead over the network. */
export const openDatabase = async (path: string): Promise<Database> => {
  const { default: Libsql } = await import("libsql")
  const handle = new Libsql(path)

  const prepare = (sql: string): Statement => {
    const statement = handle.prepare<Array<ReadonlyArray<Value>>>(sql)
    return {
      // As one array: alone, `null` would be taken for a list of named values.
      run: (...values) => statement.run(values).changes,
      all: (...values) => statement.all(values)
    }
  }

  const leave = () => {
    try {
      // Closing alone would keep the lock until the last prepared statement is collected.
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
        // Some errors have undone everything already.
        if (handle.inTransaction) handle.exec("ROLLBACK")
        throw error
      }
    },
    close: () => {
      try {
        handle.exec("PRAGMA journal_mode = DELETE")
      } finally {
        leave()
      }
    },
    leave
  }
}
