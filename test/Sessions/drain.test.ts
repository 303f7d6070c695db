import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { ShuttingDown } from "../../src/ProxyError.js"
import { settle } from "../fixtures/ManualClock.js"
import { call, modernCall } from "../fixtures/requests.js"
import { makeScriptedProxy } from "../fixtures/ScriptedProxy.js"

describe("a shutdown", () => {
  it.scoped("waits for calls, but not for streams and disconnected clients", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      proxy.request(session)
      proxy.stateless(modernCall(9, "subscriptions/listen"))
      const disconnected = proxy.request(session, call(1))
      const pending = proxy.request(session, call(2))
      const idle = yield* Effect.fork(proxy.sessions.idle)
      disconnected.disconnect()
      yield* settle
      expect(yield* Fiber.poll(idle)).toEqual(Option.none())
      pending.exchange.perform("json")
      yield* Fiber.join(idle)
    })
  )

  it.scoped("waits for a call whose client has resumed its stream", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange, disconnect } = proxy.request(session, call(1))
      exchange.perform("event")
      response.disconnect()
      disconnect()
      yield* proxy.sessions.idle
      const resumed = proxy.resume(session, response.eventIds.at(-1))
      const waiting = yield* Effect.fork(proxy.sessions.idle)
      yield* settle
      expect(yield* Fiber.poll(waiting)).toEqual(Option.none())
      exchange.perform("response")
      yield* Fiber.join(waiting)
      exchange.perform("end")
      expect(resumed.response.messages).toMatchObject([{ id: 1 }])
    })
  )

  it.scoped("closes every session, also one that is not open yet, with ShuttingDown", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      const { response } = proxy.request(session, call(1))
      const stateless = proxy.stateless(modernCall(2))
      const { outcome } = yield* proxy.connect()
      yield* proxy.sessions.drain
      expect(response.ending).toEqual(new ShuttingDown())
      expect(stateless.response.ending).toEqual(new ShuttingDown())
      expect(yield* outcome).toEqual(Exit.fail(new ShuttingDown()))
      expect(proxy.isEmpty).toBe(true)
      expect(proxy.pool.openExchanges).toEqual([])
    })
  )

  it.scoped("rejects new sessions", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      yield* proxy.sessions.drain
      const { outcome } = yield* proxy.connect()
      expect(yield* outcome).toEqual(Exit.fail(new ShuttingDown()))
    })
  )

  it.scoped("is not delayed by a session that waits to replace another", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ multiSession: false })
      proxy.pool.releaseTime = 2_000
      yield* proxy.open()
      const { outcome } = yield* proxy.connect()
      const drain = yield* Effect.fork(proxy.sessions.drain)
      yield* proxy.clock.advance("10 seconds")
      expect(Option.isSome(yield* Fiber.poll(drain))).toBe(true)
      expect(yield* outcome).toEqual(Exit.fail(new ShuttingDown()))
    })
  )
})
