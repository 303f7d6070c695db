/** The options of the SQLite file, in a module that does not load SQLite. */

/**
 * The durability of stored data. With `normal` it survives a SIGKILL of the process, with `full` also a power failure.
 * `full` waits for the disk at each write.
 */
export type Sync = "normal" | "full"

export interface SqliteFileOptions {
  /** The path of the file. A missing file is created with mode 0600. The directory must exist. */
  readonly path: string
  /** Default: `normal`. */
  readonly sync?: Sync | undefined
}

export const defaults: { readonly sync: Sync } = { sync: "normal" }
