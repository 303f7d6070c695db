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

/** As many as keep both cores busy. */
const clients = 48

/** Longer than what is left over may take: idling, and the steps of ending a child. */
const patience = 30_000

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
  `two thousand children that end, or do not, in all ways there are leave no process behind, nor does a killed proxy (seed ${seed})`,
  () =>
    Effect.gen(function* () {
      const census = new ProcessTracker()
      const planned = planSessions(sessions)

      const first = yield* startChildrenCli(options, census)
      const isHalfway = yield* Deferred.make<void>()
      let begun = 0
      const visit = (visit: PlannedSession) =>
        Effect.suspend(() => {
          begun = visit.index + 1
          return Effect.zipRight(
            begun >= sessions / 2 ? Deferred.succeed(isHalfway, undefined) : Effect.void,
            runSession(first, visit)
          )
        })
      // How many are alive at a moment is for the machine to say: the visits go on until there are enough.
      const killed = Effect.gen(function* () {
        yield* Deferred.await(isHalfway)
        yield* census.until((alive) => alive.length > clients / 2, patience)
        yield* first.signal("SIGKILL")
      })
      yield* Effect.raceFirst(Effect.forEach(planned, visit, { concurrency: clients, discard: true }), killed)
      expect(yield* first.exit).toEqual({ code: null, signal: "SIGKILL" })
      yield* census.untilEmpty(patience)

      const second = yield* startChildrenCli(options, census)
      const before = yield* descriptors(second.pid)
      yield* Effect.forEach(planned.slice(begun), (visit) => runSession(second, visit), {
        concurrency: clients,
        discard: true
      })
      yield* second.untilHealth(({ sessions }) => sessions === 0, patience)
      yield* census.untilEmpty(patience)
      yield* eventually(descriptors(second.pid), ({ total }) => total === before.total, patience)

      yield* second.signal("SIGTERM")
      expect(yield* second.exit).toEqual({ code: 0, signal: null })
      expect(census.alive()).toEqual([])
      expect(watchdogsOf(second.pid)).toEqual([])
    }),
  300_000
)
