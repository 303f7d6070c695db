/** Opens logs that an `EventStorage` stores, and writes their changes behind. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { WriteBehind } from "../internal/writeBehind.js"
import { StoreError } from "../ProxyError.js"
import type { EventStorage, RejectedChange, StoredLog } from "./EventStorage.js"
import { newOrigin, nextOrigin, openingChange, type LogOrigin } from "./LogOrigin.js"
import { LogWriter, type PendingChange } from "./LogWriter.js"

export interface DurableLog {
  readonly origin: LogOrigin
  readonly writer: LogWriter
}

export class DurableLogs {
  /** The writers with dirty state. */
  readonly dirty = new Set<LogWriter>()
  /** The writers of the open logs, by session. */
  private readonly writers = new Map<string, LogWriter>()
  /** The sessions whose logs are to be removed. */
  private readonly removed = new Set<string>()
  private readonly writeBehind: WriteBehind<StoreError>

  constructor(private readonly storage: EventStorage["Type"]) {
    this.writeBehind = new WriteBehind({ name: "event store", write: Effect.suspend(() => this.write()) })
  }

  /** Writes behind until the scope closes. */
  get start(): Effect.Effect<void, never, Scope.Scope> {
    return this.writeBehind.start
  }

  /** Writes all dirty state now. */
  get flush(): Effect.Effect<void, StoreError> {
    return this.writeBehind.flush
  }

  /**
   * Opens the next generation of a session's log, or a new log. Stops writing a log of the session that is already
   * open. The generation is stored on return, so no event id is issued twice, even after a SIGKILL.
   */
  open(session: string): Effect.Effect<DurableLog, StoreError> {
    return Effect.gen(this, function* () {
      // An earlier log of the session may have changes that are not stored yet.
      if (this.writers.has(session) || this.removed.has(session)) yield* this.flush
      this.writers.get(session)?.finish()
      const stored = yield* this.storage.load(session)
      const origin = yield* this.decode(stored)
      const rejected = yield* this.storage.write([openingChange(session, origin)])
      if (rejected.length > 0) return yield* this.open(session)
      const writer = new LogWriter(session, origin, this)
      this.writers.set(session, writer)
      return { origin, writer }
    })
  }

  markDirty(rows: number): void {
    this.writeBehind.markDirty(rows)
  }

  /** Removes the log of a session. */
  remove(session: string): void {
    this.removed.add(session)
    this.markDirty(1)
  }

  /** Removes a writer that has stopped. `rows` is the number of dirty rows that it will not write. */
  finished(writer: LogWriter, rows: number): void {
    this.dirty.delete(writer)
    if (this.writers.get(writer.session) === writer) this.writers.delete(writer.session)
    this.markDirty(-rows)
  }

  private decode(stored: Option.Option<StoredLog>): Effect.Effect<LogOrigin, StoreError> {
    return Effect.try({
      try: () => Option.match(stored, { onNone: newOrigin, onSome: nextOrigin }),
      catch: (cause) => new StoreError({ reason: "Broken", store: this.storage.name, cause })
    })
  }

  private write(): Effect.Effect<void, StoreError> {
    const removed = Array.from(this.removed)
    const pending = Array.from(this.dirty, (writer) => writer.collect())
    this.dirty.clear()
    if (removed.length === 0 && pending.length === 0) return Effect.void
    const remove = removed.length === 0 ? Effect.void : this.storage.remove(removed)
    const write =
      pending.length === 0 ? Effect.succeed([]) : this.storage.write(pending.map(({ change }) => change))
    return Effect.zipRight(remove, write).pipe(
      Effect.onExit((exit) =>
        Effect.sync(() => {
          if (Exit.isFailure(exit)) return pending.forEach(({ failed }) => failed())
          for (const session of removed) this.removed.delete(session)
          reject(pending, exit.value)
        })
      ),
      // A flush has to write the missing logs too, because a suspended log is not written later.
      Effect.flatMap((rejected) => (rejected.some(isMissing) ? this.write() : Effect.void))
    )
  }
}

const isMissing = ({ reason }: RejectedChange): boolean => reason === "missing"

/** Reopens the logs that are missing, and stops writing those that another process has opened. */
const reject = (pending: ReadonlyArray<PendingChange>, rejected: ReadonlyArray<RejectedChange>): void => {
  const reasons = new Map(rejected.map(({ reason, session }) => [session, reason]))
  for (const { failed, writer } of pending) {
    const reason = reasons.get(writer.session)
    if (reason === "superseded") writer.finish()
    if (reason === "missing") {
      failed()
      writer.reopen()
    }
  }
}
