/** Write-behind: writes small changes in batches, so that the code that makes a change never waits for storage. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"

const defaults = { delay: Duration.millis(20), rowLimit: 200 }

/** The pause after a failed write, before the delay. */
const RETRY_DELAY = Duration.seconds(1)

export interface WriteBehindOptions<E> {
  /** The name of the store in log messages. */
  readonly name: string
  /** Writes all dirty rows. If the write fails, all rows must still be dirty. */
  readonly write: Effect.Effect<void, E>
  /** The maximum delay of a write. Default: 20 ms. */
  readonly delay?: Duration.DurationInput
  /** The number of dirty rows that are written without waiting for the delay. Default: 200. */
  readonly rowLimit?: number
}

/**
 * Knows how much is dirty and decides when to write it: after the delay since the first change, or as soon as the dirty
 * rows reach the limit. A failed write is repeated. The log reports when writes begin to fail and when they succeed again.
 */
export class WriteBehind<E extends { readonly message: string }> {
  private readonly isDirty = Effect.unsafeMakeLatch()
  private readonly isFull = Effect.unsafeMakeLatch()
  private readonly delay: Duration.DurationInput
  private readonly rowLimit: number
  private readonly permit = Effect.unsafeMakeSemaphore(1)
  private dirtyRows = 0
  private isFailing = false

  constructor(private readonly options: WriteBehindOptions<E>) {
    this.delay = options.delay ?? defaults.delay
    this.rowLimit = options.rowLimit ?? defaults.rowLimit
  }

  /** Adds to the number of dirty rows. A negative number means that rows no longer need a write. */
  markDirty(rows: number): void {
    this.dirtyRows += rows
    if (this.dirtyRows > 0) this.isDirty.unsafeOpen()
    if (this.dirtyRows >= this.rowLimit) this.isFull.unsafeOpen()
  }

  /** Writes all dirty rows now. Waits for a write that is in progress. */
  readonly flush: Effect.Effect<void, E> = Effect.suspend(() => {
    const rows = this.dirtyRows
    this.isDirty.unsafeClose()
    this.isFull.unsafeClose()
    if (rows <= 0) return Effect.void
    this.dirtyRows = 0
    return this.options.write.pipe(
      Effect.onExit((exit) => Effect.sync(() => (Exit.isFailure(exit) ? this.markDirty(rows) : undefined))),
      Effect.tapBoth({ onFailure: (error) => this.failed(error), onSuccess: () => this.succeeded })
    )
  }).pipe(this.permit.withPermits(1), Effect.uninterruptible)

  /** Writes until the scope closes, and flushes then. */
  readonly start: Effect.Effect<void, never, Scope.Scope> = Effect.suspend(() =>
    Effect.zipRight(
      Effect.addFinalizer(() => Effect.ignore(this.flush)),
      Effect.forkScoped(this.run)
    )
  )

  private readonly run: Effect.Effect<never> = this.isDirty.await.pipe(
    Effect.zipRight(Effect.suspend(() => Effect.raceFirst(this.isFull.await, Effect.sleep(this.delay)))),
    Effect.zipRight(this.flush),
    Effect.catchAll(() => Effect.sleep(RETRY_DELAY)),
    Effect.catchAllDefect((cause) =>
      Effect.zipRight(Effect.logError(`${this.options.name}: defect`, cause), Effect.sleep(RETRY_DELAY))
    ),
    Effect.forever
  )

  private failed({ message }: E): Effect.Effect<void> {
    if (this.isFailing) return Effect.void
    this.isFailing = true
    return Effect.logWarning(`${this.options.name}: write failed, retrying`, { message })
  }

  private get succeeded(): Effect.Effect<void> {
    if (!this.isFailing) return Effect.void
    this.isFailing = false
    return Effect.logInfo(`${this.options.name}: writes succeed again`)
  }
}

/** Starts to write behind, until the scope closes. */
export const make = <E extends { readonly message: string }>(
  options: WriteBehindOptions<E>
): Effect.Effect<WriteBehind<E>, never, Scope.Scope> =>
  Effect.suspend(() => {
    const writeBehind = new WriteBehind(options)
    return Effect.as(writeBehind.start, writeBehind)
  })
