/** Write-behind for the activity of sessions, for stores outside of this process. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as WriteBehind from "../internal/writeBehind.js"
import type { StoreError } from "../ProxyError.js"

/** The time within which all activity is one write. A write per activity would cost as much as a call. */
const COALESCED = { delay: Duration.seconds(1), rowLimit: Infinity }

/** Writes at most once a second per session. A SIGKILL loses the activity of the last second. */
export interface ActivityWriter {
  /** Notes that a session was active now. */
  readonly touched: (id: string) => void
  /** Drops the activity of a session whose record is removed. */
  readonly forget: (id: string) => void
}

/**
 * Makes a writer that writes until the scope closes, and writes all activity then. `write` stores the last activity of
 * sessions. Some of them may be removed.
 */
export const make = (
  write: (ids: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
): Effect.Effect<ActivityWriter, never, Scope.Scope> =>
  Effect.suspend(() => {
    const active = new Set<string>()
    const writeActive = Effect.suspend(() => {
      const ids = Array.from(active)
      active.clear()
      return Effect.onExit(write(ids), (exit) =>
        Effect.sync(() => {
          if (Exit.isFailure(exit)) for (const id of ids) active.add(id)
        })
      )
    })
    return Effect.map(
      WriteBehind.make({ ...COALESCED, name: "session store", write: writeActive }),
      (writeBehind): ActivityWriter => ({
        touched: (id) => {
          if (active.has(id)) return
          active.add(id)
          writeBehind.markDirty(1)
        },
        forget: (id) => {
          if (active.delete(id)) writeBehind.markDirty(-1)
        }
      })
    )
  })
