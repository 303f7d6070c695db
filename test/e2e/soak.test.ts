import { expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { startChildrenCli } from "../fixtures/Children.js"
import { eventually } from "../fixtures/eventually.js"
import { descriptors } from "../fixtures/leaks.js"
import { ProcessTracker, watchdogsOf } from "../fixtures/processes.js"
import { repetitions } from "../fixtures/repetitions.js"
import { runSession, type PlannedSession, planSessions } from "../fixtures/Soak.js"

const sessions = repetitions(500, 6000)

/** How many proxies are killed one after the other. */
const kills = repetitions(1, 5)

/** Enough to keep two cores busy. */
const clients = 48

/** Longer than the session timeout and the steps of ending a child take on a busy machine. */
const TIMEOUT = 60_000

const { seed } = FastCheck.readConfigureGlobal()

const options = [
  "--max-children",
  String(sessions),
  "--max-sessions",
  String(sessions),
  "--session-timeout",
  "1s",
  "--cleanup-interval",
  "200ms",
  "--start-timeout",
  "1s",
  "--request-timeout",
  "1s",
  "--max-message",
  "64KiB"
]

it.scopedLive(
  `${sessions} children that end or hang in many ways leave no process behind, also when the proxy is killed (seed ${seed})`,
  () =>
    Effect.gen(function* () {
      const tracker = new ProcessTracker()
      const planned = planSessions(sessions)
      let begun = 0

      /** Runs sessions on a new proxy, and kills it when so many sessions have begun since the first proxy. */
      const runUntilKilled = (limit: number) =>
        Effect.gen(function* () {
          const proxy = yield* startChildrenCli(options, tracker)
          const limitReached = yield* Deferred.make<void>()
          const run = (session: PlannedSession) =>
            Effect.suspend(() => {
              begun = session.index + 1
              return Effect.zipRight(
                begun >= limit ? Deferred.succeed(limitReached, undefined) : Effect.void,
                runSession(proxy, session)
              )
            })
          // The number of living children depends on the machine. Sessions run until there are enough of them.
          const kill = Effect.gen(function* () {
            yield* Deferred.await(limitReached)
            yield* tracker.until((alive) => alive.length > clients / 2, TIMEOUT)
            yield* proxy.signal("SIGKILL")
          })
          yield* Effect.raceFirst(
            Effect.forEach(planned.slice(begun), run, { concurrency: clients, discard: true }),
            kill
          )
          expect(yield* proxy.exit).toEqual({ code: null, signal: "SIGKILL" })
          yield* tracker.untilEmpty(TIMEOUT)
        })
      for (let kill = 1; kill <= kills; kill++) yield* runUntilKilled((sessions * kill) / (kills + 1))

      const last = yield* startChildrenCli(options, tracker)
      const before = yield* descriptors(last.pid)
      yield* Effect.forEach(planned.slice(begun), (session) => runSession(last, session), {
        concurrency: clients,
        discard: true
      })
      yield* last.untilHealth(({ sessions }) => sessions === 0, TIMEOUT)
      yield* tracker.untilEmpty(TIMEOUT)
      yield* eventually(descriptors(last.pid), ({ total }) => total === before.total, TIMEOUT)

      yield* last.signal("SIGTERM")
      expect(yield* last.exit).toEqual({ code: 0, signal: null })
      expect(tracker.alive()).toEqual([])
      expect(watchdogsOf(last.pid)).toEqual([])
    }),
  repetitions(600_000, 1_800_000)
)
