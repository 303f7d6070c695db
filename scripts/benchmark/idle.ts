/** What a session costs that does nothing, with both of its streams open. */
import { setTimeout as sleep } from "node:timers/promises"
import type { Measure } from "./measure.js"
import { memoryOf } from "./memory.js"
import { Clients } from "./sessions.js"

// They come before the first reading, so that what a process holds once is not counted to its sessions.
const sessionsBefore = 100

export const idle: Measure = {
  name: "memory",
  direct: false,
  samples: ({ rounds }) => rounds,
  sample: (path, bench) =>
    bench.fresh(path, async ({ url, proxy }, memoryFile) => {
      if (proxy === undefined) throw new Error(`${path.name} has no proxy to measure`)
      const clients = new Clients(url)
      try {
        const read = async (sessions: number) => {
          const streams = (await bench.counted("streams")) + sessions
          await clients.stream(await clients.open(sessions))
          await sleep(300)
          if ((await bench.counted("streams")) < streams)
            throw new Error("not all streams reached the upstream")
          return memoryOf(proxy, memoryFile)
        }
        const before = await read(sessionsBefore)
        const after = await read(bench.plan.idleSessions)
        const kilobytes = (bytes: number) => bytes / 1024 / bench.plan.idleSessions
        return { heap: kilobytes(after.heap - before.heap), rss: kilobytes(after.rss - before.rss) }
      } finally {
        await clients.end()
      }
    }),
  rows: [
    {
      title: "KB a session, heap and external",
      figure: "heap",
      digits: 1,
      compare: "ratio",
      mark: { of: "value", atMost: 35 }
    },
    { title: "KB a session, RSS", figure: "rss", digits: 1, compare: "ratio" }
  ]
}
