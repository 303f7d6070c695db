/** Gathers small changes and writes them together, so that the hot path waits for no file. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { StoreError } from "../ProxyError.js"

/** Something that has changes to be written. */
export interface Source {
  /**
   * Writes what waits, within a transaction; called when nothing has changed, too. It may throw. What it gives is
   * called once the transaction has succeeded: until then everything still waits.
   */
  readonly write: () => () => void
}

/** So long a change waits at most, if the file takes it. */
const INTERVAL = Duration.millis(20)

/** As soon as so many rows wait, they are written. */
const BATCH = 200

/** How long a file is left alone that has not taken something. */
const PAUSE = Duration.seconds(1)

export class WriteBehind {
  private readonly sources: Array<Source> = []
  private readonly something = Effect.unsafeMakeLatch()
  private readonly enough = Effect.unsafeMakeLatch()
  private rows = 0
  private isFailing = false
  /** What has failed and was not told yet. */
  private failure: StoreError | undefined

  constructor(
    /** Does work in a transaction, and throws a `StoreError`. */
    private readonly transact: (work: () => void) => void
  ) {}

  add(source: Source): void {
    this.sources.push(source)
  }

  /** So many rows more wait; less than none when some need not be written any more. */
  wait(rows: number): void {
    this.rows += rows
    if (this.rows > 0) this.something.unsafeOpen()
    if (this.rows >= BATCH) this.enough.unsafeOpen()
  }

  /** Writes what waits. False when it could not: then it still waits. */
  flush(): boolean {
    try {
      if (this.rows > 0) this.writeAll()
      this.something.unsafeClose()
      this.enough.unsafeClose()
      return true
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.failure = error
      return false
    }
  }

  /** Writes, and tells when it begins or ceases to fail. */
  readonly flushAndTell: Effect.Effect<boolean> = Effect.suspend(() => {
    const isWritten = this.flush()
    const { failure } = this
    this.failure = undefined
    const wasFailing = this.isFailing
    this.isFailing = !isWritten
    const told =
      failure !== undefined && !wasFailing
        ? Effect.logWarning("what happens is not stored", { message: failure.message })
        : isWritten && wasFailing
          ? Effect.logInfo("what happens is stored again")
          : Effect.void
    return Effect.as(told, isWritten)
  })

  /** Writes whenever something waits, for ever. */
  readonly run: Effect.Effect<never> = this.something.await.pipe(
    Effect.zipRight(Effect.raceFirst(this.enough.await, Effect.sleep(INTERVAL))),
    Effect.zipRight(this.flushAndTell),
    Effect.flatMap((isWritten) => (isWritten ? Effect.void : Effect.sleep(PAUSE))),
    Effect.catchAllDefect((cause) => Effect.zipRight(Effect.logError("defect", cause), Effect.sleep(PAUSE))),
    Effect.forever
  )

  private writeAll(): void {
    const written: Array<() => void> = []
    this.transact(() => {
      for (const source of this.sources) written.push(source.write())
    })
    for (const settle of written) settle()
    this.rows = 0
  }
}
