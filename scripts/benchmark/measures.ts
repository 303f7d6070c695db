import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { terminate } from "../../test/fixtures/Child.js"
import { cpuMicros } from "../../test/fixtures/processes.js"
import { usage, withUsage } from "../../test/fixtures/Usage.js"
import { guarded, ScriptError } from "../commandLine.js"
import { connections, type Running } from "./bench.js"
import { makeSessionClients, parallel, type SessionClients } from "./clients.js"
import type { Mark, Measure, Plan, Row } from "./measure.js"
import { jsonTool, sseTool } from "./programs/answers.js"

type RowOptions = Omit<Row, "title" | "figure" | "digits">

const row = (title: string, figure: string, digits: number, options: RowOptions = {}): Row => ({
  title,
  figure,
  digits,
  ...options
})

const atMost = (limit: number, of: Mark["of"] = "comparison"): RowOptions => ({ mark: { of, atMost: limit } })

const ratio = { compare: "ratio" } as const
const difference = { compare: "difference" } as const

/** Puts load on a path: many clients at the same time, or one that makes its calls one after the other. */
const underLoad = (
  name: string,
  tool: string,
  connections: number,
  direct: boolean,
  rows: ReadonlyArray<Row>
): Measure => ({
  name,
  direct,
  samples: ({ rounds, turns }) => rounds * turns,
  sample: (path, bench) =>
    Effect.gen(function* () {
      const warm = yield* bench.warm(path)
      const before = warm.proxy && cpuMicros(warm.proxy.pid)
      const load = { tools: [tool], connections, seconds: bench.plan.turnSeconds }
      const { p50, p99, requests, seconds } = yield* bench.load(warm, load)
      const after = warm.proxy && cpuMicros(warm.proxy.pid)
      const figures = { perSecond: requests / seconds, p50, p99 }
      if (before === undefined || after === undefined) return figures
      return { ...figures, cpu: (after - before) / requests }
    }),
  rows
})

const perSecond = (kind: string, atLeast: number): Row =>
  row(`${kind} calls/s, ${connections} connections`, "perSecond", 0, {
    ...ratio,
    moreIsBetter: true,
    mark: { of: "comparison", atLeast }
  })

const cpu = (kind: string, options: RowOptions): Row => row(`${kind} proxy CPU µs a call`, "cpu", 1, options)

const latency = (kind: string, figure: "p50" | "p99", options: RowOptions): Row =>
  row(`${kind} ${figure} µs, 1 connection`, figure, 0, options)

const overDirect = (figure: "p50" | "p99"): Row => row("  added to direct", figure, 0, { overDirect: true })

const kinds = { JSON: jsonTool, SSE: sseTool }

/** Calls that are answered with JSON, and with an event stream. */
export const load: ReadonlyArray<Measure> = [
  ...Object.entries(kinds).map(([kind, tool]) =>
    underLoad(`${kind.toLowerCase()}-throughput`, tool, connections, true, [
      perSecond(kind, 0.9),
      cpu(kind, { ...ratio, ...atMost(1.15) })
    ])
  ),
  ...Object.entries(kinds).map(([kind, tool]) =>
    underLoad(`${kind.toLowerCase()}-latency`, tool, 1, true, [
      latency(kind, "p50", { ...difference, ...atMost(100) }),
      overDirect("p50"),
      latency(kind, "p99", difference),
      overDirect("p99")
    ])
  )
]

/** The cost of keeping the events of an answer that has one event. */
export const tracking = underLoad("tracking-throughput", sseTool, connections, false, [
  cpu("SSE", { ...difference, ...atMost(10) })
])

/** The cost of keeping sessions, and the events of their streams, in a file. */
export const storing: ReadonlyArray<Measure> = Object.entries(kinds).map(([kind, tool]) =>
  underLoad(`storing-${kind.toLowerCase()}-throughput`, tool, connections, false, [
    cpu(kind, { ...ratio, ...atMost(1.05) })
  ])
)

/** Calls of a command. Each proxy answers as it does by default, with JSON or with an event stream. */
export const stdioLoad: ReadonlyArray<Measure> = [
  underLoad("stdio-throughput", jsonTool, connections, false, [perSecond("Stdio", 6), cpu("Stdio", ratio)]),
  underLoad("stdio-latency", jsonTool, 1, false, [
    latency("Stdio", "p50", { ...ratio, ...atMost(0.4) }),
    latency("Stdio", "p99", ratio)
  ])
]

/** The memory of an idle session with its streams open, in the process of the proxy alone. */
const memoryOf = (
  name: string,
  title: string,
  sessionsBefore: number,
  count: (plan: Plan) => number
): Measure => ({
  name,
  direct: false,
  samples: ({ rounds }) => rounds,
  sample: (path, bench) => {
    const openIdle = (clients: SessionClients, count: number) =>
      Effect.gen(function* () {
        const before = yield* bench.stats
        yield* clients.openStreams(yield* clients.open(count))
        yield* Effect.sleep("300 millis")
        const { streams } = yield* bench.stats
        if (path.command?.includes("{upstream}") && streams < before.streams + count) {
          yield* new ScriptError({ message: "not all streams reached the upstream" })
        }
      })
    const sample = ({ proxy, url }: Running) =>
      Effect.gen(function* () {
        if (proxy === undefined) return {}
        const clients = yield* makeSessionClients(url)
        // Memory that a process holds once, and not for each session, is allocated before the first reading.
        yield* openIdle(clients, sessionsBefore)
        const before = yield* usage(proxy)
        const sessions = count(bench.plan)
        yield* openIdle(clients, sessions)
        const after = yield* usage(proxy)
        const kilobytes = (bytes: number) => bytes / 1024 / sessions
        return { heap: kilobytes(after.heap - before.heap), rss: kilobytes(after.rss - before.rss) }
      })
    return bench.use(path, sample, { ...withUsage, execArgv: [...guarded, ...(withUsage.execArgv ?? [])] })
  },
  rows: [
    row(`${title}, heap and external`, "heap", 1, { ...ratio, ...atMost(40, "value") }),
    row(`${title}, RSS`, "rss", 1, ratio)
  ]
})

export const memory = memoryOf("memory", "KB a session", 100, ({ idleSessions }) => idleSessions)

export const stdioMemory = memoryOf(
  "stdio-memory",
  "Stdio KB a session",
  20,
  ({ idleChildren }) => idleChildren
)

/** The time to open sessions, and to end a proxy that then deletes the sessions of the upstream. */
const opening = (
  name: string,
  direct: boolean,
  countIn: (plan: Plan) => number,
  rows: ReadonlyArray<Row>
): Measure => ({
  name,
  direct,
  samples: ({ rounds }) => rounds,
  sample: (path, bench) =>
    bench.use(path, ({ proxy, url }) =>
      Effect.gen(function* () {
        const count = countIn(bench.plan)
        const clients = yield* makeSessionClients(url)
        const [opened] = yield* Effect.timed(clients.open(count))
        const open = Duration.toMillis(opened)
        if (proxy === undefined || path.deletesSessions !== true) return { open }

        const before = yield* bench.stats
        const [closed, exit] = yield* Effect.timed(terminate(proxy, "30 seconds"))
        if (exit === undefined) return yield* new ScriptError({ message: "no exit within 30 s of SIGTERM" })
        const { deleted } = yield* bench.stats
        return { open, close: Duration.toMillis(closed), left: count - (deleted - before.deleted) }
      })
    ),
  rows
})

export const sessions = opening("sessions", true, ({ openSessions }) => openSessions, [
  row(`ms to open 1,000 sessions, ${parallel} at once`, "open", 0, ratio),
  row("ms from SIGTERM to exit, 1,000 open", "close", 0, atMost(1_500, "value")),
  row("  upstream sessions left undeleted", "left", 0, atMost(0, "value"))
])

export const stdioSessions = opening("stdio-sessions", false, ({ openChildren }) => openChildren, [
  row(`Stdio ms to open 100 sessions, ${parallel} at once`, "open", 0, ratio)
])

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
  rows: [row("ms from start to listening", "listening", 0, { ...difference, ...atMost(250, "value") })]
}
