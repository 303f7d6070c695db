import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"

/** The largest resident set that a process has had, in MB. Only Linux tells it of another process. */
export const peakMemory = (pid: number): Effect.Effect<number | undefined> =>
  Effect.sync(() => {
    try {
      const kilobytes = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
      return kilobytes === undefined ? undefined : Number(kilobytes) / 1024
    } catch {
      return undefined
    }
  })
