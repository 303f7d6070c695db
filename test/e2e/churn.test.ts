import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { Agent } from "node:http"
import { repetitions } from "../fixtures/repetitions.js"
import { runSession, makeChurnServer, type PlannedSession, planSessions } from "../fixtures/Churn.js"
import { descriptors } from "../fixtures/leaks.js"
import { startProxy } from "../fixtures/Proxy.js"
import { usage, withUsage } from "../fixtures/Usage.js"

/** The sessions of the first round, after which the process keeps compiled code and tables of the peak size. */
const first = repetitions(1000, 2000)
const rest = repetitions(2000, 18_000)

/** Enough to keep both processes busy. */
const clients = 48

/** In bytes. The size of the heap varies by some 300 KB, and a leaked session takes about 2 KB. */
const tolerance = Math.max(rest * 150, 750_000)

/** Longer than the last calls and the idle timeout of their sessions take on a busy machine. */
const TIMEOUT = 60_000

const { seed } = FastCheck.readConfigureGlobal()

it.scopedLive(
  `${first + rest} sessions, half of them without DELETE and many with cut connections, leak nothing (seed ${seed})`,
  () =>
    Effect.gen(function* () {
      const server = yield* makeChurnServer
      const options = [
        "--max-sessions",
        String(rest),
        "--session-timeout",
        "2s",
        "--cleanup-interval",
        "500ms",
        "--log-level",
        "error"
      ]
      const proxy = yield* startProxy(server, ["--multi-session", ...options], withUsage)

      let swept = 0
      const round = (planned: ReadonlyArray<PlannedSession>) =>
        Effect.gen(function* () {
          yield* Effect.acquireUseRelease(
            // In this order, each connection is used again before the proxy closes it because it is idle.
            Effect.sync(() => new Agent({ keepAlive: true, scheduling: "fifo" })),
            (agent) =>
              Effect.forEach(
                planned,
                (session) =>
                  Effect.catchTag(runSession(proxy, server, agent, session), "Swept", () =>
                    Effect.sync(() => swept++)
                  ),
                { concurrency: clients, discard: true }
              ),
            (agent) => Effect.sync(() => agent.destroy())
          )
          yield* proxy.untilHealth(
            ({ connections, sessions }) => connections === 1 && sessions === 0,
            TIMEOUT
          )
          // The proxy keeps connections to the upstream alive for several seconds. Closing them saves this wait.
          yield* server.drop
          expect(yield* proxy.health).toMatchObject({ sessions: 0, stateless: 0, bufferedBytes: 0 })
          expect(server.live.size).toBe(0)
          yield* server.clearRequests
          return { ...(yield* usage(proxy)), descriptors: yield* descriptors(proxy.pid) }
        })

      const started = yield* descriptors(proxy.pid)
      const planned = planSessions(first + rest)
      const before = yield* round(planned.slice(0, first))
      const after = yield* round(planned.slice(first))

      expect(swept).toBeLessThan(planned.length / 4)
      expect(after.descriptors).toEqual(started)
      expect(after).toMatchObject({ fibers: before.fibers, sockets: 0, timers: before.timers })
      expect(after.heap - before.heap).toBeLessThan(tolerance)
    }),
  repetitions(600_000, 1_800_000)
)
