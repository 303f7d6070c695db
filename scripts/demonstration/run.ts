import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { terminate } from "../../test/fixtures/Child.js"
import type { Census } from "../../test/fixtures/processes.js"
import type { HealthCheck } from "../../test/fixtures/Proxy.js"
import { post, request } from "../../test/fixtures/RawClient.js"
import { ScriptError } from "../commandLine.js"
import { connect, type DemoClient, echo, load, Tally } from "./clients.js"
import type { DemoOptions } from "./options.js"
import { makeProgress, type Progress } from "./progress.js"
import type { Failover, Findings } from "./report.js"
import { endingOf, type HttpUpstream, type Servers, startServers } from "./servers.js"
import { countSockets, peakMemory } from "./usage.js"

/** One client in so many leaves without a DELETE, so that sessions are still open when the proxy shuts down. */
const vanishingEvery = 5

const vanishes = ({ number }: DemoClient): boolean => number % vanishingEvery === vanishingEvery - 1

/** The time limit of everything but the load, in seconds. A busy machine needs it. */
const secondsForTheRest = 30
const secondsToStartChildren = 30

/** With --stdio, how many clients connect at the same time: more children would start too slowly for their clients. */
const connectingOverStdio = 4

/** How long the clients call around each kill, and when in that time it happens, in seconds. */
const failoverSeconds = 2
const secondsBeforeKill = 0.5

/** The number of each client's call after the restarts: no earlier call has it. */
const lastCall = 1_000_000

const unbounded = { concurrency: "unbounded", discard: true } as const

/** Starts the servers, lets the clients call, ends everything, and returns the findings. */
export const run = (options: DemoOptions): Effect.Effect<Findings, ScriptError> =>
  Effect.gen(function* () {
    const progress = yield* makeProgress
    const limit = options.seconds + secondsForTheRest + (options.stdio ? secondsToStartChildren : 0)
    return yield* demonstrate(options, progress).pipe(
      Effect.scoped,
      Effect.timeoutFail({
        duration: `${limit} seconds`,
        onTimeout: () => new ScriptError({ message: `not done after ${limit} s, while ${progress.step}` })
      })
    )
  }).pipe(Effect.scoped)

const demonstrate = (
  options: DemoOptions,
  progress: Progress
): Effect.Effect<Findings, ScriptError, Scope.Scope> =>
  Effect.gen(function* () {
    const sockets = yield* countSockets
    progress.begin(options.stdio ? "starting the proxy" : "starting the demo server and the proxy")
    const servers = yield* startServers(options.stdio)
    const { children, ...found } = yield* Effect.scoped(useClients(servers, options, progress)).pipe(
      Effect.raceFirst(servers.endedEarly)
    )

    progress.begin("stopping the proxy")
    const memory = yield* peakMemory(servers.proxy.pid)
    const asked = performance.now()
    const exit = yield* terminate(servers.proxy, "4 seconds")
    const proxy = { ending: exit && endingOf(exit), ms: performance.now() - asked }
    yield* soon(Effect.sync(() => sockets.open === 0))
    const left = sockets.open

    progress.begin("looking for what is left")
    const upstream = yield* leftAt(servers.upstream, children)
    return { ...found, memory, proxy, sockets: { left, peak: sockets.peak }, upstream }
  })

type ClientFindings = Omit<Findings, "memory" | "proxy" | "sockets" | "upstream"> & {
  /** The child processes while all clients are connected. */
  readonly children: number | undefined
}

const useClients = (
  servers: Servers,
  { clients: count, seconds, stdio }: DemoOptions,
  progress: Progress
): Effect.Effect<ClientFindings, ScriptError, Scope.Scope> =>
  Effect.gen(function* () {
    const { proxy, upstream } = servers
    progress.begin(`connecting ${count} clients`)
    const numbers = Array.from({ length: count }, (_, number) => number)
    const clients = yield* Effect.forEach(numbers, (number) => connect(proxy.url, number), {
      concurrency: stdio ? connectingOverStdio : "unbounded"
    })
    const sessions = yield* liveSessions(proxy)
    const children = "census" in upstream ? yield* countChildren(upstream.census) : undefined

    const tally = new Tally()
    const started = performance.now()
    const status = () => {
      const passed = Math.min(seconds, (performance.now() - started) / 1000).toFixed(0)
      const calls = tally.calls.toLocaleString("en")
      return `${count} clients calling: ${passed} of ${seconds} s, ${calls} calls, ${tally.errors} errors`
    }
    progress.begin(status())
    const updates = Effect.repeat(
      Effect.sync(() => progress.update(status())),
      Schedule.spaced("250 millis")
    )
    yield* Effect.raceFirst(load(clients, seconds, tally), Effect.zipRight(updates, Effect.never))

    const second = "server" in upstream ? yield* failover(servers, upstream, clients, progress) : undefined

    progress.begin("ending the clients")
    const leaving = clients.filter((client) => !vanishes(client))
    yield* Effect.forEach(leaving, ({ endSession }) => endSession, unbounded)
    yield* Effect.forEach(clients, ({ close }) => close, unbounded)
    const vanished = count - leaving.length
    yield* soon(Effect.map(liveSessions(servers.proxy), (left) => left === vanished))
    return {
      clients: count,
      children,
      sessions: { atOnce: sessions, afterDeletes: yield* liveSessions(servers.proxy) },
      vanished,
      second,
      seconds,
      calls: tally.calls,
      errors: tally.errors,
      firstError: tally.firstError,
      p50: tally.percentile(0.5),
      p99: tally.percentile(0.99)
    }
  })

/** Kills and restarts the demo server and then the proxy while the clients call, and then calls once from each. */
const failover = (
  servers: Servers,
  { restartProxy, restartServer }: HttpUpstream,
  clients: ReadonlyArray<DemoClient>,
  progress: Progress
): Effect.Effect<Failover, ScriptError> =>
  Effect.gen(function* () {
    const during = new Tally()
    const callDuring = (restart: Effect.Effect<void, ScriptError>) =>
      Effect.all(
        [
          load(clients, failoverSeconds, during, false),
          Effect.delay(restart, `${secondsBeforeKill} seconds`)
        ],
        unbounded
      )
    progress.begin("killing and restarting the demo server, which loses its sessions")
    yield* callDuring(restartServer)
    progress.begin("killing and restarting the proxy, which restores its sessions")
    yield* callDuring(restartProxy)

    progress.begin("calling once more from every client")
    const after = new Tally()
    yield* Effect.forEach(clients, (client) => after.count(echo, client, lastCall), unbounded)
    return {
      wentOn: clients.length - after.errors,
      firstError: after.firstError,
      sessions: yield* liveSessions(servers.proxy),
      interrupted: during.errors,
      calls: during.calls
    }
  })

const liveSessions = ({ health }: HealthCheck): Effect.Effect<number, ScriptError> =>
  Effect.mapBoth(health, {
    onFailure: ({ message }) => new ScriptError({ message: `GET /health of the proxy failed: ${message}` }),
    onSuccess: ({ sessions }) => sessions
  })

/** `undefined` where the system has no /proc. */
const countChildren = (census: Census): Effect.Effect<number | undefined> =>
  Effect.orElseSucceed(
    Effect.try(() => census.alive().length),
    () => undefined
  )

/** The sessions or the child processes that are left after the proxy has exited. */
const leftAt = (
  upstream: Servers["upstream"],
  childrenAtOnce: number | undefined
): Effect.Effect<Findings["upstream"], ScriptError> =>
  Effect.gen(function* () {
    if ("census" in upstream) {
      const left = yield* countChildren(upstream.census)
      const isKnown = childrenAtOnce !== undefined && left !== undefined
      return { children: isKnown ? { atOnce: childrenAtOnce, left } : undefined }
    }
    const { endedEarly, stderr, stdout, url } = upstream.server
    const issued = [...stdout(), ...stderr()].flatMap(
      (line) => /^Session initialized with ID: (\S+)/.exec(line)?.[1] ?? []
    )
    const answers = yield* Effect.forEach(
      issued,
      (id) => post(url, request(1, "ping"), { "mcp-session-id": id }),
      { concurrency: 4 }
    ).pipe(
      Effect.mapError(
        ({ message }) => new ScriptError({ message: `ping of the demo server failed: ${message}` })
      ),
      Effect.raceFirst(endedEarly)
    )
    // The demo server answers 400, not 404, if it does not know the session.
    return { issued: issued.length, left: answers.filter(({ status }) => status !== 400).length }
  })

/** Waits up to 2 s for a condition. */
const soon = <E>(holds: Effect.Effect<boolean, E>): Effect.Effect<void, E> =>
  Effect.repeat(holds, { until: (isSo) => isSo, schedule: Schedule.spaced("10 millis") }).pipe(
    Effect.timeoutTo({ duration: "2 seconds", onSuccess: () => undefined, onTimeout: () => undefined })
  )
