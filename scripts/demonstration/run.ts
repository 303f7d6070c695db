import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { type Client, type ClientFailure, connect } from "./clients.js"
import { DemoFailure } from "./failure.js"
import { liveSessions } from "./health.js"
import { knownSessions } from "./leftovers.js"
import { load } from "./load.js"
import { countMarked } from "./marked.js"
import { peakMemory } from "./memory.js"
import type { Options } from "./options.js"
import { makeProgress, type Progress } from "./progress.js"
import type { Findings } from "./report.js"
import { secondAct } from "./secondAct.js"
import { type Servers, startServers, stop } from "./servers.js"
import { countSockets } from "./sockets.js"
import { Tally } from "./tally.js"
import { soon } from "./waiting.js"

/** One client in so many leaves without a DELETE, so that the proxy's shutdown has sessions to end. */
const vanishingEvery = 5

const vanishes = ({ number }: Client): boolean => number % vanishingEvery === vanishingEvery - 1

/** What all but the load may take: generous, for the machine may be busy, and within what the demo promises. */
const secondsForTheRest = 30
const secondsToStartChildren = 30

/** How many clients connect at once where each has a child that has to start: a client does not wait for long. */
const connectingOverStdio = 4

/** Starts the servers, lets the clients call, ends everything, and tells what was found. */
export const run = (options: Options): Effect.Effect<Findings, DemoFailure> => {
  const limit = options.seconds + secondsForTheRest + (options.stdio ? secondsToStartChildren : 0)
  let doing = ""
  return Effect.gen(function* () {
    const line = yield* makeProgress
    const progress: Progress = {
      begin: (what) => {
        doing = what
        line.begin(what)
      },
      update: line.update
    }
    const sockets = yield* countSockets
    progress.begin(options.stdio ? "starting the proxy" : "starting the demo server and the proxy")
    const servers = yield* startServers(options.stdio)
    const used = yield* Effect.scoped(use(servers, options, progress)).pipe(
      Effect.raceFirst(servers.endedEarly)
    )

    progress.begin("stopping the proxy")
    const memory = yield* peakMemory(servers.proxy.pid)
    const proxy = yield* stop(servers.proxy)
    yield* soon(Effect.sync(() => sockets.open() === 0))
    const left = sockets.open()

    progress.begin("looking for what is left")
    const { children, ...found } = used
    return {
      ...found,
      memory,
      proxy,
      sockets: { left, peak: sockets.peak() },
      upstream: yield* leftAt(servers.upstream, children)
    }
  }).pipe(
    Effect.scoped,
    Effect.timeoutFail({
      duration: `${limit} seconds`,
      onTimeout: () => new DemoFailure({ message: `not done after ${limit} s, while ${doing}` })
    })
  )
}

type Used = Omit<Findings, "memory" | "proxy" | "sockets" | "upstream"> & {
  /** While all clients are connected. */
  readonly children: number | undefined
}

const leftAt = (
  upstream: Servers["upstream"],
  children: number | undefined
): Effect.Effect<Findings["upstream"], DemoFailure> =>
  Effect.gen(function* () {
    if ("server" in upstream) {
      const issued = [...upstream.issued]
      const { endedEarly, url } = upstream.server
      return { issued: issued.length, left: yield* Effect.raceFirst(knownSessions(url, issued), endedEarly) }
    }
    const left = yield* countMarked(upstream.mark)
    return {
      children: children === undefined || left === undefined ? undefined : { atOnce: children, left }
    }
  })

const use = (
  servers: Servers,
  { clients: count, seconds, stdio }: Options,
  progress: Progress
): Effect.Effect<Used, DemoFailure, Scope.Scope> =>
  Effect.gen(function* () {
    const { proxy, upstream } = servers
    progress.begin(`connecting ${count} clients`)
    const connecting = Array.from({ length: count }, (_, number) => connect(proxy.url, number))
    const clients = yield* atOnce(connecting, stdio ? connectingOverStdio : "unbounded")
    const sessions = yield* liveSessions(proxy.url)
    const children = "mark" in upstream ? yield* countMarked(upstream.mark) : undefined

    const tally = new Tally()
    const started = performance.now()
    const show = (tell: (text: string) => void) =>
      Effect.sync(() => {
        const passed = Math.min(seconds, (performance.now() - started) / 1000).toFixed(0)
        tell(
          `${count} clients calling: ${passed} of ${seconds} s, ` +
            `${tally.calls.toLocaleString("en")} calls, ${tally.errors} errors`
        )
      })
    yield* show(progress.begin)
    yield* load(clients, seconds, tally).pipe(
      Effect.raceFirst(
        Effect.zipRight(Effect.repeat(show(progress.update), Schedule.spaced("250 millis")), Effect.never)
      )
    )

    const second = "server" in upstream ? yield* secondAct(servers, upstream, clients, progress) : undefined

    progress.begin("ending the clients")
    const leaving = clients.filter((client) => !vanishes(client))
    yield* atOnce(leaving.map(({ endSession }) => endSession))
    yield* Effect.forEach(clients, ({ close }) => close, { concurrency: "unbounded", discard: true })
    const vanished = count - leaving.length
    yield* soon(Effect.map(liveSessions(proxy.url), (left) => left === vanished))
    return {
      clients: count,
      children,
      sessions: { atOnce: sessions, afterDeletes: yield* liveSessions(proxy.url) },
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

const atOnce = <A, R>(
  effects: ReadonlyArray<Effect.Effect<A, ClientFailure, R>>,
  concurrency: number | "unbounded" = "unbounded"
) => Effect.mapError(Effect.all(effects, { concurrency }), ({ message }) => new DemoFailure({ message }))
