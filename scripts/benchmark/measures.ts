import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { terminate } from "../../test/fixtures/Child.js"
import { usage, withUsage } from "../../test/fixtures/Usage.js"
import { guarded, ScriptError } from "../commandLine.js"
import { connections, type Running } from "./bench.js"
import type { Mark, Measure, Plan, Row } from "./measure.js"
import { jsonTool, sseTool } from "./programs/answers.js"
import { makeSessionClients, parallel, type SessionClients } from "./sessions.js"

const ratio = (title: string, figure: string, digits: number, mark?: Mark): Row => ({
  title,
  figure,
  digits,
  compare: "ratio",
  ...(mark && { mark })
})

const difference = (title: string, figure: string, digits: number, mark?: Mark): Row => ({
  ...ratio(title, figure, digits, mark),
  compare: "difference"
})

const atMost = (of: Mark["of"], limit: number): Mark => ({ of, atMost: limit })

const everyTurn = ({ rounds, turns }: Plan): number => rounds * turns
const everyRound = ({ rounds }: Plan): number => rounds

const ticksPerSecond = Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }))

/** The CPU time, user and system, that a process has used since it started, in microseconds. */
const cpuMicros = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
  // The second field is the program's name, which may contain spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return ((Number(fields[11]) + Number(fields[12])) * 1e6) / ticksPerSecond
}

/** Calls of many clients at the same time. */
const throughput = (kind: string, tool: string, direct: boolean, rows: ReadonlyArray<Row>): Measure => ({
  name: `${kind.toLowerCase()}-throughput`,
  direct,
  samples: everyTurn,
  sample: (path, bench) =>
    Effect.gen(function* () {
      const warm = yield* bench.warm(path)
      const cpu = () => (warm.proxy === undefined ? undefined : cpuMicros(warm.proxy.pid))
      const before = cpu()
      const load = { tools: [tool], connections, seconds: bench.plan.turnSeconds }
      const { requests, seconds } = yield* bench.load(warm, load)
      const after = cpu()
      const perSecond = requests / seconds
      if (before === undefined || after === undefined) return { perSecond }
      return { perSecond, cpu: (after - before) / requests }
    }),
  rows
})

/** Calls of one client, one after the other. */
const latency = (kind: string, tool: string, direct: boolean, rows: ReadonlyArray<Row>): Measure => ({
  name: `${kind.toLowerCase()}-latency`,
  direct,
  samples: everyTurn,
  sample: (path, bench) =>
    Effect.gen(function* () {
      const warm = yield* bench.warm(path)
      const load = { tools: [tool], connections: 1, seconds: bench.plan.turnSeconds }
      const { p50Micros: p50, p99Micros: p99 } = yield* bench.load(warm, load)
      return { p50, p99 }
    }),
  rows
})

const perSecond = (kind: string, atLeast: number): Row => ({
  ...ratio(`${kind} calls/s, ${connections} connections`, "perSecond", 0, { of: "comparison", atLeast }),
  moreIsBetter: true
})

const cpu = (kind: string, mark?: Mark): Row => ratio(`${kind} proxy CPU µs a call`, "cpu", 1, mark)

const latencyTitle = (kind: string, figure: string): string => `${kind} ${figure} µs, 1 connection`

const overDirect = (figure: string): Row => ({
  title: "  added to direct",
  figure,
  digits: 0,
  overDirect: true
})

const kinds = [
  ["JSON", jsonTool],
  ["SSE", sseTool]
] as const

/** Calls that are answered with JSON, and with an event stream. */
export const load: ReadonlyArray<Measure> = [
  ...kinds.map(([kind, tool]) =>
    throughput(kind, tool, true, [perSecond(kind, 0.9), cpu(kind, atMost("comparison", 1.15))])
  ),
  ...kinds.map(([kind, tool]) =>
    latency(kind, tool, true, [
      difference(latencyTitle(kind, "p50"), "p50", 0, atMost("comparison", 100)),
      overDirect("p50"),
      difference(latencyTitle(kind, "p99"), "p99", 0),
      overDirect("p99")
    ])
  )
]

/** The cost of keeping the events of an answer that has one event. */
export const tracking = throughput("Tracking", sseTool, false, [
  difference("SSE proxy CPU µs a call", "cpu", 1, atMost("comparison", 10))
])

/** The cost of keeping sessions, and the events of their streams, in a file. */
export const storing: ReadonlyArray<Measure> = kinds.map(([kind, tool]) =>
  throughput(`Storing-${kind}`, tool, false, [cpu(kind, atMost("comparison", 1.05))])
)

/** Calls of a command. Each proxy answers as it does by default, with JSON or with an event stream. */
export const stdioLoad: ReadonlyArray<Measure> = [
  throughput("Stdio", jsonTool, false, [perSecond("Stdio", 6), cpu("Stdio")]),
  latency("Stdio", jsonTool, false, [
    ratio(latencyTitle("Stdio", "p50"), "p50", 0, atMost("comparison", 0.4)),
    ratio(latencyTitle("Stdio", "p99"), "p99", 0)
  ])
]

interface Memory {
  readonly name: string
  readonly title: string
  /** Opened before the first reading, so that memory which a process holds once is not counted. */
  readonly sessionsBefore: number
  readonly sessions: (plan: Plan) => number
  /** True if each standalone stream reaches the upstream. */
  readonly hasUpstreamStreams: boolean
}

/** The memory of an idle session with its streams open, in the process of the proxy alone. */
const memoryOf = ({ hasUpstreamStreams, name, sessions, sessionsBefore, title }: Memory): Measure => ({
  name,
  direct: false,
  samples: everyRound,
  sample: (path, bench) => {
    const count = sessions(bench.plan)
    const openIdle = (clients: SessionClients, count: number) =>
      Effect.gen(function* () {
        const before = yield* bench.stats
        yield* clients.openStreams(yield* clients.open(count))
        yield* Effect.sleep("300 millis")
        const { streams } = yield* bench.stats
        if (hasUpstreamStreams && streams < before.streams + count) {
          yield* new ScriptError({ message: "not all streams reached the upstream" })
        }
      })
    const sample = ({ proxy, url }: Running) =>
      Effect.gen(function* () {
        if (proxy === undefined) return {}
        const clients = yield* makeSessionClients(url)
        yield* openIdle(clients, sessionsBefore)
        const before = yield* usage(proxy)
        yield* openIdle(clients, count)
        const after = yield* usage(proxy)
        const kilobytes = (bytes: number) => bytes / 1024 / count
        return { heap: kilobytes(after.heap - before.heap), rss: kilobytes(after.rss - before.rss) }
      })
    return bench.use(path, sample, { ...withUsage, execArgv: [...guarded, ...(withUsage.execArgv ?? [])] })
  },
  rows: [
    ratio(`${title}, heap and external`, "heap", 1, atMost("value", 40)),
    ratio(`${title}, RSS`, "rss", 1)
  ]
})

export const memory = memoryOf({
  name: "memory",
  title: "KB a session",
  sessionsBefore: 100,
  sessions: ({ idleSessions }) => idleSessions,
  hasUpstreamStreams: true
})

export const stdioMemory = memoryOf({
  name: "stdio-memory",
  title: "Stdio KB a session",
  sessionsBefore: 20,
  sessions: ({ idleChildren }) => idleChildren,
  hasUpstreamStreams: false
})

const millisToOpen = (clients: SessionClients, count: number) =>
  Effect.map(Effect.timed(clients.open(count)), ([duration]) => Duration.toMillis(duration))

export const sessions: Measure = {
  name: "sessions",
  direct: true,
  samples: everyRound,
  sample: (path, bench) =>
    bench.use(path, ({ proxy, url }) =>
      Effect.gen(function* () {
        const count = bench.plan.openSessions
        const clients = yield* makeSessionClients(url)
        const open = yield* millisToOpen(clients, count)
        if (proxy === undefined || path.deletesSessions !== true) return { open }

        const before = yield* bench.stats
        const [duration, exit] = yield* Effect.timed(terminate(proxy, "30 seconds"))
        if (exit === undefined) return yield* new ScriptError({ message: "no exit within 30 s of SIGTERM" })
        const { deleted } = yield* bench.stats
        return { open, close: Duration.toMillis(duration), left: count - (deleted - before.deleted) }
      })
    ),
  rows: [
    ratio(`ms to open 1,000 sessions, ${parallel} at once`, "open", 0),
    {
      title: "ms from SIGTERM to exit, 1,000 open",
      figure: "close",
      digits: 0,
      mark: atMost("value", 1_500)
    },
    { title: "  upstream sessions left undeleted", figure: "left", digits: 0, mark: atMost("value", 0) }
  ]
}

export const stdioSessions: Measure = {
  name: "stdio-sessions",
  direct: false,
  samples: everyRound,
  sample: (path, bench) =>
    bench.use(path, ({ url }) =>
      Effect.flatMap(makeSessionClients(url), (clients) =>
        Effect.map(millisToOpen(clients, bench.plan.openChildren), (open) => ({ open }))
      )
    ),
  rows: [ratio(`Stdio ms to open 100 sessions, ${parallel} at once`, "open", 0)]
}

export const start: Measure = {
  name: "start",
  direct: false,
  samples: ({ starts }) => starts,
  sample: (path, bench) => {
    const started = performance.now()
    const sample = () => Effect.sync(() => ({ listening: performance.now() - started }))
    // Without preloaded modules, which would be measured too.
    return bench.use(path, sample, { execArgv: [] })
  },
  rows: [difference("ms from start to listening", "listening", 0, atMost("value", 250))]
}
