import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import type { RequestId } from "../../src/Protocol.js"
import { ShuttingDown } from "../../src/ProxyError.js"
import type { Request } from "../../src/Upstream.js"
import { eventOf } from "../fixtures/events.js"
import { settle } from "../fixtures/ManualClock.js"
import { call, getRequest, modernCall, notification, post, responseTo } from "../fixtures/requests.js"
import { upstreamActions } from "../fixtures/ScriptedExchange.js"
import { type ExchangeKind, StartedExchange } from "../fixtures/StartedExchange.js"

describe("after arbitrary operations, an exchange", () => {
  const request = FastCheck.constantFrom<Request>(
    post(call(1)),
    post(call("1")),
    post([call(1), call(2)]),
    post(notification("notifications/progress")),
    post(responseTo(1)),
    post(modernCall(1, "subscriptions/listen")),
    getRequest
  )
  type Step = (started: StartedExchange) => Effect.Effect<void>
  const now =
    (step: (started: StartedExchange) => void): Step =>
    (started) =>
      Effect.sync(() => step(started))
  const step: FastCheck.Arbitrary<Step> = FastCheck.oneof(
    {
      weight: 6,
      arbitrary: FastCheck.constantFrom(...upstreamActions).map((act) =>
        now(({ upstream }) => upstream.perform(act))
      )
    },
    {
      weight: 2,
      arbitrary: FastCheck.constantFrom<RequestId>(1, "1", 2).map((id) =>
        now(({ exchange }) => exchange.cancel(id))
      )
    },
    { weight: 1, arbitrary: FastCheck.constant(now((started) => started.disconnect())) },
    { weight: 1, arbitrary: FastCheck.constant(now((started) => void started.resume())) },
    {
      weight: 1,
      arbitrary: FastCheck.constantFrom(...upstreamActions).map((act) =>
        now(({ pool }) => {
          const resumed = pool.openExchanges.at(-1)
          if (resumed?.request.method === "GET") resumed.perform(act)
        })
      )
    },
    {
      weight: 1,
      arbitrary: FastCheck.constant(now(({ response }) => response.isDisconnected || response.flow?.pause()))
    },
    {
      weight: 1,
      arbitrary: FastCheck.constant(
        now(({ response }) => response.isDisconnected || response.flow?.unpause())
      )
    },
    {
      weight: 1,
      arbitrary: FastCheck.constantFrom(1, 4, 6, 61).map(
        (seconds): Step =>
          (started) =>
            started.advance(seconds)
      )
    }
  )

  it.effect.prop(
    "settles once, releases everything and ends its response once",
    [
      request,
      FastCheck.constantFrom<ExchangeKind>("session", "tracked", "stateless"),
      FastCheck.array(step, { maxLength: 12 })
    ],
    ([request, kind, steps]) =>
      Effect.gen(function* () {
        const started = new StartedExchange(request, kind)
        const { response, exchange, context, pool, upstream } = started
        for (const step of steps) {
          // A settled exchange receives no more calls.
          if (started.isSettled) break
          yield* step(started)
        }
        exchange.cut(new ShuttingDown())
        context.close()
        yield* settle
        expect(context.settlements).toEqual([exchange])
        expect(context.resumptions.size).toBe(0)
        expect(context.retention?.totals ?? { events: 0, bytes: 0 }).toEqual({ events: 0, bytes: 0 })
        expect(context.deadlines.size).toBe(0)
        expect(context.inFlight).toMatchObject({ current: 0, least: 0 })
        expect(upstream.hasEnded).toBe(true)
        expect(pool.openExchanges).toEqual([])
        expect(started.responses.flatMap(({ violations }) => violations)).toEqual([])
        expect(response.hasEnded || response.isDisconnected).toBe(true)
        if (kind === "tracked") expect(new Set(started.eventIds).size).toBe(started.eventIds.length)
        for (const id of [1, "1", 2]) expect(response.countResponses(id)).toBeLessThanOrEqual(1)
      }),
    { fastCheck: { numRuns: 300 } }
  )

  it.effect.prop(
    "has one response to each request of a stream without event ids, if its client neither disconnects nor cancels",
    [
      FastCheck.array(
        FastCheck.constantFrom(
          eventOf(responseTo(1)),
          eventOf(responseTo("1")),
          eventOf(responseTo(2)),
          eventOf(notification("notifications/message")),
          eventOf(call(1, "sampling/createMessage")),
          ": comment\n\n",
          "\r\n",
          "\n"
        ),
        { maxLength: 6 }
      ),
      FastCheck.array(FastCheck.integer({ min: 1, max: 40 }), { maxLength: 20 }),
      FastCheck.constantFrom("finish", "fail", "cut")
    ],
    ([frames, lengths, how]) =>
      Effect.sync(() => {
        // The proxy passes on duplicate responses of the server.
        const stream = Array.from(new Set(frames)).join("")
        const { response, exchange, upstream } = new StartedExchange(post([call(1), call("1"), call(2)]))
        upstream.head(200, "text/event-stream")
        let start = 0
        for (const length of lengths) {
          upstream.data(stream.slice(start, start + length))
          start += length
        }
        upstream.data(stream.slice(start))
        if (how === "finish") upstream.finish()
        else if (how === "fail") upstream.fail("Closed")
        else exchange.cut(new ShuttingDown())
        expect([1, "1", 2].map((id) => response.countResponses(id))).toEqual([1, 1, 1])
        expect(response).toMatchObject({ ending: "end", violations: [] })
      }),
    { fastCheck: { numRuns: 300 } }
  )
})
