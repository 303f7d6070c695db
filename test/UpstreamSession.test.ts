import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { ScriptedExchange } from "./fixtures/ScriptedExchange.js"
import { settle as settleOnce } from "./fixtures/ManualClock.js"
import { makeProxied, type Proxied } from "./fixtures/Proxied.js"
import { call, cancellation, notification, response } from "./fixtures/requests.js"
import type { Message } from "../src/Protocol.js"

const make = () => makeProxied({ recover: true, maxExchanges: 3 }, {})

/** A recovery lets others run between its steps. */
const settle = Effect.repeatN(settleOnce, 5)

/** What an upstream was sent, in order: the lease and the method of each message. */
const sent = ({ pool }: Proxied): ReadonlyArray<string> =>
  pool.exchanges.map(
    ({ lease, request: { body, method } }) =>
      `${pool.leases.findIndex((one) => one === lease)} ${body?.messages[0].method ?? method}`
  )

/** All messages that an exchange sent. */
const messagesOf = ({ request }: ScriptedExchange): ReadonlyArray<Message> => request.body?.messages ?? []

describe("an upstream that cannot be reached", () => {
  it.scoped("is waited for, and sent what it did not get, in the same session if it knows that", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session, call(1))
      exchange.act("unreachable")
      yield* settle
      expect(sent(proxied)).toEqual(["0 initialize", "0 tools/call", "0 ping", "0 tools/call"])
      proxied.pool.open[0]?.act("json")
      expect(answer.messages()).toMatchObject([{ id: 1, result: {} }])
      expect(proxied.pool.leases.length).toBe(1)
    })
  )

  it.scoped("is asked less and less often, and given up after a while: the client begins anew", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { session } = yield* proxied.open()
      const times: Array<number> = []
      proxied.pool.onOwn = (ping) => {
        times.push(proxied.clock.unsafeCurrentTimeMillis())
        queueMicrotask(() => ping.act("unreachable"))
      }
      const { answer, exchange } = proxied.request(session, call(1))
      exchange.act("unreachable")
      yield* proxied.clock.advance("200 seconds")
      expect(times.length).toBe(10)
      expect(times[0]).toBe(0)
      for (const [attempt, time] of times.slice(1).entries()) {
        expect(time - (times[attempt] ?? 0)).toBeLessThanOrEqual(Math.min(30_000, 200 * 2 ** attempt))
      }
      expect(answer.failure).toMatchObject({ _tag: "SessionNotFound", status: 404 })
      expect(proxied.isEmpty).toBe(true)
    })
  )

  it.scoped("is not sent what was cancelled meanwhile", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { session } = yield* proxied.open()
      proxied.pool.onOwn = (ping) => queueMicrotask(() => ping.act("unreachable"))
      for (const id of [1, 2]) proxied.request(session, call(id)).exchange.act("unreachable")
      yield* settle
      const before = proxied.pool.exchanges.length
      proxied.request(session, cancellation(1)).exchange.act("unreachable")
      proxied.pool.onOwn = (ping) => queueMicrotask(() => ping.act("json"))
      yield* proxied.clock.advance("1 second")
      const again = proxied.pool.exchanges.slice(before).filter(({ isOver }) => !isOver)
      expect(again.flatMap(messagesOf)).toEqual([call(2), cancellation(1)])
    })
  )

  it.scoped("is waited for by no more calls than may be in flight", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { session } = yield* proxied.open()
      proxied.pool.onOwn = () => {}
      for (const id of [1, 2, 3]) proxied.request(session, call(id)).exchange.act("unreachable")
      expect(proxied.request(session, call(4)).answer.failure).toMatchObject({ limit: "max-exchanges" })
    })
  )

  it.scoped("holds up neither the end of its session nor a shutdown", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const sessions = [yield* proxied.open(), yield* proxied.open()]
      proxied.pool.onOwn = () => {}
      const calls = sessions.map(({ session }) => proxied.request(session, call(1)))
      for (const { exchange } of calls) exchange.act("unreachable")
      yield* settle
      yield* proxied.sessions.close(sessions[0]?.session.id ?? "", "deleted")
      expect(calls[0]?.answer.failure).toMatchObject({ status: 404 })
      yield* proxied.sessions.drain
      expect(calls[1]?.answer.failure).toMatchObject({ status: 503 })
      expect(proxied.pool.open).toEqual([])
      expect(proxied.isEmpty).toBe(true)
    })
  )
})

describe("a session that the upstream seems to deny", () => {
  it.scoped("is kept where it answers a ping, and the refusal is the client's", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { session } = yield* proxied.open()
      proxied.pool.onOwn = (ping) => queueMicrotask(() => ping.act("json"))
      for (let count = 0; count < 20; count++) {
        const calls = [proxied.request(session, call(1, "unknown")), proxied.request(session)]
        for (const { exchange } of calls) exchange.act("not found")
        yield* settle
        for (const { answer } of calls) expect(answer).toMatchObject({ status: 404, ending: "end" })
      }
      expect(proxied.pool.leases.length).toBe(1)
      expect(proxied.clock.unsafeCurrentTimeMillis()).toBe(0)
    })
  )

  it.scoped("by an answer that does not end is not looked at for ever", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session, call(1))
      exchange.head(400, "application/json")
      yield* proxied.clock.advance("61 seconds")
      expect(answer.failure).toMatchObject({ reason: "Stalled" })
      expect(session.load.exchanges).toBe(0)
    })
  )
})

describe("another session in the place of one that is lost", () => {
  it.scoped("is asked for again when the upstream begins to answer, and never ends", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { lease, session } = yield* proxied.open()
      proxied.pool.onOwn = (own) => queueMicrotask(() => own.act("open stream"))
      proxied.pool.dies(lease)
      const { answer } = proxied.request(session, call(1))
      yield* proxied.clock.advance("59 seconds")
      expect(proxied.pool.leases.length).toBe(2)
      proxied.pool.onOwn = (own) => queueMicrotask(() => own.act("json"))
      yield* proxied.clock.advance("10 seconds")
      proxied.pool.open[0]?.act("json")
      expect(answer.messages()).toMatchObject([{ id: 1, result: {} }])
      expect(proxied.pool.leases.map(({ releases }) => releases)).toEqual([1, 1, 0])
    })
  )

  it.scoped("does not go on with a stream of the old one that breaks later either", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { session } = yield* proxied.open()
      const streamed = proxied.request(session, call(1))
      streamed.exchange.act("event with id")
      const other = proxied.request(session, call(2))
      other.exchange.act("not found")
      yield* settle
      streamed.exchange.act("break")
      expect(streamed.answer.messages().at(-1)).toMatchObject({ id: 1, error: { code: -32000 } })
      yield* proxied.clock.advance("60 seconds")
      expect(sent(proxied).filter((line) => line.endsWith("GET"))).toEqual([])
    })
  )

  it.scoped("is sent a batch without what only the old one had to do with", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { session } = yield* proxied.open()
      const batch = [call(1), response(0), notification("notifications/progress"), call(2)]
      const { answer, exchange } = proxied.request(session, batch)
      exchange.act("not found")
      yield* settle
      const again = proxied.pool.open[0]
      expect(again && messagesOf(again)).toEqual([call(1), call(2)])
      expect(JSON.parse(Buffer.from(again?.request.bytes ?? []).toString())).toEqual([call(1), call(2)])
      again?.act("json")
      expect(answer.messages().map(({ id }) => id)).toEqual([1, 2])
    })
  )

  it.scoped("is not lost by late news of the old one", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { session } = yield* proxied.open()
      const [first, late] = [proxied.request(session, call(1)), proxied.request(session, call(2))]
      first.exchange.act("not found")
      yield* settle
      late.exchange.act("not found")
      yield* settle
      for (const exchange of proxied.pool.open) exchange.act("json")
      for (const { answer } of [first, late]) expect(answer).toMatchObject({ status: 200, ending: "end" })
      expect(proxied.pool.leases.map(({ releases }) => releases)).toEqual([1, 0])
    })
  )

  it.scoped("does not go on with a stream of the old one, whose call may have been carried out", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { session } = yield* proxied.open()
      const streamed = proxied.request(session, call(1))
      streamed.exchange.act("break")
      const other = proxied.request(session, call(2))
      other.exchange.act("not found")
      yield* settle
      expect(streamed.answer.messages().at(-1)).toMatchObject({
        id: 1,
        error: { message: expect.stringContaining("may have carried out") }
      })
      yield* proxied.clock.advance("60 seconds")
      expect(sent(proxied).filter((line) => line.endsWith("GET"))).toEqual([])
    })
  )

  it.scoped("feeds the streams that clients read, though the old one denied that it had any", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { lease, session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session)
      exchange.act("event with id")
      exchange.act("break")
      const answers = (asked: ScriptedExchange) =>
        queueMicrotask(() => {
          if (asked.lease === lease) asked.act("not found")
          else if (asked.request.method === "POST") asked.act("json")
          else asked.act("event")
        })
      proxied.pool.onOwn = answers
      proxied.pool.onExchange = answers
      yield* proxied.clock.advance("10 seconds")
      expect(sent(proxied).slice(2, 4)).toEqual(["0 GET", "0 ping"])
      expect(sent(proxied).at(-1)).toBe("1 GET")
      // Between the events of the two sessions the client is told of the second.
      expect(answer.messages().filter(({ method }) => method === "notifications/message")).toHaveLength(3)
      expect(answer).toMatchObject({ ending: undefined, violations: [] })
    })
  )

  it.scoped("feeds nobody faster than the streams are read", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ recover: true }, { maxEvents: 4 })
      const { lease, session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session)
      exchange.act("event")
      answer.flow?.pause()
      for (let count = 0; count < 3; count++) exchange.act("event")
      expect(exchange.isPaused).toBe(true)
      proxied.pool.onExchange = (asked) => {
        if (asked.lease === lease) asked.act("not found")
        else asked.act("open stream")
      }
      proxied.request(session, call(1))
      yield* settle
      const anew = proxied.pool.exchanges.find(
        (asked) => asked.lease !== lease && asked.request.method === "GET"
      )
      expect(anew?.isPaused).toBe(true)
      answer.flow?.unpause()
      expect(anew?.isPaused).toBe(false)
    })
  )

  it.scoped("takes the place of a child that has ended, when something is to be sent", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { lease, session } = yield* proxied.open()
      const inFlight = proxied.request(session, call(1))
      proxied.pool.dies(lease)
      yield* settle
      expect(inFlight.answer.failure).toMatchObject({ reason: "Ended" })
      expect(proxied.pool.leases.length).toBe(1)
      const next = proxied.request(session, call(2))
      yield* settle
      proxied.pool.open[0]?.act("json")
      expect(next.answer.messages()).toMatchObject([{ id: 2, result: {} }])
      expect(proxied.pool.leases.map(({ releases }) => releases)).toEqual([1, 0])
    })
  )

  it.scoped("that ends again and again is given up", () =>
    Effect.gen(function* () {
      const proxied = yield* make()
      const { lease, session } = yield* proxied.open()
      const listening = proxied.request(session)
      listening.exchange.act("open stream")
      proxied.pool.dies(lease)
      for (let second = 0; second < 300; second++) {
        yield* proxied.clock.advance("1 second")
        const last = proxied.pool.leases.at(-1)
        for (const exchange of proxied.pool.open) exchange.act("open stream")
        if (last?.releases === 0) proxied.pool.dies(last)
      }
      expect(proxied.sessions.get(session.id)).toBeUndefined()
      expect(proxied.pool.leases.length).toBeLessThanOrEqual(11)
      expect(listening.answer).toMatchObject({ ending: "end", violations: [] })
    })
  )
})
