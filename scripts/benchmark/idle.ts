/** What a session costs that does nothing, with both of its streams open. */
import { setTimeout as sleep } from "node:timers/promises"
import type { Bench } from "./bench.js"
import type { Measure, Plan, Row } from "./measure.js"
import { memoryOf } from "./memory.js"
import { Clients } from "./sessions.js"

interface Idle {
  readonly name: string
  /** They come before the first reading, so that what a process holds once is not counted to its sessions. */
  readonly sessionsBefore: number
  readonly sessions: (plan: Plan) => number
  /** How many streams the upstream has, where it is told of them. */
  readonly streams?: (bench: Bench) => Promise<number>
  readonly rows: ReadonlyArray<Row>
}

const memory = ({ name, rows, sessions, sessionsBefore, streams }: Idle): Measure => ({
  name,
  direct: false,
  samples: ({ rounds }) => rounds,
  sample: (path, bench) =>
    bench.fresh(path, async ({ url, proxy }, memoryFile) => {
      if (proxy === undefined) throw new Error(`${path.name} has no proxy to measure`)
      const clients = new Clients(url)
      const count = sessions(bench.plan)
      try {
        const read = async (sessions: number) => {
          const before = await streams?.(bench)
          await clients.stream(await clients.open(sessions))
          await sleep(300)
          const now = await streams?.(bench)
          if (before !== undefined && now !== undefined && now < before + sessions)
            throw new Error("not all streams reached the upstream")
          return memoryOf(proxy, memoryFile)
        }
        const before = await read(sessionsBefore)
        const after = await read(count)
        const kilobytes = (bytes: number) => bytes / 1024 / count
        return { heap: kilobytes(after.heap - before.heap), rss: kilobytes(after.rss - before.rss) }
      } finally {
        await clients.end()
      }
    }),
  rows
})

const heap = (title: string, atMost: number): Row => ({
  title,
  figure: "heap",
  digits: 1,
  compare: "ratio",
  mark: { of: "value", atMost }
})

const rss = (title: string): Row => ({ title, figure: "rss", digits: 1, compare: "ratio" })

export const idle: Measure = memory({
  name: "memory",
  sessionsBefore: 100,
  sessions: ({ idleSessions }) => idleSessions,
  streams: (bench) => bench.counted("streams"),
  rows: [heap("KB a session, heap and external", 40), rss("KB a session, RSS")]
})

/** Of the proxy's process alone: its children count for themselves. */
export const stdioIdle: Measure = memory({
  name: "stdio-memory",
  sessionsBefore: 20,
  sessions: ({ idleChildren }) => idleChildren,
  rows: [heap("Stdio KB a session, heap and external", 40), rss("Stdio KB a session, RSS")]
})
