/**
 * Finds process groups that consist of zombies: processes that have exited, but whose exit status no parent has read.
 * The init process reaps zombies. In a container whose init process does not reap them, their group never looks empty.
 */
import { readdir, readFile } from "node:fs/promises"
import * as Effect from "effect/Effect"

/** The time for which a scan of all processes is reused, in milliseconds. */
const CACHE_TIME = 250

let lastScan: { readonly at: number; readonly groups: Promise<ReadonlySet<number>> } | undefined

/** True if a process group has members, and all of them are zombies. Always false without `/proc`. */
export const hasOnlyZombies = (group: number): Effect.Effect<boolean> =>
  Effect.promise(async () => {
    const now = performance.now()
    if (lastScan === undefined || now - lastScan.at > CACHE_TIME) lastScan = { at: now, groups: scan() }
    return (await lastScan.groups).has(group)
  })

/** Returns the groups that have zombies and no living process. */
const scan = async (): Promise<ReadonlySet<number>> => {
  const dead = new Set<number>()
  const alive = new Set<number>()
  for (const name of await readdir("/proc").catch((): ReadonlyArray<string> => [])) {
    const [, state, group] = STAT.exec(await readStat(name)) ?? []
    if (state !== undefined) (ENDED_STATES.has(state) ? dead : alive).add(Number(group))
  }
  return new Set([...dead].filter((group) => !alive.has(group)))
}

/** The state and group follow the command name, which can contain parentheses (proc_pid_stat(5)). */
const STAT = /^\d+ \(.*\) (\S) \d+ (\d+) /s

const ENDED_STATES: ReadonlySet<string> = new Set(["Z", "X"])

const readStat = (name: string): Promise<string> =>
  /^\d+$/.test(name) ? readFile(`/proc/${name}/stat`, "latin1").catch(() => "") : Promise.resolve("")
