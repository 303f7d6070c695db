import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { call, cancellation } from "../fixtures/requests.js"
import { makeScriptedProxy } from "../fixtures/ScriptedProxy.js"

describe("a call without a response", () => {
  it.scoped("ends 5 s after its cancellation, and no longer counts for --max-exchanges", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxExchanges: 1 })
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call("x"))
      proxy.request(session, cancellation("x")).exchange.perform("accepted")
      yield* proxy.clock.advance("4 seconds")
      expect(response.hasEnded).toBe(false)
      yield* proxy.clock.advance("2 seconds")
      expect(response).toMatchObject({ status: 200, ending: "end", text: "", violations: [] })
      expect(response.isEventStream).toBe(true)
      expect(exchange.isAborted).toBe(true)
      expect(proxy.request(session, call("x")).response.hasEnded).toBe(false)
    })
  )

  it.scoped("is not cancelled by a notification with an id of another type", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      const { response } = proxy.request(session, call(7))
      proxy.request(session, cancellation("7")).exchange.perform("accepted")
      yield* proxy.clock.advance("10 seconds")
      expect(response.hasEnded).toBe(false)
    })
  )

  it.scoped("may get its response after its cancellation", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      proxy.request(session, cancellation(1)).exchange.perform("accepted")
      yield* proxy.clock.advance("1 second")
      exchange.perform("json")
      yield* proxy.clock.advance("10 seconds")
      expect(response).toMatchObject({ status: 200, ending: "end", violations: [] })
      expect(response.countResponses(1)).toBe(1)
    })
  )

  it.scoped("is cancelled at the upstream after a timeout, within the scope of the session", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call("slow"))
      exchange.perform("timeout")
      expect(response.ending).toMatchObject({ status: 504 })
      expect(proxy.pool.openExchanges.map(({ request }) => request.body?.messages[0])).toMatchObject([
        { method: "notifications/cancelled", params: { requestId: "slow" } }
      ])
      // A shutdown does not wait for the response to the cancellation.
      yield* proxy.sessions.idle
      yield* proxy.sessions.close(session.id, "deleted")
      expect(proxy.pool.openExchanges).toEqual([])
    })
  )
})
