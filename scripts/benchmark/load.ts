/** Calls under load, and calls one at a time. */
import { connections } from "./bench.js"
import { cpuMicros } from "./cpuTime.js"
import type { Measure, Row } from "./measure.js"
import { jsonTool, sseTool } from "./messages.js"

const throughput = (kind: string, tool: string, direct: boolean, rows: ReadonlyArray<Row>): Measure => ({
  name: `${kind.toLowerCase()}-throughput`,
  direct,
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
  rows
})

const latency = (kind: string, tool: string, direct: boolean, rows: ReadonlyArray<Row>): Measure => ({
  name: `${kind.toLowerCase()}-latency`,
  direct,
  samples: ({ rounds, turns }) => rounds * turns,
  async sample(path, bench) {
    const warm = await bench.warm(path)
    const { p50Micros, p99Micros } = await bench.load(warm, [tool], 1, bench.plan.turnSeconds)
    return { p50: p50Micros, p99: p99Micros }
  },
  rows
})

const perSecond = (kind: string, atLeast: number): Row => ({
  title: `${kind} calls/s, ${connections} connections`,
  figure: "perSecond",
  digits: 0,
  compare: "ratio",
  moreIsBetter: true,
  mark: { of: "comparison", atLeast }
})

const cpu = (kind: string): Row => ({
  title: `${kind} proxy CPU µs a call`,
  figure: "cpu",
  digits: 1,
  compare: "ratio"
})

const atOne = (kind: string, figure: "p50" | "p99"): Row => ({
  title: `${kind} ${figure} µs, 1 connection`,
  figure,
  digits: 0
})

const overHttp = (kind: string, tool: string) => ({
  throughput: throughput(kind, tool, true, [
    perSecond(kind, 0.9),
    { ...cpu(kind), mark: { of: "comparison", atMost: 1.15 } }
  ]),
  latency: latency(kind, tool, true, [
    { ...atOne(kind, "p50"), compare: "difference", mark: { of: "comparison", atMost: 100 } },
    { title: "  added to direct", figure: "p50", digits: 0, overDirect: true },
    { ...atOne(kind, "p99"), compare: "difference" },
    { title: "  added to direct", figure: "p99", digits: 0, overDirect: true }
  ])
})

const json = overHttp("JSON", jsonTool)
const sse = overHttp("SSE", sseTool)

export const load: ReadonlyArray<Measure> = [json.throughput, sse.throughput, json.latency, sse.latency]

/** What it costs to keep the events of an answer, of which there is one. */
export const tracking: Measure = throughput("Tracking", sseTool, false, [
  {
    title: "SSE proxy CPU µs a call",
    figure: "cpu",
    digits: 1,
    compare: "difference",
    mark: { of: "comparison", atMost: 10 }
  }
])

const storingOf = (kind: string, tool: string): Measure =>
  throughput(`Storing-${kind}`, tool, false, [{ ...cpu(kind), mark: { of: "comparison", atMost: 1.05 } }])

/** What it costs to keep sessions, and the events of their streams, in a file. */
export const storing: ReadonlyArray<Measure> = [storingOf("JSON", jsonTool), storingOf("SSE", sseTool)]

// Each proxy answers as it does by default, with JSON or with an event stream.
export const stdioLoad: ReadonlyArray<Measure> = [
  throughput("Stdio", jsonTool, false, [perSecond("Stdio", 6), cpu("Stdio")]),
  latency("Stdio", jsonTool, false, [
    { ...atOne("Stdio", "p50"), compare: "ratio", mark: { of: "comparison", atMost: 0.4 } },
    { ...atOne("Stdio", "p99"), compare: "ratio" }
  ])
]
