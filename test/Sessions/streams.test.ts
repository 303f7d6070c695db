import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { call, notification } from "../fixtures/requests.js"
import { makeScriptedProxy } from "../fixtures/ScriptedProxy.js"

/** A session with a standalone stream that both the client and the upstream have closed. */
const makeClosedStream = Effect.gen(function* () {
  const proxy = yield* makeScriptedProxy({}, {})
  const { session } = yield* proxy.open()
  const { response, exchange, disconnect } = proxy.request(session)
  exchange.perform("event with id")
  response.disconnect()
  disconnect()
  proxy.pool.onExchange = (exchange) => exchange.perform("not found")
  exchange.perform("end")
  yield* proxy.clock.advance("1 second")
  return { response, proxy, session }
})

describe("a logged stream", () => {
  it.scoped("is resumed at the upstream, and the resumed exchange ends with an immediate response", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      exchange.perform("event with id, then failure")
      proxy.pool.onExchange = (exchange) => exchange.perform("response with id")
      yield* proxy.clock.advance("1 second")
      expect(response.countResponses(1)).toBe(1)
      expect(response).toMatchObject({ ending: "end", violations: [] })
      expect(proxy.pool.exchanges.length).toBe(3)
      expect(proxy.pool.openExchanges).toEqual([])
      expect(session.load.exchanges).toBe(0)
    })
  )

  it.scoped("is resumed again after 409, 5xx and a disconnect", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      exchange.perform("event with id, then failure")
      const lastEventIds: Array<unknown> = []
      const actions = ["conflict", "server error", "event with id, then failure", "response with id"] as const
      proxy.pool.onExchange = (exchange) => {
        exchange.perform(actions[lastEventIds.length] ?? "fail")
        lastEventIds.push(exchange.request.headers["last-event-id"])
      }
      yield* proxy.clock.advance("5 seconds")
      expect(lastEventIds).toEqual(["1.1", "1.1", "1.1", "1.2"])
      expect(response.messages.map(({ id }) => id)).toEqual([undefined, undefined, 1])
      expect(response).toMatchObject({ ending: "end", violations: [] })
    })
  )

  it.scoped("ends with an error if the upstream does not resume it", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      exchange.perform("event with id, then failure")
      proxy.pool.onExchange = (exchange) => exchange.perform("not found")
      yield* proxy.clock.advance("1 second")
      expect(response.messages.at(-1)).toMatchObject({ id: 1, error: { code: -32000 } })
      expect(response).toMatchObject({ ending: "end", violations: [] })
      expect(proxy.pool.exchanges.length).toBe(3)
    })
  )

  it.scoped("that is standalone ends with the upstream's stream, and then cannot be resumed", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session)
      exchange.perform("open stream")
      const second = proxy.request(session)
      exchange.perform("event")
      exchange.perform("end")
      proxy.pool.onExchange = (exchange) => exchange.perform("not found")
      yield* proxy.clock.advance("1 second")
      for (const { ending, violations } of [response, second.response])
        expect({ ending, violations }).toEqual({ ending: "end", violations: [] })
      expect(second.response.messages.length).toBe(1)
      const resumed = proxy.resume(session, second.response.eventIds.at(-1))
      expect(resumed.response.failure).toMatchObject({ status: 405, reason: "StreamEnded" })
      const { exchange: next } = proxy.request(session)
      expect(next.request.method).toBe("GET")
    })
  )

  it.scoped("can be resumed if --max-exchanges is reached", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxExchanges: 1 }, {})
      const { session } = yield* proxy.open()
      const { response, exchange, disconnect } = proxy.request(session, call(1))
      exchange.perform("event")
      response.disconnect()
      disconnect()
      exchange.perform("response")
      const resumed = proxy.resume(session, response.eventIds.at(-1))
      expect(resumed.response).toMatchObject({ status: 200 })
      expect(resumed.response.messages).toMatchObject([{ id: 1 }])
    })
  )

  it.scoped.each(["conflict", "server error"] as const)(
    "that is standalone can be resumed before the upstream resumes it (%s)",
    (act) =>
      Effect.gen(function* () {
        const { response, proxy, session } = yield* makeClosedStream
        const actions = [act, act, "event with id"] as const
        let attempts = 0
        proxy.pool.onExchange = (exchange) => exchange.perform(actions[attempts++] ?? "open stream")
        const resumed = proxy.resume(session, response.eventIds.at(-1))
        expect(resumed.response).toMatchObject({ status: 200, ending: undefined })
        yield* proxy.clock.advance("5 seconds")
        expect(attempts).toBe(3)
        expect(resumed.response.messages).toMatchObject([{ method: "notifications/message" }])
        expect(resumed.response).toMatchObject({ ending: undefined, violations: [] })
      })
  )

  it.scoped(
    "that is standalone is resumed after its last event if the resumed stream breaks immediately",
    () =>
      Effect.gen(function* () {
        const { response, proxy, session } = yield* makeClosedStream
        const lastEventIds: Array<unknown> = []
        proxy.pool.onExchange = (exchange) => {
          lastEventIds.push(exchange.request.headers["last-event-id"])
          exchange.perform("open stream")
          if (lastEventIds.length === 1) exchange.perform("end")
        }
        proxy.resume(session, response.eventIds.at(-1))
        yield* proxy.clock.advance("1 second")
        expect(lastEventIds).toEqual(["1.1", "1.1"])
      })
  )

  it.scoped("of a notification is passed through with the upstream's event ids", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, notification("notifications/roots/list_changed"))
      exchange.perform("event with id")
      exchange.perform("end")
      expect(response.eventIds).toEqual(["1.1"])
      expect(response).toMatchObject({ ending: "end", violations: [] })
    })
  )

  it.scoped("that is standalone replays its events after the upstream's stream has ended", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange, disconnect } = proxy.request(session)
      exchange.perform("event")
      response.disconnect()
      disconnect()
      exchange.perform("event")
      exchange.perform("end")
      proxy.pool.onExchange = (exchange) => exchange.perform("not found")
      yield* proxy.clock.advance("1 second")
      const resumed = proxy.resume(session, response.eventIds.at(-1))
      expect(resumed.response.messages.length).toBe(1)
      expect(resumed.response).toMatchObject({ status: 200, ending: "end", violations: [] })
    })
  )
})
