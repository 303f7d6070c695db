import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { existsSync } from "node:fs"
import { terminate } from "../../test/fixtures/Child.js"
import { countSockets } from "../../test/fixtures/leaks.js"
import { peakMemory } from "../../test/fixtures/processes.js"
import type { HealthCheck } from "../../test/fixtures/Proxy.js"
import { post, request } from "../../test/fixtures/RawClient.js"
import { ScriptError } from "../commandLine.js"
import { connect, type DemoClient, echo, load, Tally } from "./clients.js"
import type { DemoOptions } from "./options.js"
import { Progress } from "./progress.js"
import type { Findings } from "./report.js"
import { type HttpServers, type Servers, startServers } from "./servers.js"

/** One client in five leaves without a DELETE, so that sessions are still open when the proxy shuts down. */
const sendsDelete = ({ number }: DemoClient): boolean => number % 5 !== 4

/** The time limit of everything but the load, in seconds. A busy machine needs it. */
const limits = { overHttp: 30, overStdio: 60 }

/** The number of clients that connect at the same time with --stdio. More children would start too slowly. */
const connectingOverStdio = 4

/** The time of the calls around each restart, in seconds, and the delay until the restart begins. */
const restarts = { seconds: 2, delay: "500 millis" } as const

/** The number of each client's call after the restarts: no earlier call has it. */
const lastCall = 1_000_000

const together = { concurrency: "unbounded", discard: true } as const

/** Starts the servers, lets the clients call, ends everything, and returns the findings. */
export const run = (options: DemoOptions): Effect.Effect<Findings, ScriptError> => {
  const progress = new Progress()
  const limit = options.seconds + (options.stdio ? limits.overStdio : limits.overHttp)
  return Effect.gen(function* () {
    const sockets = yield* countSockets
    progress.begin(options.stdio ? "starting the proxy" : "starting the demo server and the proxy")
    const servers = yield* startServers(options.stdio)
    const { children, ...found } = yield* Effect.raceFirst(
      useClients(servers, options, progress),
      servers.endedEarly
    )

    progress.begin("stopping the proxy")
    const memory = peakMemory(servers.proxy.pid)
    const startedAt = performance.now()
    const exit = yield* terminate(servers.proxy, "4 seconds")
    const proxy = { ending: exit?.code ?? exit?.signal ?? undefined, ms: performance.now() - startedAt }
    yield* soon(Effect.sync(() => sockets.open === 0))
    const socketCounts = { left: sockets.open, peak: sockets.peak }

    progress.begin("looking for what is left")
    const left = countChildren(servers)
    const upstream = servers.http
      ? yield* sessionsLeft(servers.http)
      : { children: children === undefined || left === undefined ? undefined : { atOnce: children, left } }
    return { ...found, memory, proxy, sockets: socketCounts, upstream }
  }).pipe(
    Effect.scoped,
    Effect.ensuring(Effect.sync(() => progress.erase())),
    Effect.timeoutFail({
      duration: `${limit} seconds`,
      onTimeout: () => new ScriptError({ message: `not done after ${limit} s, while ${progress.step}` })
    })
  )
}

/** Connects the clients, lets them call, and disconnects them. */
const useClients = (servers: Servers, { clients: count, seconds, stdio }: DemoOptions, progress: Progress) =>
  Effect.gen(function* () {
    progress.begin(`connecting ${count} clients`)
    const numbers = Array.from({ length: count }, (_, number) => number)
    const clients = yield* Effect.forEach(numbers, (number) => connect(servers.proxy.url, number), {
      concurrency: stdio ? connectingOverStdio : "unbounded"
    })
    const atOnce = yield* liveSessions(servers.proxy)
    const children = countChildren(servers)

    const tally = new Tally()
    const started = performance.now()
    const status = () => {
      const passed = Math.min(seconds, (performance.now() - started) / 1000).toFixed(0)
      const calls = tally.calls.toLocaleString("en")
      return `${count} clients calling: ${passed} of ${seconds} s, ${calls} calls, ${tally.errors} errors`
    }
    progress.begin(status())
    const update = Effect.sync(() => progress.update(status()))
    yield* Effect.raceFirst(
      load(clients, seconds, tally),
      Effect.zipRight(Effect.repeat(update, Schedule.spaced("250 millis")), Effect.never)
    )

    const second = servers.http && (yield* failover(servers, servers.http, clients, progress))

    progress.begin("ending the clients")
    const leaving = clients.filter(sendsDelete)
    const vanished = count - leaving.length
    yield* Effect.forEach(leaving, ({ endSession }) => endSession, together)
    yield* Effect.forEach(clients, ({ close }) => close, together)
    yield* soon(Effect.map(liveSessions(servers.proxy), (left) => left === vanished))
    const sessions = { atOnce, afterDeletes: yield* liveSessions(servers.proxy) }
    const { calls, errors, firstError } = tally
    const figures = { calls, errors, firstError, p50: tally.percentile(0.5), p99: tally.percentile(0.99) }
    return { clients: count, children, sessions, vanished, second, seconds, ...figures }
  }).pipe(Effect.scoped)

/** Kills and restarts the demo server and then the proxy while the clients call, and then calls once from each. */
const failover = (servers: Servers, http: HttpServers, clients: Array<DemoClient>, progress: Progress) =>
  Effect.gen(function* () {
    const during = new Tally()
    const calls = load(clients, restarts.seconds, during, false)
    const callDuring = (restart: Effect.Effect<void, ScriptError>) =>
      Effect.all([calls, Effect.delay(restart, restarts.delay)], together)
    progress.begin("killing and restarting the demo server, which loses its sessions")
    yield* callDuring(http.restartServer)
    progress.begin("killing and restarting the proxy, which restores its sessions")
    yield* callDuring(http.restartProxy)

    progress.begin("calling once more from every client")
    const after = new Tally()
    yield* Effect.forEach(clients, (client) => after.count(echo, client, lastCall), together)
    const sessions = yield* liveSessions(servers.proxy)
    const { errors, firstError } = after
    const continued = clients.length - errors
    return { continued, firstError, sessions, interrupted: during.errors, calls: during.calls }
  })

const liveSessions = ({ health }: HealthCheck): Effect.Effect<number, ScriptError> =>
  Effect.mapBoth(health, {
    onFailure: ({ message }) => new ScriptError({ message: `GET /health of the proxy failed: ${message}` }),
    onSuccess: ({ sessions }) => sessions
  })

/** `undefined` where the system has no /proc. */
const countChildren = ({ tracker }: Servers): number | undefined =>
  existsSync("/proc/self/environ") ? tracker?.alive().length : undefined

/** Counts the sessions that the demo server still has. Sends a ping to the server for each session that it issued. */
const sessionsLeft = ({ server }: HttpServers) =>
  Effect.gen(function* () {
    const issued = [...server.stdout(), ...server.stderr()].flatMap(
      (line) => /^Session initialized with ID: (\S+)/.exec(line)?.[1] ?? []
    )
    const ping = (id: string) => post(server.url, request(1, "ping"), { "mcp-session-id": id })
    const answers = yield* Effect.forEach(issued, ping, { concurrency: 4 }).pipe(
      Effect.mapError(
        ({ message }) => new ScriptError({ message: `ping of the demo server failed: ${message}` })
      ),
      Effect.raceFirst(server.endedEarly)
    )
    // The demo server answers 400, not 404, if it does not know the session.
    return { issued: issued.length, left: answers.filter(({ status }) => status !== 400).length }
  })

/** Waits up to 2 s for a condition. */
const soon = <E>(holds: Effect.Effect<boolean, E>): Effect.Effect<void, E> =>
  Effect.repeat(holds, { until: (isSo) => isSo, schedule: Schedule.spaced("10 millis") }).pipe(
    Effect.timeoutOption("2 seconds"),
    Effect.asVoid
  )
