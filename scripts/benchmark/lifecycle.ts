/** How fast a proxy starts, opens sessions, and ends them all. */
import { listening } from "./bench.js"
import type { Measure } from "./measure.js"
import { Clients, parallel } from "./sessions.js"

const millisToOpen = async (clients: Clients, count: number): Promise<number> => {
  const opening = performance.now()
  await clients.open(count)
  return performance.now() - opening
}

export const sessions: Measure = {
  name: "sessions",
  direct: true,
  samples: ({ rounds }) => rounds,
  sample: (path, bench) =>
    bench.fresh(path, async ({ url, proxy }) => {
      const count = bench.plan.openSessions
      const clients = new Clients(url)
      try {
        const open = await millisToOpen(clients, count)
        if (proxy === undefined || path.keepsSessions !== true) return { open }

        const deletedBefore = await bench.counted("deleted")
        const closing = performance.now()
        proxy.signal("SIGTERM")
        if (!(await proxy.exitedWithin(30_000))) throw new Error(`${path.name} did not end within 30 s`)
        const close = performance.now() - closing
        return { open, close, left: count - ((await bench.counted("deleted")) - deletedBefore) }
      } finally {
        await clients.end()
      }
    }),
  rows: [
    { title: `ms to open 1,000 sessions, ${parallel} at once`, figure: "open", digits: 0, compare: "ratio" },
    {
      title: "ms from SIGTERM to exit, 1,000 open",
      figure: "close",
      digits: 0,
      mark: { of: "value", atMost: 1_500 }
    },
    {
      title: "  upstream sessions left undeleted",
      figure: "left",
      digits: 0,
      mark: { of: "value", atMost: 0 }
    }
  ]
}

export const stdioSessions: Measure = {
  name: "stdio-sessions",
  direct: false,
  samples: ({ rounds }) => rounds,
  sample: (path, bench) =>
    bench.fresh(path, async ({ url }) => {
      const clients = new Clients(url)
      try {
        return { open: await millisToOpen(clients, bench.plan.openChildren) }
      } finally {
        await clients.end()
      }
    }),
  rows: [
    {
      title: `Stdio ms to open 100 sessions, ${parallel} at once`,
      figure: "open",
      digits: 0,
      compare: "ratio"
    }
  ]
}

export const start: Measure = {
  name: "start",
  direct: false,
  samples: ({ starts }) => starts,
  async sample(path, bench) {
    if (path.proxy === undefined) throw new Error(`${path.name} has no proxy to start`)
    const args = await path.proxy(bench)
    const started = performance.now()
    const proxy = bench.children.start(path.name, process.execPath, args)
    try {
      await listening(proxy)
      return { listening: performance.now() - started }
    } finally {
      proxy.kill()
      await proxy.exited
    }
  },
  rows: [
    {
      title: "ms from start to listening",
      figure: "listening",
      digits: 0,
      compare: "difference",
      mark: { of: "value", atMost: 250 }
    }
  ]
}
