/** Write-behind for the activity of sessions, for stores outside of this process. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { WriteBehind } from "../internal/writeBehind.js"
import type { StoreError } from "../ProxyError.js"

/** The time within which all activity of a session is one write. A write per activity would cost as much as a call. */
const COALESCED_MILLIS = 1_000

/** The interval between two checks for due activity, while a session is active. */
const INTERVAL = Duration.millis(100)

/** Writes at most once a second per session. A SIGKILL loses the activity of the last second. */
export class ActivityWriter {
  /** The sessions with activity that is not due yet, with the time of their first activity, oldest first. */
  private readonly active = new Map<string, number>()
  private readonly due = new Set<string>()
  private readonly hasActive = Effect.unsafeMakeLatch()
  private readonly writeBehind: WriteBehind<StoreError>

  constructor(
    private readonly clock: Clock.Clock,
    /** Writes the last activity of sessions. Some of them may be removed. */
    private readonly write: (ids: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
  ) {
    this.writeBehind = new WriteBehind({
      name: "session store",
      write: Effect.suspend(() => this.writeDue())
    })
  }

  /** Notes that a session was active now. */
  touched(id: string): void {
    if (this.active.has(id)) return
    this.active.set(id, this.clock.unsafeCurrentTimeMillis())
    this.hasActive.unsafeOpen()
  }

  /** Drops the activity of a session whose record is removed. */
  forget(id: string): void {
    this.active.delete(id)
  }

  /** Writes until the scope closes, and writes all activity then. */
  readonly start: Effect.Effect<void, never, Scope.Scope> = Effect.suspend(() =>
    this.writeBehind.start.pipe(
      Effect.zipRight(Effect.addFinalizer(() => Effect.sync(() => this.makeDue(Infinity)))),
      Effect.zipRight(Effect.forkScoped(this.run))
    )
  )

  private readonly makeDueUntilNone = Effect.sync(() => {
    this.makeDue(this.clock.unsafeCurrentTimeMillis() - COALESCED_MILLIS)
    if (this.active.size === 0) this.hasActive.unsafeClose()
    return this.active.size > 0
  })

  private readonly run: Effect.Effect<never> = this.hasActive.await.pipe(
    Effect.zipRight(Effect.sleep(COALESCED_MILLIS)),
    Effect.zipRight(
      Effect.repeat(this.makeDueUntilNone, { while: Boolean, schedule: Schedule.spaced(INTERVAL) })
    ),
    Effect.forever
  )

  /** Marks sessions as due if their first unwritten activity was at this time or before. */
  private makeDue(time: number): void {
    for (const [id, since] of this.active) {
      if (since > time) break
      this.active.delete(id)
      this.due.add(id)
      this.writeBehind.markDirty(1)
    }
  }

  private writeDue(): Effect.Effect<void, StoreError> {
    const ids = Array.from(this.due)
    this.due.clear()
    return Effect.onExit(this.write(ids), (exit) =>
      Effect.sync(() => {
        if (Exit.isFailure(exit)) for (const id of ids) this.due.add(id)
      })
    )
  }
}

/** Makes a writer that writes until the scope closes. */
export const make = (
  write: (ids: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
): Effect.Effect<ActivityWriter, never, Scope.Scope> =>
  Effect.flatMap(Effect.clock, (clock) => {
    const writer = new ActivityWriter(clock, write)
    return Effect.as(writer.start, writer)
  })
