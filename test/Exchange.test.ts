import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { Exchange } from "../src/Exchange.js"
import type { RequestId } from "../src/Protocol.js"
import { SessionNotFound, ShuttingDown } from "../src/ProxyError.js"
import type { Request } from "../src/Upstream.js"
import { CountingContext } from "./fixtures/CountingContext.js"
import { CountingPool } from "./fixtures/CountingPool.js"
import { settle } from "./fixtures/ManualClock.js"
import { RecordedResponse } from "./fixtures/RecordedResponse.js"
import { call, getRequest, modernCall, notification, post, responseTo } from "./fixtures/requests.js"
import { upstreamActions, FOREIGN_ID, type ScriptedExchange } from "./fixtures/ScriptedExchange.js"

/** Whom an exchange is made for: a session that keeps streams or does not, or nobody in particular. */
type ExchangeKind = "session" | "tracked" | "stateless"

/** An exchange that has been started, and everyone whom it deals with. */
class StartedExchange {
  readonly pool = new CountingPool()
  readonly context: CountingContext
  readonly response = new RecordedResponse()
  /** The response, and those that went on with it. */
  readonly responses = [this.response]
  readonly exchange: Exchange
  readonly upstream: ScriptedExchange

  constructor(request: Request, kind: ExchangeKind = "session") {
    this.context = new CountingContext(
      this.pool,
      kind === "stateless" ? undefined : "the-proxy's-id",
      kind === "tracked"
    )
    this.exchange = new Exchange(this.context, request, this.response)
    this.exchange.start(request)
    const [upstream] = this.pool.exchanges
    if (upstream === undefined) throw new Error("nothing was asked")
    this.upstream = upstream
  }

  /** The client closes its connection. */
  disconnect(): void {
    this.response.disconnect()
    this.exchange.disconnect()
  }

  /** The ids of the events that the client got, on whichever connection. */
  get eventIds(): ReadonlyArray<string> {
    return this.responses.flatMap((response) => response.eventIds)
  }

  /** The client comes back to its stream with the last event id that it saw. */
  resume(): ResumedResponse {
    const lastEventId = this.eventIds.at(-1) ?? "none"
    const response = new RecordedResponse("the response that goes on")
    this.responses.push(response)
    const leave = this.context.streams?.resume(lastEventId, response)
    return {
      response,
      disconnect: () => {
        response.disconnect()
        leave?.()
      }
    }
  }

  /** The GET that asks the upstream for the rest of the stream, as soon as it is sent. */
  get resumeRequest(): Effect.Effect<ScriptedExchange> {
    return Effect.map(this.context.clock.advance("1 second"), () => {
      const resumption = this.pool.exchanges[1]
      if (resumption === undefined) throw new Error("the upstream is not asked to resume the stream")
      return resumption
    })
  }

  advance(seconds: number): Effect.Effect<void> {
    return Effect.andThen(this.context.clock.advance(`${seconds} seconds`), () =>
      this.context.deadlines.sweep()
    )
  }

  get isSettled(): boolean {
    return this.context.settlements.length > 0
  }
}

/** A client that has come back. */
interface ResumedResponse {
  readonly response: RecordedResponse
  readonly disconnect: () => void
}

const event = (json: unknown) => `event: message\ndata: ${JSON.stringify(json)}\n\n`

describe("an response in JSON", () => {
  it("is passed on as it comes, under the proxy's session id", () => {
    const { response, context, upstream } = new StartedExchange(post(call(1)))
    upstream.head(200, "application/json")
    upstream.data('{"jsonrpc":"2.0",')
    upstream.data('"id":1,"result":{}}')
    upstream.finish()
    expect(response).toMatchObject({
      status: 200,
      headers: { "mcp-session-id": "the-proxy's-id" },
      text: '{"jsonrpc":"2.0","id":1,"result":{}}',
      ending: "end",
      violations: []
    })
    expect(context.settlements.length).toBe(1)
  })

  it.effect("that stalls between its head and its end is cut off after a minute", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("partial json")
      yield* started.advance(59)
      started.upstream.data("more")
      yield* started.advance(59)
      expect(started.response.hasEnded).toBe(false)
      yield* started.advance(1)
      expect(started.response.failure).toMatchObject({ reason: "Stalled" })
      expect(started.upstream.isAborted).toBe(true)
      expect(started.isSettled).toBe(true)
    })
  )

  it.effect("that waits for the client to read does not stall", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("partial json")
      started.response.flow?.pause()
      expect(started.upstream.isPaused).toBe(true)
      yield* started.advance(600)
      expect(started.response.hasEnded).toBe(false)
      started.response.flow?.unpause()
      expect(started.upstream.isPaused).toBe(false)
      yield* started.advance(60)
      expect(started.response.failure).toMatchObject({ reason: "Stalled" })
    })
  )

  it("an error before its head is told as it is, with nothing before it", () => {
    const { response, context, upstream } = new StartedExchange(post(call(1)))
    upstream.perform("timeout")
    expect(response).toMatchObject({ status: 0, violations: [] })
    expect(response.failure).toMatchObject({ reason: "ResponseTimeout" })
    expect(context.failures).toMatchObject([{ reason: "ResponseTimeout" }])
  })

  it("an error after its head cuts it off", () => {
    const { response, upstream } = new StartedExchange(post(call(1)))
    upstream.perform("partial json")
    upstream.perform("fail")
    expect(response.failure).toMatchObject({ reason: "Closed" })
  })

  it("compressed events are no frames that could be told", () => {
    const { response, exchange } = new StartedExchange(post(call(1)))
    const flow = { pause: () => {}, unpause: () => {} }
    exchange.head(200, { "content-type": "text/event-stream", "content-encoding": "gzip" }, flow)
    exchange.data(Buffer.from("half"))
    expect(response.text).toBe("half")
  })
})

describe("an response as a stream", () => {
  it("is passed on in whole frames, with nothing that holds them back", () => {
    const { response, exchange, upstream } = new StartedExchange(post(call(1)))
    const flow = { pause: () => {}, unpause: () => {} }
    exchange.head(200, { "content-type": "text/event-stream; charset=utf-8", "content-length": "99" }, flow)
    expect(response.headers).toEqual({
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
      "mcp-session-id": "the-proxy's-id"
    })
    exchange.data(Buffer.from("data: half"))
    expect(response.text).toBe("")
    exchange.data(Buffer.from(" a frame\n\ndata: next"))
    expect(response.text).toBe("data: half a frame\n\n")
    upstream.finish()
  })

  it.effect("that is silent gets a comment now and then, between two frames and nowhere else", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("open stream")
      yield* started.advance(started.context.keepAlive / 1000)
      expect(started.response.text).toBe(": keep-alive\n\n")
      started.upstream.data("data: half")
      yield* started.advance(started.context.keepAlive / 1000)
      started.upstream.data(" a frame\n\n")
      expect(started.response.text).toBe(": keep-alive\n\n: keep-alive\n\ndata: half a frame\n\n")
    })
  )

  it.effect("may be silent for hours", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("open stream")
      yield* started.advance(10_000)
      expect(started.response.hasEnded).toBe(false)
    })
  )

  it.each([
    ["in the same chunk", [event(responseTo("a")) + ": bye\n\n"]],
    ["before a comment in a chunk of its own", [event(responseTo("a")), ": bye\n\n"]],
    ["before a notification", [event(responseTo("a")), event(notification("notifications/message"))]],
    ["cut in two", [event(responseTo("a")).slice(0, 30), event(responseTo("a")).slice(30)]],
    ["as an error", [event({ jsonrpc: "2.0", id: "a", error: { code: 1, message: "no" } })]]
  ])("that holds the response %s is not added to", (_, chunks) => {
    const { response, upstream } = new StartedExchange(post(call("a")))
    upstream.head(200, "text/event-stream")
    for (const chunk of chunks) upstream.data(chunk)
    upstream.finish()
    expect(response).toMatchObject({ text: chunks.join(""), ending: "end" })
  })

  it("that ends without the response is completed with an error, for nothing else would end the waiting", () => {
    const { response, upstream } = new StartedExchange(post(call("a")))
    upstream.perform("event")
    upstream.finish()
    expect(response.messages.at(-1)).toMatchObject({ id: "a", error: { code: -32000 } })
    expect(response).toMatchObject({ ending: "end", violations: [] })
  })

  it.each(["finish", "fail"] as const)(
    "of a batch is completed for each request without a response (%s)",
    (how) => {
      const { response, upstream } = new StartedExchange(
        post([call(1), call("1"), notification("x"), call(2)])
      )
      upstream.head(200, "text/event-stream")
      upstream.data(event(responseTo("1")))
      upstream.data(event(responseTo(2)))
      if (how === "finish") upstream.finish()
      else upstream.fail("Closed")
      expect(response.messages.map(({ error, id }) => [id, error === undefined])).toEqual([
        ["1", true],
        [2, true],
        [1, false]
      ])
    }
  )

  it("of a batch may have all responses in one event", () => {
    const { response, upstream } = new StartedExchange(post([call(1), call(2)]))
    upstream.head(200, "text/event-stream")
    upstream.data(event([responseTo(1), responseTo(2)]))
    upstream.finish()
    expect(response.messages.length).toBe(2)
  })

  it.each(["end", "fail"] as const)("that the client can resume is left to it (%s)", (how) => {
    const { response, upstream } = new StartedExchange(post(call(1)))
    upstream.perform("event with id")
    upstream.perform(how)
    expect(response.messages.length).toBe(1)
    expect(response).toMatchObject({ ending: "end", violations: [] })
  })

  it.each(["finish", "fail"] as const)(
    "that held a frame too large to be read may have been answered (%s)",
    (how) => {
      const { response, upstream } = new StartedExchange(post(call(1)))
      upstream.head(200, "text/event-stream")
      const large = event(responseTo(1, { text: "x".repeat(3 * 1024 * 1024) }))
      for (let start = 0; start < large.length; start += 1024 * 1024)
        upstream.data(large.slice(start, start + 1024 * 1024))
      if (how === "finish") upstream.finish()
      else upstream.fail("Closed")
      expect(response.text).toBe(large)
      expect(response.ending).toBe("end")
    }
  )

  it("a frame that is larger than what is held is no place for an error", () => {
    const { response, upstream } = new StartedExchange(post(call(1)))
    upstream.head(200, "text/event-stream")
    upstream.data(`data: ${"x".repeat(2 * 1024 * 1024)}`)
    upstream.fail("Closed")
    expect(response.failure).toMatchObject({ reason: "Closed" })
  })
})

describe("a client that goes away", () => {
  it("does not cancel a call: the response is read to its end, and nobody is told", () => {
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

  it.effect("is not waited for longer than a session may be idle", () =>
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

  it.effect("does not put off the end of an response that stalls", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("partial json")
      started.disconnect()
      yield* started.advance(60)
      expect(started.isSettled).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
    })
  )

  it.effect("does not put off the end of a call that it has cancelled", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.exchange.cancel(1)
      started.disconnect()
      yield* started.advance(5)
      expect(started.isSettled).toBe(true)
    })
  )

  it("before the head is no different", () => {
    const started = new StartedExchange(post(call(1)))
    started.disconnect()
    started.upstream.perform("json")
    expect(started.isSettled).toBe(true)
    expect(started.response).toMatchObject({ status: 0, violations: [] })
  })

  it.each([
    ["the stream of a session", () => new StartedExchange(getRequest)],
    ["a request without a session", () => new StartedExchange(post(modernCall(1)), "stateless")],
    ["a subscription", () => new StartedExchange(post(modernCall(1, "subscriptions/listen")))]
  ])("gives up %s", (_, start) => {
    const started = start()
    started.disconnect()
    expect(started.upstream.isAborted).toBe(true)
    expect(started.isSettled).toBe(true)
  })

  it("gives up a call that it can resume", () => {
    const started = new StartedExchange(post(call(1)))
    started.upstream.perform("event with id")
    started.disconnect()
    expect(started.upstream.isAborted).toBe(true)
    expect(started.isSettled).toBe(true)
  })

  it("is not waited for by a shutdown", () => {
    const started = new StartedExchange(post(call(1)))
    expect(started.context.inFlight.current).toBe(1)
    started.disconnect()
    expect(started.context.inFlight.current).toBe(0)
    started.upstream.perform("json")
    expect(started.context.inFlight.current).toBe(0)
  })
})

describe("cutting off", () => {
  it("before the head the client is told why", () => {
    const { response, exchange, upstream } = new StartedExchange(post(call(1)))
    exchange.cut(new ShuttingDown())
    expect(response.ending).toEqual(new ShuttingDown())
    expect(upstream.isAborted).toBe(true)
  })

  it("in a stream each waiting request is told why", () => {
    const { response, exchange, upstream } = new StartedExchange(post([call(1), call(2)]))
    upstream.head(200, "text/event-stream")
    upstream.data(event(responseTo(1)))
    exchange.cut(new SessionNotFound())
    expect(response.messages).toMatchObject([
      { id: 1, result: {} },
      { id: 2, error: { code: -32001 } }
    ])
    expect(response.ending).toBe("end")
  })

  it("the stream of a session just ends", () => {
    const { response, exchange, upstream } = new StartedExchange(getRequest)
    upstream.perform("event")
    exchange.cut(new ShuttingDown())
    expect(response.messages.length).toBe(1)
    expect(response.ending).toBe("end")
  })

  it("the stream of a session that has not begun is an error", () => {
    const { response, exchange } = new StartedExchange(getRequest)
    exchange.cut(new ShuttingDown())
    expect(response.ending).toEqual(new ShuttingDown())
  })

  it("what is over stays over", () => {
    const started = new StartedExchange(post(call(1)))
    started.upstream.perform("json")
    started.exchange.cut(new ShuttingDown())
    started.exchange.disconnect()
    expect(started.context.settlements.length).toBe(1)
    expect(started.response.violations).toEqual([])
  })
})

describe("a cancelled call", () => {
  it.effect("ends as an empty stream when no head has come", () =>
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

  it.effect("is cut off in the middle of an response of a known length", () =>
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

  it.effect("in a batch leaves the others to be answered", () =>
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

  it.effect("whose client has gone ends too", () =>
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

  it.effect("stays cancelled when its client stops reading and reads again", () =>
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

  it("is not waited for by a shutdown, which ends it as its grace would", () => {
    const started = new StartedExchange(post(call(1)))
    started.exchange.cancel(1)
    expect(started.context.inFlight.current).toBe(0)
    started.exchange.cut(new ShuttingDown())
    expect(started.response).toMatchObject({ status: 200, text: "", ending: "end", violations: [] })
    expect(started.upstream.isAborted).toBe(true)
    expect(started.context.inFlight).toMatchObject({ current: 0, least: 0 })
  })

  it.effect("of another id is another's affair", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.exchange.cancel("1")
      yield* started.advance(60)
      expect(started.isSettled).toBe(false)
    })
  )
})

describe("a stream that is kept", () => {
  const numbered = (id: string, json: unknown) => `id: ${id}\ndata: ${JSON.stringify(json)}\n\n`
  const progress = notification("notifications/progress")
  const flow = { pause: () => {}, unpause: () => {} }

  it("has ids of the proxy's own, whether or not the upstream gives any", () => {
    const { response, upstream } = new StartedExchange(post(call(1)), "tracked")
    upstream.head(200, "text/event-stream")
    upstream.data(numbered("theirs", progress))
    upstream.data(`retry: 1\n${event(responseTo(1))}`)
    upstream.finish()
    expect(response.headers).toMatchObject({
      "mcp-session-id": "the-proxy's-id",
      "cache-control": "no-cache, no-transform"
    })
    expect(new Set(response.eventIds).size).toBe(2)
    expect(response.text).not.toMatch(/theirs|retry/)
    expect(response.messages).toEqual([progress, responseTo(1)])
    expect(response).toMatchObject({ ending: "end", violations: [] })
  })

  it("is passed on as it is where it is compressed", () => {
    const { response, exchange } = new StartedExchange(post(call(1)), "tracked")
    exchange.head(200, { "content-type": "text/event-stream", "content-encoding": "gzip" }, flow)
    exchange.data(Buffer.from("half"))
    expect(response.text).toBe("half")
  })

  it("goes on while its client is away, and for it when it comes back", () => {
    const started = new StartedExchange(post(call(1)), "tracked")
    started.upstream.perform("event")
    started.disconnect()
    expect(started.upstream.isAborted).toBe(false)
    started.upstream.perform("event with id")
    const { response } = started.resume()
    started.upstream.perform("response")
    started.upstream.finish()
    expect(started.response.messages.length).toBe(1)
    expect(response.messages).toMatchObject([{ method: "notifications/message" }, { id: 1, result: {} }])
    expect(response).toMatchObject({ status: 200, ending: "end", violations: [] })
    expect(started.isSettled).toBe(true)
  })

  it("keeps a response that came meanwhile", () => {
    const started = new StartedExchange(post(call(1)), "tracked")
    started.upstream.perform("event")
    started.disconnect()
    started.upstream.perform("response")
    started.upstream.finish()
    expect(started.isSettled).toBe(true)
    expect(started.resume().response).toMatchObject({ ending: "end", violations: [] })
    expect(started.responses.at(-1)?.countResponses(1)).toBe(1)
  })

  it.each(["before it leaves", "after it has left", "after it has come back and left"] as const)(
    "ends when its client has the response and has gone, though the upstream goes on: %s",
    (when) => {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event")
      if (when === "before it leaves") started.upstream.perform("response")
      started.disconnect()
      if (when === "after it has left") started.upstream.perform("response")
      if (when === "after it has come back and left") {
        const back = started.resume()
        started.upstream.perform("response")
        expect(started.isSettled).toBe(false)
        back.disconnect()
      }
      expect(started.isSettled).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
      expect(started.response.violations).toEqual([])
    }
  )

  it("that has no head yet is aborted where it is the stream of a session", () => {
    const started = new StartedExchange(getRequest, "tracked")
    started.disconnect()
    expect(started.upstream.isAborted).toBe(true)
    expect(started.isSettled).toBe(true)
  })

  it.effect.each([
    { does: "left once", go: (started: StartedExchange) => started.disconnect() },
    {
      does: "come back and left again",
      go: (started: StartedExchange) => {
        started.disconnect()
        started.resume().disconnect()
      }
    },
    {
      does: "come back before it was missed, and left then",
      go: (started: StartedExchange) => started.resume().disconnect()
    },
    {
      does: "come back, read slowly and left",
      go: (started: StartedExchange) => {
        const { response, disconnect } = started.resume()
        response.flow?.pause()
        for (let count = 0; count < 600; count++) started.upstream.perform("event")
        expect(started.upstream.isPaused).toBe(true)
        disconnect()
        expect(started.upstream.isPaused).toBe(false)
      }
    }
  ])("waits for a client that has $does as long as a session may be idle", ({ go }) =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event")
      yield* started.advance(1_000)
      go(started)
      yield* started.advance(1_799)
      expect(started.isSettled).toBe(false)
      yield* started.advance(1)
      expect(started.isSettled).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
    })
  )

  it.effect("waits for the upstream as long as its client is there", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event")
      started.disconnect()
      started.resume()
      for (let hours = 0; hours < 5; hours++) yield* started.advance(3_600)
      expect(started.isSettled).toBe(false)
    })
  )

  it.each(["finish", "fail"] as const)("without ids is never gone on with (%s)", (how) => {
    const started = new StartedExchange(post([call(1), call(2)]), "tracked")
    started.upstream.perform("event")
    started.upstream.data(event(responseTo(1)))
    if (how === "finish") started.upstream.finish()
    else started.upstream.fail("Closed")
    expect(started.context.resumptions.size).toBe(0)
    expect(started.response.messages.slice(1)).toMatchObject([{ id: 1 }, { id: 2, error: { code: -32000 } }])
    expect(started.response).toMatchObject({ ending: "end", violations: [] })
    expect(started.context.outcomes).toEqual(["failed"])
  })

  it.effect.each(["finish", "fail"] as const)("with ids is resumed, unseen by its client (%s)", (how) =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.head(200, "text/event-stream")
      started.upstream.data(numbered("a", progress))
      started.upstream.data(numbered("b", progress) + "data: half")
      if (how === "finish") started.upstream.finish()
      else started.upstream.fail("Closed")
      const resumption = yield* started.resumeRequest
      expect(resumption.request.headers).toEqual({ "last-event-id": "b" })
      expect(started.response.hasEnded).toBe(false)
      resumption.head(200, "text/event-stream")
      resumption.data(numbered("b", progress))
      resumption.data(numbered("c", responseTo(1)))
      yield* settle
      expect(started.response.messages).toEqual([progress, progress, responseTo(1)])
      expect(started.response).toMatchObject({ ending: "end", violations: [] })
      expect(started.context.outcomes).toEqual(["answered"])
    })
  )

  it.effect("that cannot be resumed ends with an error for each request that waits", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post([call(1), call(2)]), "tracked")
      started.upstream.head(200, "text/event-stream")
      started.upstream.data(numbered("a", responseTo(2)))
      started.upstream.fail("Closed")
      const resumption = yield* started.resumeRequest
      resumption.perform("not found")
      yield* settle
      expect(started.response.messages).toMatchObject([
        { id: 2, result: {} },
        { id: 1, error: { code: -32000 } }
      ])
      expect(started.response).toMatchObject({ ending: "end", violations: [] })
    })
  )

  it.effect("drops what belongs to other streams when it is resumed", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event with id")
      started.upstream.fail("Closed")
      const resumption = yield* started.resumeRequest
      resumption.head(200, "text/event-stream")
      resumption.data(numbered("b", responseTo(FOREIGN_ID)) + "id: c\ndata: {}\n\n")
      resumption.data(numbered("d", call(FOREIGN_ID, "sampling/createMessage")))
      resumption.data(numbered("e", responseTo(1)))
      yield* settle
      expect(started.response.messages.slice(1)).toEqual([
        call(FOREIGN_ID, "sampling/createMessage"),
        responseTo(1)
      ])
    })
  )

  it.effect("pauses the upstream for a slow client on the next connection too", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event with id")
      started.response.flow?.pause()
      for (let count = 0; count < 600; count++) started.upstream.perform("event")
      expect(started.upstream.isPaused).toBe(true)
      started.upstream.fail("Closed")
      const resumption = yield* started.resumeRequest
      resumption.head(200, "text/event-stream")
      expect(resumption.isPaused).toBe(true)
      started.response.flow?.unpause()
      expect(resumption.isPaused).toBe(false)
    })
  )

  it("whose client has what it waits for is not gone on with", () => {
    const started = new StartedExchange(post(call(1)), "tracked")
    started.upstream.perform("event with id")
    started.upstream.perform("response, then failure")
    expect(started.context.resumptions.size).toBe(0)
    expect(started.response).toMatchObject({ ending: "end", violations: [] })
  })

  it.effect("whose call is cancelled is not gone on with for longer than any other", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event with id")
      started.upstream.fail("Closed")
      started.exchange.cancel(1)
      yield* started.advance(5)
      yield* settle
      expect(started.context.resumptions.size).toBe(0)
      expect(started.response.messages.length).toBe(1)
      expect(started.response).toMatchObject({ ending: "end", violations: [] })
      expect(started.context.outcomes).toEqual(["cancelled"])
    })
  )

  it.effect("is cut while it is resumed, and says why", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event with id")
      started.upstream.fail("Closed")
      started.exchange.cut(new SessionNotFound())
      yield* settle
      expect(started.context.resumptions.size).toBe(0)
      expect(started.response.messages.at(-1)).toMatchObject({ id: 1, error: { code: -32001 } })
      expect(started.response).toMatchObject({ ending: "end", violations: [] })
    })
  )
})

describe("whatever happens to an exchange", () => {
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
          const resumption = pool.openExchanges.at(-1)
          if (resumption?.request.method === "GET") resumption.perform(act)
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
    "it settles once, gives everything back, and tells its client one ending",
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
          // Of an exchange that is over nobody is told anything any more.
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
    "a client that stays and cancels nothing gets one response for each request of a stream without ids",
    [
      FastCheck.array(
        FastCheck.constantFrom(
          event(responseTo(1)),
          event(responseTo("1")),
          event(responseTo(2)),
          event(notification("notifications/message")),
          event(call(1, "sampling/createMessage")),
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
        // What the server itself responses twice is not the proxy's affair.
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
