import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as EventTracker from "../../src/EventTracker.js"
import { StoreError } from "../../src/ProxyError.js"
import * as Sessions from "../../src/Sessions.js"
import { SessionStore } from "../../src/SessionStore.js"
import { UpstreamPool } from "../../src/UpstreamPool.js"
import { CountingPool } from "../fixtures/CountingPool.js"
import { CountingStore } from "../fixtures/CountingStore.js"
import { settle } from "../fixtures/ManualClock.js"
import { RecordedResponse } from "../fixtures/RecordedResponse.js"
import { initialize, post } from "../fixtures/requests.js"

/** A proxy that restarts, while its store and its upstream continue. */
const makeRestarting = Effect.gen(function* () {
  const pool = new CountingPool()
  const counting = new CountingStore()
  counting.isDurable = true
  const store = yield* counting.make
  const tracker = yield* EventTracker.makeMemory(EventTracker.defaults)
  const failure = { isActive: false }
  const open: (typeof tracker)["open"] = (session) =>
    failure.isActive ? new StoreError({ reason: "Unavailable", store: "a full disk" }) : tracker.open(session)
  const start = (options?: Partial<Sessions.SessionsOptions>) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Sessions.layer(options).pipe(
        Layer.provide(Layer.succeed(UpstreamPool, pool.service)),
        Layer.provide(Layer.succeed(EventTracker.EventTracker, { ...tracker, open })),
        Layer.provide(Layer.succeed(SessionStore, store)),
        Layer.buildWithScope(scope)
      )
      yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
      return { sessions: Context.get(context, Sessions.Sessions), end: Scope.close(scope, Exit.void) }
    })
  /** Opens a session. The upstream responds immediately. */
  const openSession = (sessions: Sessions.Sessions["Type"], client = "client") =>
    Effect.gen(function* () {
      pool.onExchange = (exchange) => exchange.perform("json")
      const { session } = yield* sessions.open(post(initialize()), client, new RecordedResponse())
      pool.onExchange = () => {}
      return session.id
    })
  return { failure, openSession, pool, start, store }
}).pipe(Logger.withMinimumLogLevel(LogLevel.None))

describe("restore", () => {
  it.scoped("restores a session once, because the end of the process does not end it at the upstream", () =>
    Effect.gen(function* () {
      const { openSession, pool, start } = yield* makeRestarting
      const first = yield* start()
      const id = yield* openSession(first.sessions)
      yield* first.end
      expect(pool.leases).toMatchObject([{ releases: 1, isSuspended: true }])
      const { sessions } = yield* start()
      const restored = yield* Effect.all(
        Array.from({ length: 20 }, () => sessions.restore(id, {})),
        { concurrency: "unbounded" }
      )
      expect(new Set(restored).size).toBe(1)
      expect(pool.leases.length).toBe(2)
      expect(pool.leases[1]?.sessionId()).toBe("upstream-0")
      expect(sessions.size().sessions).toBe(1)
      yield* sessions.close(id, "deleted")
      expect(pool.leases[1]).toMatchObject({ releases: 1, isSuspended: false })
      expect(yield* Effect.flip(sessions.restore(id, {}))).toMatchObject({ _tag: "SessionNotFound" })
    })
  )

  it.scoped("keeps the record and the upstream session if a restore fails", () =>
    Effect.gen(function* () {
      const { failure, openSession, pool, start, store } = yield* makeRestarting
      const first = yield* start()
      const id = yield* openSession(first.sessions)
      const other = yield* openSession(first.sessions)
      yield* first.end
      const { sessions } = yield* start({ maxSessions: 1 })
      failure.isActive = true
      expect(yield* Effect.flip(sessions.restore(id, {}))).toMatchObject({ _tag: "StoreError", status: 503 })
      failure.isActive = false
      yield* sessions.restore(id, {})
      expect(yield* Effect.flip(sessions.restore(other, {}))).toMatchObject({ limit: "max-sessions" })
      yield* settle
      expect((yield* store.list).length).toBe(2)
      for (const { isSuspended, releases } of pool.leases) expect(releases === 0 || isSuspended).toBe(true)
      expect(sessions.size().sessions).toBe(1)
    })
  )

  it.scoped("restores a session for the other callers if the first one disconnects", () =>
    Effect.gen(function* () {
      const { openSession, pool, start } = yield* makeRestarting
      const first = yield* start()
      const id = yield* openSession(first.sessions)
      yield* first.end
      const { sessions } = yield* start()
      pool.leaseMode = "slow"
      const interrupted = yield* Effect.fork(sessions.restore(id, {}))
      yield* settle
      const waiting = yield* Effect.fork(sessions.restore(id, {}))
      yield* settle
      interrupted.unsafeInterruptAsFork(interrupted.id())
      yield* settle
      const late = yield* Effect.fork(sessions.restore(id, {}))
      yield* TestClock.adjust("5 seconds")
      for (const fiber of [waiting, late]) expect((yield* fiber.await)._tag).toBe("Success")
    })
  )

  it.scoped("ends an expired session at its upstream in the background after a restart", () =>
    Effect.gen(function* () {
      const { openSession, pool, start, store } = yield* makeRestarting
      const first = yield* start({ sessionTimeout: "5 seconds", cleanupInterval: "1 second" })
      yield* openSession(first.sessions)
      yield* first.end
      yield* TestClock.adjust("10 seconds")
      pool.releaseTime = 5_000
      const { sessions } = yield* start()
      yield* settle
      expect((yield* store.list).length).toBe(0)
      yield* sessions.sweep
      expect(pool.leases).toMatchObject([{ releases: 1 }, { releases: 0 }])
      expect(pool.leases[1]?.sessionId()).toBe("upstream-0")
      yield* TestClock.adjust("5 seconds")
      expect(pool.leases).toMatchObject([{ isSuspended: true }, { releases: 1, isSuspended: false }])
    })
  )
})
