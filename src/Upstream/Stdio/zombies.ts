/**
 * Processes that have ended and whom nobody has asked how. Where the first process of a container does not ask, as
 * it should, they stay for good, and their process group looks as if somebody were in it.
 */
import { readdir, readFile } from "node:fs/promises"
import * as Effect from "effect/Effect"

/** How old, in milliseconds, an answer may be: one look at all processes serves all who ask at about that time. */
const LIFETIME = 250

let last: { readonly at: number; readonly groups: Promise<ReadonlySet<number>> } | undefined

/** Whether a process group has members, and all of them have ended. False where there is no `/proc`. */
export const hasOnlyZombies = (group: number): Effect.Effect<boolean> =>
  Effect.promise(async () => {
    const now = performance.now()
    if (last === undefined || now - last.at > LIFETIME) last = { at: now, groups: ended() }
    return (await last.groups).has(group)
  })

/** The groups of which no member is alive. A group that comes later is not among them, and does no harm. */
const ended = async (): Promise<ReadonlySet<number>> => {
  const dead = new Set<number>()
  const alive = new Set<number>()
  for (const name of await readdir("/proc").catch((): ReadonlyArray<string> => [])) {
    const [, state, group] = STAT.exec(await statOf(name)) ?? []
    if (state !== undefined) (ENDED.has(state) ? dead : alive).add(Number(group))
  }
  return new Set([...dead].filter((group) => !alive.has(group)))
}

/** State and group follow the parenthesis behind the name, which may hold others. */
const STAT = /^\d+ \(.*\) (\S) \d+ (\d+) /s

const ENDED: ReadonlySet<string> = new Set(["Z", "X"])

const statOf = (name: string): Promise<string> =>
  /^\d+$/.test(name) ? readFile(`/proc/${name}/stat`, "latin1").catch(() => "") : Promise.resolve("")
