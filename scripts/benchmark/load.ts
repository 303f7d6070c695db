/** Calls under load, and calls one at a time. */
import { connections } from "./bench.js"
import { cpuMicros } from "./cpuTime.js"
import type { Measure } from "./measure.js"
import { jsonTool, sseTool } from "./messages.js"

const throughput = (kind: string, tool: string): Measure => ({
  name: `${kind.toLowerCase()}-throughput`,
  direct: true,
  samples: ({ rounds, turns }) => rounds * turns,
  async sample(path, bench) {
    const warm = await bench.warm(path)
    const { proxy } = warm
    const before = proxy && cpuMicros(proxy.pid)
    const loaded = await bench.load(warm, [tool], connections, bench.plan.turnSeconds)
    const perSecond = loaded.requests / loaded.seconds
    if (proxy === undefined || before === undefined) return { perSecond }
    return { perSecond, cpu: (cpuMicros(proxy.pid) - before) / loaded.requests }
  },
  rows: [
    {
      title: `${kind} calls/s, ${connections} connections`,
      figure: "perSecond",
      digits: 0,
      compare: "ratio",
      mark: { of: "comparison", atLeast: 0.9 }
    },
    {
      title: `${kind} proxy CPU µs a call`,
      figure: "cpu",
      digits: 1,
      compare: "ratio",
      mark: { of: "comparison", atMost: 1.15 }
    }
  ]
})

const latency = (kind: string, tool: string): Measure => ({
  name: `${kind.toLowerCase()}-latency`,
  direct: true,
  samples: ({ rounds, turns }) => rounds * turns,
  async sample(path, bench) {
    const warm = await bench.warm(path)
    const { p50Micros, p99Micros } = await bench.load(warm, [tool], 1, bench.plan.turnSeconds)
    return { p50: p50Micros, p99: p99Micros }
  },
  rows: [
    {
      title: `${kind} p50 µs, 1 connection`,
      figure: "p50",
      digits: 0,
      compare: "difference",
      mark: { of: "comparison", atMost: 100 }
    },
    { title: "  added to direct", figure: "p50", digits: 0, overDirect: true },
    { title: `${kind} p99 µs, 1 connection`, figure: "p99", digits: 0, compare: "difference" },
    { title: "  added to direct", figure: "p99", digits: 0, overDirect: true }
  ]
})

export const load: ReadonlyArray<Measure> = [
  throughput("JSON", jsonTool),
  throughput("SSE", sseTool),
  latency("JSON", jsonTool),
  latency("SSE", sseTool)
]
