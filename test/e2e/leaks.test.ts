import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ClientError, officialClients } from "../fixtures/Clients.js"
import { repetitions } from "../fixtures/repetitions.js"
import { descriptors } from "../fixtures/leaks.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import { startProxy } from "../fixtures/Proxy.js"
import { initialize, type RequestFailed, stream } from "../fixtures/RawClient.js"
import { usage, withUsage } from "../fixtures/Usage.js"

const sessions = repetitions(500, 1000)

/** Longer than idle sessions and connections live on a busy machine. */
const TIMEOUT = 60_000

/** In bytes. The size of the heap varies by some 300 KB, and a leaked session takes about 2 KB. */
const tolerance = sessions * 1024

it.scopedLive(
  `${sessions} sessions that end without DELETE leak nothing after their idle timeout`,
  () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      // Long enough that a client on a busy machine can open its stream before its session is swept.
      const args = [
        "--multi-session",
        "--session-timeout",
        "6s",
        "--cleanup-interval",
        "1s",
        "--log-level",
        "error"
      ]
      const proxy = yield* startProxy(server, args, withUsage)

      /** Opens all sessions, each with a GET stream, and then disconnects all clients. */
      const round = (
        open: (index: number) => Effect.Effect<unknown, ClientError | RequestFailed, Scope.Scope>
      ) =>
        Effect.gen(function* () {
          const fibers = yield* Effect.scoped(
            Effect.gen(function* () {
              yield* Effect.forEach(
                Array.from({ length: sessions }, (_, index) => index),
                open,
                { concurrency: 20, discard: true }
              )
              yield* server.until(() => server.counts.getStreams === sessions, TIMEOUT)
              expect(yield* proxy.health).toMatchObject({ sessions })
              return (yield* usage(proxy)).fibers
            })
          )
          // Otherwise the count of fibers could not show a leak.
          expect(fibers).toBeGreaterThan(sessions)
          yield* server.until(() => server.sessions().length === 0, TIMEOUT)
          yield* server.until(() => server.connections() === 0, TIMEOUT)
          yield* proxy.untilHealth(({ connections }) => connections === 1, TIMEOUT)
          expect(server.counts).toMatchObject({ getStreams: 0, posts: 0 })
          expect(yield* proxy.health).toMatchObject({ sessions: 0, stateless: 0, bufferedBytes: 0 })
          yield* server.clearRequests
          return { ...(yield* usage(proxy)), descriptors: yield* descriptors(proxy.pid) }
        })

      const official = (index: number) =>
        Effect.flatMap(
          officialClients[index % officialClients.length]?.[1](proxy.url, { terminate: false }) ??
            Effect.dieMessage("no client"),
          (client) => client.call("echo", { text: "hi" })
        )
      const raw = Effect.flatMap(initialize(proxy.url), ({ session }) =>
        stream(proxy.url, { headers: session })
      )

      const started = yield* descriptors(proxy.pid)
      // A few sessions with the slow official clients show the same as many.
      const mixed = (index: number) => (index % 50 === 0 ? official(index / 50) : raw)
      // After the first round the process keeps compiled code and tables of the peak size.
      const before = yield* round(mixed)
      const after = yield* round(mixed)

      expect(server.counts).toMatchObject({ initialize: 2 * sessions, delete: 2 * sessions })
      expect(after.descriptors).toEqual(started)
      expect(after).toMatchObject({ fibers: before.fibers, sockets: 0, timers: before.timers })
      expect(after.heap - before.heap).toBeLessThan(tolerance)
    }),
  600_000
)
