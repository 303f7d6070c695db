import { expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { startChildrenCli } from "../fixtures/Children.js"
import { eventually } from "../fixtures/eventually.js"
import { descriptors } from "../fixtures/leaks.js"
import { ProcessTracker, watchdogsOf } from "../fixtures/processes.js"
import { runSession, type PlannedSession, planSessions } from "../fixtures/Soak.js"

const sessions = 2000

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
  `2000 children that end or hang in many ways leave no process behind, also when the proxy is killed (seed ${seed})`,
  () =>
    Effect.gen(function* () {
      const tracker = new ProcessTracker()
      const planned = planSessions(sessions)

      const first = yield* startChildrenCli(options, tracker)
      const halfway = yield* Deferred.make<void>()
      let begun = 0
      const runOnFirst = (session: PlannedSession) =>
        Effect.suspend(() => {
          begun = session.index + 1
          return Effect.zipRight(
            begun >= sessions / 2 ? Deferred.succeed(halfway, undefined) : Effect.void,
            runSession(first, session)
          )
        })
      // The number of living children depends on the machine. Sessions run until there are enough of them.
      const killHalfway = Effect.gen(function* () {
        yield* Deferred.await(halfway)
        yield* tracker.until((alive) => alive.length > clients / 2, TIMEOUT)
        yield* first.signal("SIGKILL")
      })
      yield* Effect.raceFirst(
        Effect.forEach(planned, runOnFirst, { concurrency: clients, discard: true }),
        killHalfway
      )
      expect(yield* first.exit).toEqual({ code: null, signal: "SIGKILL" })
      yield* tracker.untilEmpty(TIMEOUT)

      const second = yield* startChildrenCli(options, tracker)
      const before = yield* descriptors(second.pid)
      yield* Effect.forEach(planned.slice(begun), (session) => runSession(second, session), {
        concurrency: clients,
        discard: true
      })
      yield* second.untilHealth(({ sessions }) => sessions === 0, TIMEOUT)
      yield* tracker.untilEmpty(TIMEOUT)
      yield* eventually(descriptors(second.pid), ({ total }) => total === before.total, TIMEOUT)

      yield* second.signal("SIGTERM")
      expect(yield* second.exit).toEqual({ code: 0, signal: null })
      expect(tracker.alive()).toEqual([])
      expect(watchdogsOf(second.pid)).toEqual([])
    }),
  600_000
)
