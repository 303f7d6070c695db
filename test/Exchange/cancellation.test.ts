import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { ShuttingDown } from "../../src/ProxyError.js"
import { call, post } from "../fixtures/requests.js"
import { StartedExchange } from "../fixtures/StartedExchange.js"

describe("a cancelled call", () => {
  it.effect("ends with an empty stream if there is no head", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.exchange.cancel(1)
      yield* started.advance(5)
      expect(started.response).toMatchObject({ status: 200, text: "", ending: "end", violations: [] })
      expect(started.response.isEventStream).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
    })
  )

  it.effect("ends its stream without a response", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("event")
      started.exchange.cancel(1)
      started.upstream.perform("event")
      yield* started.advance(5)
      expect(started.response.messages.length).toBe(2)
      expect(started.response.ending).toBe("end")
    })
  )

  it.effect("fails in the middle of a JSON response", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("partial json")
      started.exchange.cancel(1)
      started.upstream.data("a bit")
      yield* started.advance(5)
      expect(started.response.failure).toBeDefined()
      expect(started.isSettled).toBe(true)
    })
  )

  it.effect("does not end the other calls of its batch", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post([call(1), call(2)]))
      started.exchange.cancel(1)
      yield* started.advance(600)
      expect(started.isSettled).toBe(false)
      started.exchange.cancel(2)
      yield* started.advance(5)
      expect(started.isSettled).toBe(true)
    })
  )

  it.effect("ends also after its client has disconnected", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.disconnect()
      started.exchange.cancel(1)
      yield* started.advance(5)
      expect(started.isSettled).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
      expect(started.response.violations).toEqual([])
    })
  )

  it.effect("keeps its grace period when its client pauses and unpauses", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("event")
      started.exchange.cancel(1)
      started.response.flow?.pause()
      yield* started.advance(2)
      started.response.flow?.unpause()
      yield* started.advance(3)
      expect(started.isSettled).toBe(true)
    })
  )

  it("does not delay a shutdown, which ends it like its grace period does", () => {
    const started = new StartedExchange(post(call(1)))
    started.exchange.cancel(1)
    expect(started.context.inFlight.current).toBe(0)
    started.exchange.cut(new ShuttingDown())
    expect(started.response).toMatchObject({ status: 200, text: "", ending: "end", violations: [] })
    expect(started.upstream.isAborted).toBe(true)
    expect(started.context.inFlight).toMatchObject({ current: 0, least: 0 })
  })

  it.effect("continues if the cancelled id has another type", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.exchange.cancel("1")
      yield* started.advance(60)
      expect(started.isSettled).toBe(false)
    })
  )
})
