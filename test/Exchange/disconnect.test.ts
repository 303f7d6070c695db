import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { call, getRequest, modernCall, post } from "../fixtures/requests.js"
import { StartedExchange } from "../fixtures/StartedExchange.js"

describe("a client that disconnects", () => {
  it("does not cancel its call: the upstream's response is read to its end", () => {
    const started = new StartedExchange(post(call(1)))
    started.upstream.perform("partial json")
    started.response.flow?.pause()
    started.disconnect()
    expect(started.upstream).toMatchObject({ isAborted: false, isPaused: false })
    expect(started.isSettled).toBe(false)
    started.upstream.finish()
    expect(started.isSettled).toBe(true)
    expect(started.response.violations).toEqual([])
  })

  it.effect("ends its call after the session timeout", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("event")
      started.disconnect()
      yield* started.advance(1_799)
      expect(started.isSettled).toBe(false)
      yield* started.advance(1)
      expect(started.isSettled).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
      expect(started.response.violations).toEqual([])
    })
  )

  it.effect("does not extend the stall timeout of its response", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("partial json")
      started.disconnect()
      yield* started.advance(60)
      expect(started.isSettled).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
    })
  )

  it.effect("does not extend the grace period of a call that it has cancelled", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.exchange.cancel(1)
      started.disconnect()
      yield* started.advance(5)
      expect(started.isSettled).toBe(true)
    })
  )

  it("receives no head if it disconnects before it", () => {
    const started = new StartedExchange(post(call(1)))
    started.disconnect()
    started.upstream.perform("json")
    expect(started.isSettled).toBe(true)
    expect(started.response).toMatchObject({ status: 0, violations: [] })
  })

  it.each([
    ["the standalone stream of a session", () => new StartedExchange(getRequest)],
    ["a request without a session", () => new StartedExchange(post(modernCall(1)), "stateless")],
    ["a subscription", () => new StartedExchange(post(modernCall(1, "subscriptions/listen")))]
  ])("aborts %s", (_, start) => {
    const started = start()
    started.disconnect()
    expect(started.upstream.isAborted).toBe(true)
    expect(started.isSettled).toBe(true)
  })

  it("aborts a call that it can resume at the upstream", () => {
    const started = new StartedExchange(post(call(1)))
    started.upstream.perform("event with id")
    started.disconnect()
    expect(started.upstream.isAborted).toBe(true)
    expect(started.isSettled).toBe(true)
  })

  it("does not delay a shutdown", () => {
    const started = new StartedExchange(post(call(1)))
    expect(started.context.inFlight.current).toBe(1)
    started.disconnect()
    expect(started.context.inFlight.current).toBe(0)
    started.upstream.perform("json")
    expect(started.context.inFlight.current).toBe(0)
  })
})
