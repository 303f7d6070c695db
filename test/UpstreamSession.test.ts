import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { ScriptedExchange } from "./fixtures/ScriptedExchange.js"
import { settleSteps } from "./fixtures/ManualClock.js"
import { makeScriptedProxy, type ScriptedProxy } from "./fixtures/ScriptedProxy.js"
import { call, cancellation, notification, responseTo } from "./fixtures/requests.js"
import type { Message } from "../src/Protocol.js"

const makeProxy = () => makeScriptedProxy({ recover: true, maxExchanges: 3 }, {})

/** The lease and the method of each message that the upstream received, in order. */
const sent = ({ pool }: ScriptedProxy): ReadonlyArray<string> =>
  pool.exchanges.map(
    ({ lease, request: { body, method } }) =>
      `${pool.leases.findIndex((one) => one === lease)} ${body?.messages[0].method ?? method}`
  )

/** The messages that an exchange sent. */
const messagesOf = ({ request }: ScriptedExchange): ReadonlyArray<Message> => request.body?.messages ?? []

describe("an unreachable upstream", () => {
  it.scoped("gets the unsent request again in the same session, if it still knows the session", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      exchange.perform("unreachable")
      yield* settleSteps
      expect(sent(proxy)).toEqual(["0 initialize", "0 tools/call", "0 ping", "0 tools/call"])
      proxy.pool.openExchanges[0]?.perform("json")
      expect(response.messages).toMatchObject([{ id: 1, result: {} }])
      expect(proxy.pool.leases.length).toBe(1)
    })
  )

  it.scoped("gets ten pings with growing delays, and then the session ends with 404", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { session } = yield* proxy.open()
      const times: Array<number> = []
      proxy.pool.onProxyRequest = (ping) => {
        times.push(proxy.clock.unsafeCurrentTimeMillis())
        queueMicrotask(() => ping.perform("unreachable"))
      }
      const { response, exchange } = proxy.request(session, call(1))
      exchange.perform("unreachable")
      yield* proxy.clock.advance("200 seconds")
      expect(times.length).toBe(10)
      expect(times[0]).toBe(0)
      for (const [attempt, time] of times.slice(1).entries()) {
        expect(time - (times[attempt] ?? 0)).toBeLessThanOrEqual(Math.min(30_000, 200 * 2 ** attempt))
      }
      expect(response.failure).toMatchObject({ _tag: "SessionNotFound", status: 404 })
      expect(proxy.isEmpty).toBe(true)
    })
  )

  it.scoped("does not get a request that was cancelled in the meantime", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { session } = yield* proxy.open()
      proxy.pool.onProxyRequest = (ping) => queueMicrotask(() => ping.perform("unreachable"))
      for (const id of [1, 2]) proxy.request(session, call(id)).exchange.perform("unreachable")
      yield* settleSteps
      const before = proxy.pool.exchanges.length
      proxy.request(session, cancellation(1)).exchange.perform("unreachable")
      proxy.pool.onProxyRequest = (ping) => queueMicrotask(() => ping.perform("json"))
      yield* proxy.clock.advance("1 second")
      const resent = proxy.pool.exchanges.slice(before).filter(({ hasEnded }) => !hasEnded)
      expect(resent.flatMap(messagesOf)).toEqual([call(2), cancellation(1)])
    })
  )

  it.scoped("has at most --max-exchanges requests waiting for it", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { session } = yield* proxy.open()
      proxy.pool.onProxyRequest = () => {}
      for (const id of [1, 2, 3]) proxy.request(session, call(id)).exchange.perform("unreachable")
      expect(proxy.request(session, call(4)).response.failure).toMatchObject({ limit: "max-exchanges" })
    })
  )

  it.scoped("delays neither the end of its session nor a shutdown", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const sessions = [yield* proxy.open(), yield* proxy.open()]
      proxy.pool.onProxyRequest = () => {}
      const calls = sessions.map(({ session }) => proxy.request(session, call(1)))
      for (const { exchange } of calls) exchange.perform("unreachable")
      yield* settleSteps
      yield* proxy.sessions.close(sessions[0]?.session.id ?? "", "deleted")
      expect(calls[0]?.response.failure).toMatchObject({ status: 404 })
      yield* proxy.sessions.drain
      expect(calls[1]?.response.failure).toMatchObject({ status: 503 })
      expect(proxy.pool.openExchanges).toEqual([])
      expect(proxy.isEmpty).toBe(true)
    })
  )
})

describe("a 404 of the upstream", () => {
  it.scoped("reaches the client if the session still responds to a ping", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { session } = yield* proxy.open()
      proxy.pool.onProxyRequest = (ping) => queueMicrotask(() => ping.perform("json"))
      for (let count = 0; count < 20; count++) {
        const calls = [proxy.request(session, call(1, "unknown")), proxy.request(session)]
        for (const { exchange } of calls) exchange.perform("not found")
        yield* settleSteps
        for (const { response } of calls) expect(response).toMatchObject({ status: 404, ending: "end" })
      }
      expect(proxy.pool.leases.length).toBe(1)
      expect(proxy.clock.unsafeCurrentTimeMillis()).toBe(0)
    })
  )

  it.scoped("fails the request if its body stalls", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      exchange.head(400, "application/json")
      yield* proxy.clock.advance("61 seconds")
      expect(response.failure).toMatchObject({ reason: "Stalled" })
      expect(session.load.exchanges).toBe(0)
    })
  )
})

describe("a failover", () => {
  it.scoped("is tried again if the response to `initialize` never ends", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { lease, session } = yield* proxy.open()
      proxy.pool.onProxyRequest = (own) => queueMicrotask(() => own.perform("open stream"))
      proxy.pool.exitChild(lease)
      const { response } = proxy.request(session, call(1))
      yield* proxy.clock.advance("59 seconds")
      expect(proxy.pool.leases.length).toBe(2)
      proxy.pool.onProxyRequest = (own) => queueMicrotask(() => own.perform("json"))
      yield* proxy.clock.advance("10 seconds")
      proxy.pool.openExchanges[0]?.perform("json")
      expect(response.messages).toMatchObject([{ id: 1, result: {} }])
      expect(proxy.pool.leases.map(({ releases }) => releases)).toEqual([1, 1, 0])
    })
  )

  it.scoped("does not resume a stream of the lost session that breaks later", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { session } = yield* proxy.open()
      const streamed = proxy.request(session, call(1))
      streamed.exchange.perform("event with id")
      const other = proxy.request(session, call(2))
      other.exchange.perform("not found")
      yield* settleSteps
      streamed.exchange.perform("event with id, then failure")
      expect(streamed.response.messages.at(-1)).toMatchObject({ id: 1, error: { code: -32000 } })
      yield* proxy.clock.advance("60 seconds")
      expect(sent(proxy).filter((line) => line.endsWith("GET"))).toEqual([])
    })
  )

  it.scoped("resends a batch without the messages that only the lost session can use", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { session } = yield* proxy.open()
      const batch = [call(1), responseTo(0), notification("notifications/progress"), call(2)]
      const { response, exchange } = proxy.request(session, batch)
      exchange.perform("not found")
      yield* settleSteps
      const resent = proxy.pool.openExchanges[0]
      expect(resent && messagesOf(resent)).toEqual([call(1), call(2)])
      expect(JSON.parse(Buffer.from(resent?.request.bytes ?? []).toString())).toEqual([call(1), call(2)])
      resent?.perform("json")
      expect(response.messages.map(({ id }) => id)).toEqual([1, 2])
    })
  )

  it.scoped("is not repeated after a late 404 of the lost session", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { session } = yield* proxy.open()
      const [first, late] = [proxy.request(session, call(1)), proxy.request(session, call(2))]
      first.exchange.perform("not found")
      yield* settleSteps
      late.exchange.perform("not found")
      yield* settleSteps
      for (const exchange of proxy.pool.openExchanges) exchange.perform("json")
      for (const { response } of [first, late]) expect(response).toMatchObject({ status: 200, ending: "end" })
      expect(proxy.pool.leases.map(({ releases }) => releases)).toEqual([1, 0])
    })
  )

  it.scoped(
    "does not resume a broken stream of the lost session, because its call may have been executed",
    () =>
      Effect.gen(function* () {
        const proxy = yield* makeProxy()
        const { session } = yield* proxy.open()
        const streamed = proxy.request(session, call(1))
        streamed.exchange.perform("event with id, then failure")
        const other = proxy.request(session, call(2))
        other.exchange.perform("not found")
        yield* settleSteps
        expect(streamed.response.messages.at(-1)).toMatchObject({
          id: 1,
          error: { message: expect.stringContaining("may have carried out") }
        })
        yield* proxy.clock.advance("60 seconds")
        expect(sent(proxy).filter((line) => line.endsWith("GET"))).toEqual([])
      })
  )

  it.scoped("opens the standalone stream in the new session, although the lost session refused it", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { lease, session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session)
      exchange.perform("event with id")
      exchange.perform("event with id, then failure")
      const respond = (exchange: ScriptedExchange) =>
        queueMicrotask(() => {
          if (exchange.lease === lease) exchange.perform("not found")
          else if (exchange.request.method === "POST") exchange.perform("json")
          else exchange.perform("event")
        })
      proxy.pool.onProxyRequest = respond
      proxy.pool.onExchange = respond
      yield* proxy.clock.advance("10 seconds")
      expect(sent(proxy).slice(2, 4)).toEqual(["0 GET", "0 ping"])
      expect(sent(proxy).at(-1)).toBe("1 GET")
      // The proxy sends a message about the failover between the events of the two sessions.
      expect(response.messages.filter(({ method }) => method === "notifications/message")).toHaveLength(3)
      expect(response).toMatchObject({ ending: undefined, violations: [] })
    })
  )

  it.scoped("pauses the standalone stream of the new session for a slow client", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ recover: true }, { maxEvents: 4 })
      const { lease, session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session)
      exchange.perform("event")
      response.flow?.pause()
      for (let count = 0; count < 3; count++) exchange.perform("event")
      expect(exchange.isPaused).toBe(true)
      proxy.pool.onExchange = (exchange) => {
        if (exchange.lease === lease) exchange.perform("not found")
        else exchange.perform("open stream")
      }
      proxy.request(session, call(1))
      yield* settleSteps
      const next = proxy.pool.exchanges.find(
        (exchange) => exchange.lease !== lease && exchange.request.method === "GET"
      )
      expect(next?.isPaused).toBe(true)
      response.flow?.unpause()
      expect(next?.isPaused).toBe(false)
    })
  )

  it.scoped("replaces a child that has exited when the next request is sent", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { lease, session } = yield* proxy.open()
      const inFlight = proxy.request(session, call(1))
      proxy.pool.exitChild(lease)
      yield* settleSteps
      expect(inFlight.response.failure).toMatchObject({ reason: "Ended" })
      expect(proxy.pool.leases.length).toBe(1)
      const next = proxy.request(session, call(2))
      yield* settleSteps
      proxy.pool.openExchanges[0]?.perform("json")
      expect(next.response.messages).toMatchObject([{ id: 2, result: {} }])
      expect(proxy.pool.leases.map(({ releases }) => releases)).toEqual([1, 0])
    })
  )

  it.scoped("ends the session if the new children exit repeatedly", () =>
    Effect.gen(function* () {
      const proxy = yield* makeProxy()
      const { lease, session } = yield* proxy.open()
      const listening = proxy.request(session)
      listening.exchange.perform("open stream")
      proxy.pool.exitChild(lease)
      for (let second = 0; second < 300; second++) {
        yield* proxy.clock.advance("1 second")
        const last = proxy.pool.leases.at(-1)
        for (const exchange of proxy.pool.openExchanges) exchange.perform("open stream")
        if (last?.releases === 0) proxy.pool.exitChild(last)
      }
      expect(proxy.sessions.get(session.id)).toBeUndefined()
      expect(proxy.pool.leases.length).toBeLessThanOrEqual(11)
      expect(listening.response).toMatchObject({ ending: "end", violations: [] })
    })
  )
})
