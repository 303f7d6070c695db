import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ClientError, officialClients } from "../fixtures/Clients.js"
import { descriptors } from "../fixtures/leaks.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import { startProxy } from "../fixtures/Proxy.js"
import { initialize, type RequestFailed, stream } from "../fixtures/RawClient.js"
import { usage, withUsage } from "../fixtures/Usage.js"

const sessions = 1000

/** Connections are kept alive for seconds after the last answer. */
const keptAlive = 30_000

/** The heap is never twice the same; of what a session holds, a kilobyte is but a small part. */
const tolerance = sessions * 1024

it.scopedLive(
  "a thousand sessions that are dropped without DELETE, and swept, leave nothing behind",
  () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      // Long enough that no session is swept before its client has opened its stream, on a busy machine either.
      const args = ["--multi-session", "--session-timeout", "3s", "--cleanup-interval", "1s"]
      const proxy = yield* startProxy(server, args, withUsage)

      /** Opens sessions, each with its GET stream, until all are open at once; then all clients go. */
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
              yield* server.until(() => server.counts.getStreams === sessions)
              expect(yield* proxy.health).toMatchObject({ sessions })
              return (yield* usage(proxy)).fibers
            })
          )
          // What counts them would see if they stayed.
          expect(fibers).toBeGreaterThan(sessions)
          yield* server.until(() => server.sessions().length === 0, keptAlive)
          yield* server.until(() => server.connections() === 0, keptAlive)
          yield* proxy.untilHealth(({ connections }) => connections === 1, keptAlive)
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
      // The official clients are the slow part of this, and few of them do what all would.
      const mixed = (index: number) => (index % 50 === 0 ? official(index / 50) : raw)
      // The first round fills what the process keeps for good: compiled code, tables of the size of the peak.
      const before = yield* round(mixed)
      const after = yield* round(mixed)

      expect(server.counts).toMatchObject({ initialize: 2 * sessions, delete: 2 * sessions })
      expect(after.descriptors).toEqual(started)
      expect(after).toMatchObject({ fibers: before.fibers, sockets: 0, timers: before.timers })
      expect(after.heap - before.heap).toBeLessThan(tolerance)
    }),
  240_000
)
