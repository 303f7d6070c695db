import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { settle } from "../fixtures/ManualClock.js"
import { call } from "../fixtures/requests.js"
import { makeScriptedProxy } from "../fixtures/ScriptedProxy.js"

describe("an idle session", () => {
  const short = { sessionTimeout: "10 minutes", cleanupInterval: "1 minute" } as const

  it.scoped("is closed after --session-timeout, not earlier", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(short)
      const { session } = yield* proxy.open()
      yield* proxy.clock.advance("9 minutes")
      expect(proxy.sessions.get(session.id)).toBe(session)
      yield* proxy.clock.advance("2 minutes")
      expect(proxy.sessions.get(session.id)).toBeUndefined()
      expect(proxy.isEmpty).toBe(true)
      expect((yield* proxy.records.list).length).toBe(0)
    })
  )

  it.scoped("gets a new timeout with every exchange", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(short)
      const { session } = yield* proxy.open()
      for (let round = 0; round < 3; round++) {
        yield* proxy.clock.advance("9 minutes")
        proxy.request(session, call(round)).exchange.perform("json")
      }
      yield* proxy.clock.advance("9 minutes")
      expect(proxy.sessions.get(session.id)).toBe(session)
    })
  )

  it.scoped.each([
    ["a stream is open", undefined],
    ["a call is in flight", call(1)]
  ] as const)("is not closed while %s, and its record does not expire", ([, json]) =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(short)
      const { session } = yield* proxy.open()
      const { disconnect } = proxy.request(session, json)
      yield* proxy.clock.advance("1 hour")
      expect(proxy.sessions.get(session.id)).toBe(session)
      expect((yield* proxy.records.list).length).toBe(1)
      disconnect()
      // The response may still arrive until the session timeout.
      yield* proxy.clock.advance("21 minutes")
      expect(proxy.isEmpty).toBe(true)
    })
  )

  it.scoped("has a record as long as it is live", () =>
    Effect.gen(function* () {
      // A request between the expiry and the next sweep keeps a live session.
      const proxy = yield* makeScriptedProxy({ sessionTimeout: "1 minute", cleanupInterval: "10 minutes" })
      const { session } = yield* proxy.open()
      yield* proxy.clock.advance("5 minutes")
      const live = proxy.sessions.get(session.id)
      if (live !== undefined) proxy.request(live, call(1)).exchange.perform("json")
      yield* settle
      const isLive = proxy.sessions.get(session.id) !== undefined
      expect((yield* proxy.records.list).length).toBe(isLive ? 1 : 0)
    })
  )
})

describe("a late sweep", () => {
  it.scoped("ends each session once at the upstream, although its record has expired too", () =>
    Effect.gen(function* () {
      const count = 500
      const proxy = yield* makeScriptedProxy({ maxSessions: count, maxPerClient: count })
      yield* Effect.forEach(Array.from({ length: count }), () => proxy.open())
      yield* proxy.clock.oversleep("1 hour")
      yield* proxy.clock.advance("1 hour")
      expect(proxy.isEmpty).toBe(true)
      expect((yield* proxy.records.list).length).toBe(0)
      expect(proxy.pool.leases.filter(({ releases }) => releases === 1)).toHaveLength(count)
      expect(proxy.pool.leases).toHaveLength(count)
    })
  )
})
