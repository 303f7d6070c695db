import { readFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import type { Child } from "./children.js"

/** What a process holds after a forced collection, in bytes. */
export interface Memory {
  readonly heap: number
  readonly rss: number
}

const linesOf = (file: string): Array<string> => {
  try {
    return readFileSync(file, "utf8").split("\n").slice(0, -1)
  } catch {
    // The file comes with its first line.
    return []
  }
}

const field = (usage: unknown, name: string): number => {
  const value: unknown = typeof usage === "object" && usage !== null ? Reflect.get(usage, name) : undefined
  if (typeof value === "number") return value
  throw new Error(`the memory report has no number named ${name}`)
}

/** Asks a process that runs the preload; `file` is the one that it was told to write to. */
export const memoryOf = async (child: Child, file: string): Promise<Memory> => {
  const before = linesOf(file).length
  child.signal("SIGUSR2")
  for (let waited = 0; waited < 20_000 && child.running; waited += 20) {
    await sleep(20)
    const line = linesOf(file)[before]
    if (line !== undefined) {
      const usage: unknown = JSON.parse(line)
      return { heap: field(usage, "heapUsed") + field(usage, "external"), rss: field(usage, "rss") }
    }
  }
  throw new Error(`${child.name} did not report its memory: ${child.said}`)
}
