import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { Agent } from "node:http"
import { make, makeChurnServer, type Visit, visits } from "../fixtures/Churn.js"
import { descriptors } from "../fixtures/leaks.js"
import { startProxy } from "../fixtures/Proxy.js"
import { usage, withUsage } from "../fixtures/Usage.js"

/** What the process keeps for good, compiled code and tables of the size of the peak, is there after these. */
const first = 2000
const rest = 5000

/** As many as keep both processes busy. */
const clients = 48

/** Of a session that is left behind, this is but a small part. */
const tolerance = rest * 150

/** Longer than what is left over may take: calls that nobody answers, and then the idling of their sessions. */
const patience = 60_000

const { seed } = FastCheck.readConfigureGlobal()

it.scopedLive(
  `seven thousand sessions, half of them without DELETE, and connections cut anywhere, leave nothing behind (seed ${seed})`,
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
      const round = (planned: ReadonlyArray<Visit>) =>
        Effect.gen(function* () {
          yield* Effect.acquireUseRelease(
            // Each connection is used again before the proxy closes it for being idle.
            Effect.sync(() => new Agent({ keepAlive: true, scheduling: "fifo" })),
            (agent) =>
              Effect.forEach(
                planned,
                (visit) =>
                  Effect.catchTag(make(proxy, server, agent, visit), "Swept", () =>
                    Effect.sync(() => swept++)
                  ),
                { concurrency: clients, discard: true }
              ),
            (agent) => Effect.sync(() => agent.destroy())
          )
          yield* proxy.untilHealth(
            ({ connections, sessions }) => connections === 1 && sessions === 0,
            patience
          )
          // Connections to the upstream are kept alive for seconds, which this does not wait for.
          yield* server.drop
          expect(yield* proxy.health).toMatchObject({ sessions: 0, stateless: 0, bufferedBytes: 0 })
          expect(server.live.size).toBe(0)
          yield* server.clearRequests
          return { ...(yield* usage(proxy)), descriptors: yield* descriptors(proxy.pid) }
        })

      const started = yield* descriptors(proxy.pid)
      const planned = visits(first + rest)
      const before = yield* round(planned.slice(0, first))
      const after = yield* round(planned.slice(first))

      expect(swept).toBeLessThan(planned.length / 4)
      expect(after.descriptors).toEqual(started)
      expect(after).toMatchObject({ fibers: before.fibers, sockets: 0, timers: before.timers })
      expect(after.heap - before.heap).toBeLessThan(tolerance)
    }),
  600_000
)
