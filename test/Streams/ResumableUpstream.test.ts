import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { eventOf } from "../fixtures/events.js"
import { settleSteps } from "../fixtures/ManualClock.js"
import { call, notification, post, responseTo } from "../fixtures/requests.js"
import { makeScriptedProxy } from "../fixtures/ScriptedProxy.js"
import { StartedExchange } from "../fixtures/StartedExchange.js"

const progress = notification("notifications/progress")

describe("a stream that nobody reads", () => {
  it("keeps the events that follow the last response in one chunk", () => {
    const started = new StartedExchange(post(call(1)), "tracked")
    started.upstream.perform("event")
    started.disconnect()
    started.upstream.data(eventOf(responseTo(1)) + eventOf(progress))
    expect(started.isSettled).toBe(true)
    expect(started.upstream.isAborted).toBe(true)
    expect(started.resume().response.messages).toEqual([responseTo(1), progress])
  })

  it("returns the memory of an unfinished event, if it ends inside the next one", () => {
    const started = new StartedExchange(post(call(1)), "tracked")
    started.upstream.perform("event")
    started.disconnect()
    const large = eventOf(notification("notifications/progress", { text: "x".repeat(17 * 1024 * 1024) }))
    const text = eventOf(responseTo(1)) + large + "data: unfinished"
    for (let at = 0; at < text.length; at += 1024 * 1024) {
      if (started.isSettled) break
      started.upstream.data(text.slice(at, at + 1024 * 1024))
    }
    expect(started.isSettled).toBe(true)
    started.context.close()
    expect(started.context.retention?.totals).toEqual({ events: 0, bytes: 0 })
  })

  it("is not resumed if its client disconnected before the head", () => {
    const started = new StartedExchange(post(call(1)), "tracked")
    started.disconnect()
    started.upstream.perform("event with id, then failure")
    expect(started.isSettled).toBe(true)
    expect(started.context.outcomes).toEqual(["failed"])
    expect(started.pool.exchanges).toHaveLength(1)
  })
})

describe("an upstream failure", () => {
  it.effect("is reported once, though the stream cannot be resumed either", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event with id, then failure")
      const resumption = yield* started.resumeRequest
      resumption.perform("not found")
      yield* settleSteps
      expect(started.isSettled).toBe(true)
      expect(started.context.failures).toMatchObject([{ reason: "Closed" }])
    })
  )

  it("is not reported for a stream that ends without a response: its client gets the error", () => {
    const started = new StartedExchange(post(call(1)), "tracked")
    started.upstream.perform("event")
    started.upstream.finish()
    expect(started.context.failures).toEqual([])
    expect(started.response.messages.at(-1)).toMatchObject({ id: 1, error: { code: -32000 } })
  })
})

describe("a failover", () => {
  it.scoped("sends no event id of the lost session to its replacement", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ recover: true }, {})
      const { lease, session } = yield* proxy.open()
      const { exchange, response } = proxy.request(session)
      exchange.perform("event with id, then failure")
      yield* proxy.clock.advance("1 second")
      // The upstream has no such stream any more, so the client's stream ends.
      proxy.pool.openExchanges[0]?.perform("not found")
      yield* settleSteps
      expect(response.ending).toBe("end")
      proxy.pool.exitChild(lease)
      proxy.resume(session, response.eventIds.at(-1))
      yield* settleSteps
      const again = proxy.pool.openExchanges.find(({ request }) => request.method === "GET")
      expect(again?.lease).not.toBe(lease)
      expect(again?.request.headers["last-event-id"]).toBeUndefined()
    })
  )
})
