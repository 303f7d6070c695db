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
import { RecordedAnswer } from "./fixtures/RecordedAnswer.js"
import { call, get, modernCall, notification, post, response } from "./fixtures/requests.js"
import { acts, FOREIGN, type ScriptedExchange } from "./fixtures/ScriptedExchange.js"

/** Whom an exchange is made for: a session that keeps streams or does not, or nobody in particular. */
type Kind = "session" | "tracked" | "stateless"

/** An exchange that has been started, and everyone whom it deals with. */
class Started {
  readonly pool = new CountingPool()
  readonly owner: CountingContext
  readonly answer = new RecordedAnswer()
  /** The answer, and those that went on with it. */
  readonly reading = [this.answer]
  readonly exchange: Exchange
  readonly upstream: ScriptedExchange

  constructor(request: Request, kind: Kind = "session") {
    this.owner = new CountingContext(
      this.pool,
      kind === "stateless" ? undefined : "the-proxy's-id",
      kind === "tracked"
    )
    this.exchange = new Exchange(this.owner, request, this.answer)
    this.exchange.start(request)
    const [upstream] = this.pool.exchanges
    if (upstream === undefined) throw new Error("nothing was asked")
    this.upstream = upstream
  }

  /** The client closes its connection. */
  leave(): void {
    this.answer.goes()
    this.exchange.disconnect()
  }

  /** The ids of the events that the client got, on whichever connection. */
  get eventIds(): ReadonlyArray<string> {
    return this.reading.flatMap((answer) => answer.eventIds())
  }

  /** The client comes back to its stream with the last event id that it saw. */
  comeBack(): Back {
    const lastEventId = this.eventIds.at(-1) ?? "none"
    const answer = new RecordedAnswer("the answer that goes on")
    this.reading.push(answer)
    const leave = this.owner.streams?.resume(lastEventId, answer)
    return {
      answer,
      leave: () => {
        answer.goes()
        leave?.()
      }
    }
  }

  /** The GET that asks the upstream for the rest of the stream, as soon as it is sent. */
  get resumption(): Effect.Effect<ScriptedExchange> {
    return Effect.map(this.owner.clock.advance("1 second"), () => {
      const resumption = this.pool.exchanges[1]
      if (resumption === undefined) throw new Error("the upstream is not asked to resume the stream")
      return resumption
    })
  }

  pass(seconds: number): Effect.Effect<void> {
    return Effect.andThen(this.owner.clock.advance(`${seconds} seconds`), () => this.owner.deadlines.sweep())
  }

  get isOver(): boolean {
    return this.owner.settlements.length > 0
  }
}

/** A client that has come back. */
interface Back {
  readonly answer: RecordedAnswer
  readonly leave: () => void
}

const event = (json: unknown) => `event: message\ndata: ${JSON.stringify(json)}\n\n`

describe("an answer in JSON", () => {
  it("is passed on as it comes, under the proxy's session id", () => {
    const { answer, owner, upstream } = new Started(post(call(1)))
    upstream.head(200, "application/json")
    upstream.data('{"jsonrpc":"2.0",')
    upstream.data('"id":1,"result":{}}')
    upstream.finish()
    expect(answer).toMatchObject({
      status: 200,
      headers: { "mcp-session-id": "the-proxy's-id" },
      text: '{"jsonrpc":"2.0","id":1,"result":{}}',
      ending: "end",
      violations: []
    })
    expect(owner.settlements.length).toBe(1)
  })

  it.effect("that stalls between its head and its end is cut off after a minute", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.upstream.act("half json")
      yield* started.pass(59)
      started.upstream.data("more")
      yield* started.pass(59)
      expect(started.answer.isOver).toBe(false)
      yield* started.pass(1)
      expect(started.answer.failure).toMatchObject({ reason: "Stalled" })
      expect(started.upstream.isAborted).toBe(true)
      expect(started.isOver).toBe(true)
    })
  )

  it.effect("that waits for the client to read does not stall", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.upstream.act("half json")
      started.answer.flow?.pause()
      expect(started.upstream.isPaused).toBe(true)
      yield* started.pass(600)
      expect(started.answer.isOver).toBe(false)
      started.answer.flow?.unpause()
      expect(started.upstream.isPaused).toBe(false)
      yield* started.pass(60)
      expect(started.answer.failure).toMatchObject({ reason: "Stalled" })
    })
  )

  it("an error before its head is told as it is, with nothing before it", () => {
    const { answer, owner, upstream } = new Started(post(call(1)))
    upstream.act("time out")
    expect(answer).toMatchObject({ status: 0, violations: [] })
    expect(answer.failure).toMatchObject({ reason: "ResponseTimeout" })
    expect(owner.failures).toMatchObject([{ reason: "ResponseTimeout" }])
  })

  it("an error after its head cuts it off", () => {
    const { answer, upstream } = new Started(post(call(1)))
    upstream.act("half json")
    upstream.act("fail")
    expect(answer.failure).toMatchObject({ reason: "Closed" })
  })

  it("compressed events are no frames that could be told", () => {
    const { answer, exchange } = new Started(post(call(1)))
    const flow = { pause: () => {}, unpause: () => {} }
    exchange.head(200, { "content-type": "text/event-stream", "content-encoding": "gzip" }, flow)
    exchange.data(Buffer.from("half"))
    expect(answer.text).toBe("half")
  })
})

describe("an answer as a stream", () => {
  it("is passed on in whole frames, with nothing that holds them back", () => {
    const { answer, exchange, upstream } = new Started(post(call(1)))
    const flow = { pause: () => {}, unpause: () => {} }
    exchange.head(200, { "content-type": "text/event-stream; charset=utf-8", "content-length": "99" }, flow)
    expect(answer.headers).toEqual({
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
      "mcp-session-id": "the-proxy's-id"
    })
    exchange.data(Buffer.from("data: half"))
    expect(answer.text).toBe("")
    exchange.data(Buffer.from(" a frame\n\ndata: next"))
    expect(answer.text).toBe("data: half a frame\n\n")
    upstream.finish()
  })

  it.effect("that is silent gets a comment now and then, between two frames and nowhere else", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.upstream.act("open stream")
      yield* started.pass(started.owner.keepAlive / 1000)
      expect(started.answer.text).toBe(": keep-alive\n\n")
      started.upstream.data("data: half")
      yield* started.pass(started.owner.keepAlive / 1000)
      started.upstream.data(" a frame\n\n")
      expect(started.answer.text).toBe(": keep-alive\n\n: keep-alive\n\ndata: half a frame\n\n")
    })
  )

  it.effect("may be silent for hours", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.upstream.act("open stream")
      yield* started.pass(10_000)
      expect(started.answer.isOver).toBe(false)
    })
  )

  it.each([
    ["in the same chunk", [event(response("a")) + ": bye\n\n"]],
    ["before a comment in a chunk of its own", [event(response("a")), ": bye\n\n"]],
    ["before a notification", [event(response("a")), event(notification("notifications/message"))]],
    ["cut in two", [event(response("a")).slice(0, 30), event(response("a")).slice(30)]],
    ["as an error", [event({ jsonrpc: "2.0", id: "a", error: { code: 1, message: "no" } })]]
  ])("that holds the response %s is not added to", (_, chunks) => {
    const { answer, upstream } = new Started(post(call("a")))
    upstream.head(200, "text/event-stream")
    for (const chunk of chunks) upstream.data(chunk)
    upstream.finish()
    expect(answer).toMatchObject({ text: chunks.join(""), ending: "end" })
  })

  it("that ends without the response is completed with an error, for nothing else would end the waiting", () => {
    const { answer, upstream } = new Started(post(call("a")))
    upstream.act("event")
    upstream.finish()
    expect(answer.messages().at(-1)).toMatchObject({ id: "a", error: { code: -32000 } })
    expect(answer).toMatchObject({ ending: "end", violations: [] })
  })

  it.each(["finish", "fail"] as const)(
    "of a batch is completed for each request without a response (%s)",
    (how) => {
      const { answer, upstream } = new Started(post([call(1), call("1"), notification("x"), call(2)]))
      upstream.head(200, "text/event-stream")
      upstream.data(event(response("1")))
      upstream.data(event(response(2)))
      if (how === "finish") upstream.finish()
      else upstream.fail("Closed")
      expect(answer.messages().map(({ error, id }) => [id, error === undefined])).toEqual([
        ["1", true],
        [2, true],
        [1, false]
      ])
    }
  )

  it("of a batch may have all responses in one event", () => {
    const { answer, upstream } = new Started(post([call(1), call(2)]))
    upstream.head(200, "text/event-stream")
    upstream.data(event([response(1), response(2)]))
    upstream.finish()
    expect(answer.messages().length).toBe(2)
  })

  it.each(["end", "fail"] as const)("that the client can resume is left to it (%s)", (how) => {
    const { answer, upstream } = new Started(post(call(1)))
    upstream.act("event with id")
    upstream.act(how)
    expect(answer.messages().length).toBe(1)
    expect(answer).toMatchObject({ ending: "end", violations: [] })
  })

  it.each(["finish", "fail"] as const)(
    "that held a frame too large to be read may have been answered (%s)",
    (how) => {
      const { answer, upstream } = new Started(post(call(1)))
      upstream.head(200, "text/event-stream")
      const large = event(response(1, { text: "x".repeat(3 * 1024 * 1024) }))
      for (let start = 0; start < large.length; start += 1024 * 1024)
        upstream.data(large.slice(start, start + 1024 * 1024))
      if (how === "finish") upstream.finish()
      else upstream.fail("Closed")
      expect(answer.text).toBe(large)
      expect(answer.ending).toBe("end")
    }
  )

  it("a frame that is larger than what is held is no place for an error", () => {
    const { answer, upstream } = new Started(post(call(1)))
    upstream.head(200, "text/event-stream")
    upstream.data(`data: ${"x".repeat(2 * 1024 * 1024)}`)
    upstream.fail("Closed")
    expect(answer.failure).toMatchObject({ reason: "Closed" })
  })
})

describe("a client that goes away", () => {
  it("does not cancel a call: the answer is read to its end, and nobody is told", () => {
    const started = new Started(post(call(1)))
    started.upstream.act("half json")
    started.answer.flow?.pause()
    started.leave()
    expect(started.upstream).toMatchObject({ isAborted: false, isPaused: false })
    expect(started.isOver).toBe(false)
    started.upstream.finish()
    expect(started.isOver).toBe(true)
    expect(started.answer.violations).toEqual([])
  })

  it.effect("is not waited for longer than a session may be idle", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.upstream.act("event")
      started.leave()
      yield* started.pass(1_799)
      expect(started.isOver).toBe(false)
      yield* started.pass(1)
      expect(started.isOver).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
      expect(started.answer.violations).toEqual([])
    })
  )

  it.effect("does not put off the end of an answer that stalls", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.upstream.act("half json")
      started.leave()
      yield* started.pass(60)
      expect(started.isOver).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
    })
  )

  it.effect("does not put off the end of a call that it has cancelled", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.exchange.cancel(1)
      started.leave()
      yield* started.pass(5)
      expect(started.isOver).toBe(true)
    })
  )

  it("before the head is no different", () => {
    const started = new Started(post(call(1)))
    started.leave()
    started.upstream.act("json")
    expect(started.isOver).toBe(true)
    expect(started.answer).toMatchObject({ status: 0, violations: [] })
  })

  it.each([
    ["the stream of a session", () => new Started(get)],
    ["a request without a session", () => new Started(post(modernCall(1)), "stateless")],
    ["a subscription", () => new Started(post(modernCall(1, "subscriptions/listen")))]
  ])("gives up %s", (_, start) => {
    const started = start()
    started.leave()
    expect(started.upstream.isAborted).toBe(true)
    expect(started.isOver).toBe(true)
  })

  it("gives up a call that it can resume", () => {
    const started = new Started(post(call(1)))
    started.upstream.act("event with id")
    started.leave()
    expect(started.upstream.isAborted).toBe(true)
    expect(started.isOver).toBe(true)
  })

  it("is not waited for by a shutdown", () => {
    const started = new Started(post(call(1)))
    expect(started.owner.inFlight.current).toBe(1)
    started.leave()
    expect(started.owner.inFlight.current).toBe(0)
    started.upstream.act("json")
    expect(started.owner.inFlight.current).toBe(0)
  })
})

describe("cutting off", () => {
  it("before the head the client is told why", () => {
    const { answer, exchange, upstream } = new Started(post(call(1)))
    exchange.cut(new ShuttingDown())
    expect(answer.ending).toEqual(new ShuttingDown())
    expect(upstream.isAborted).toBe(true)
  })

  it("in a stream each waiting request is told why", () => {
    const { answer, exchange, upstream } = new Started(post([call(1), call(2)]))
    upstream.head(200, "text/event-stream")
    upstream.data(event(response(1)))
    exchange.cut(new SessionNotFound())
    expect(answer.messages()).toMatchObject([
      { id: 1, result: {} },
      { id: 2, error: { code: -32001 } }
    ])
    expect(answer.ending).toBe("end")
  })

  it("the stream of a session just ends", () => {
    const { answer, exchange, upstream } = new Started(get)
    upstream.act("event")
    exchange.cut(new ShuttingDown())
    expect(answer.messages().length).toBe(1)
    expect(answer.ending).toBe("end")
  })

  it("the stream of a session that has not begun is an error", () => {
    const { answer, exchange } = new Started(get)
    exchange.cut(new ShuttingDown())
    expect(answer.ending).toEqual(new ShuttingDown())
  })

  it("what is over stays over", () => {
    const started = new Started(post(call(1)))
    started.upstream.act("json")
    started.exchange.cut(new ShuttingDown())
    started.exchange.disconnect()
    expect(started.owner.settlements.length).toBe(1)
    expect(started.answer.violations).toEqual([])
  })
})

describe("a cancelled call", () => {
  it.effect("ends as an empty stream when no head has come", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.exchange.cancel(1)
      yield* started.pass(5)
      expect(started.answer).toMatchObject({ status: 200, text: "", ending: "end", violations: [] })
      expect(started.answer.isEventStream).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
    })
  )

  it.effect("ends its stream without a response", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.upstream.act("event")
      started.exchange.cancel(1)
      started.upstream.act("event")
      yield* started.pass(5)
      expect(started.answer.messages().length).toBe(2)
      expect(started.answer.ending).toBe("end")
    })
  )

  it.effect("is cut off in the middle of an answer of a known length", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.upstream.act("half json")
      started.exchange.cancel(1)
      started.upstream.data("a bit")
      yield* started.pass(5)
      expect(started.answer.failure).toBeDefined()
      expect(started.isOver).toBe(true)
    })
  )

  it.effect("in a batch leaves the others to be answered", () =>
    Effect.gen(function* () {
      const started = new Started(post([call(1), call(2)]))
      started.exchange.cancel(1)
      yield* started.pass(600)
      expect(started.isOver).toBe(false)
      started.exchange.cancel(2)
      yield* started.pass(5)
      expect(started.isOver).toBe(true)
    })
  )

  it.effect("whose client has gone ends too", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.leave()
      started.exchange.cancel(1)
      yield* started.pass(5)
      expect(started.isOver).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
      expect(started.answer.violations).toEqual([])
    })
  )

  it.effect("stays cancelled when its client stops reading and reads again", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.upstream.act("event")
      started.exchange.cancel(1)
      started.answer.flow?.pause()
      yield* started.pass(2)
      started.answer.flow?.unpause()
      yield* started.pass(3)
      expect(started.isOver).toBe(true)
    })
  )

  it("is not waited for by a shutdown, which ends it as its grace would", () => {
    const started = new Started(post(call(1)))
    started.exchange.cancel(1)
    expect(started.owner.inFlight.current).toBe(0)
    started.exchange.cut(new ShuttingDown())
    expect(started.answer).toMatchObject({ status: 200, text: "", ending: "end", violations: [] })
    expect(started.upstream.isAborted).toBe(true)
    expect(started.owner.inFlight).toMatchObject({ current: 0, least: 0 })
  })

  it.effect("of another id is another's affair", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)))
      started.exchange.cancel("1")
      yield* started.pass(60)
      expect(started.isOver).toBe(false)
    })
  )
})

describe("a stream that is kept", () => {
  const numbered = (id: string, json: unknown) => `id: ${id}\ndata: ${JSON.stringify(json)}\n\n`
  const progress = notification("notifications/progress")
  const flow = { pause: () => {}, unpause: () => {} }

  it("has ids of the proxy's own, whether or not the upstream gives any", () => {
    const { answer, upstream } = new Started(post(call(1)), "tracked")
    upstream.head(200, "text/event-stream")
    upstream.data(numbered("theirs", progress))
    upstream.data(`retry: 1\n${event(response(1))}`)
    upstream.finish()
    expect(answer.headers).toMatchObject({
      "mcp-session-id": "the-proxy's-id",
      "cache-control": "no-cache, no-transform"
    })
    expect(new Set(answer.eventIds()).size).toBe(2)
    expect(answer.text).not.toMatch(/theirs|retry/)
    expect(answer.messages()).toEqual([progress, response(1)])
    expect(answer).toMatchObject({ ending: "end", violations: [] })
  })

  it("is passed on as it is where it is compressed", () => {
    const { answer, exchange } = new Started(post(call(1)), "tracked")
    exchange.head(200, { "content-type": "text/event-stream", "content-encoding": "gzip" }, flow)
    exchange.data(Buffer.from("half"))
    expect(answer.text).toBe("half")
  })

  it("goes on while its client is away, and for it when it comes back", () => {
    const started = new Started(post(call(1)), "tracked")
    started.upstream.act("event")
    started.leave()
    expect(started.upstream.isAborted).toBe(false)
    started.upstream.act("event with id")
    const { answer } = started.comeBack()
    started.upstream.act("response")
    started.upstream.finish()
    expect(started.answer.messages().length).toBe(1)
    expect(answer.messages()).toMatchObject([{ method: "notifications/message" }, { id: 1, result: {} }])
    expect(answer).toMatchObject({ status: 200, ending: "end", violations: [] })
    expect(started.isOver).toBe(true)
  })

  it("keeps a response that came meanwhile", () => {
    const started = new Started(post(call(1)), "tracked")
    started.upstream.act("event")
    started.leave()
    started.upstream.act("response")
    started.upstream.finish()
    expect(started.isOver).toBe(true)
    expect(started.comeBack().answer).toMatchObject({ ending: "end", violations: [] })
    expect(started.reading.at(-1)?.responsesTo(1)).toBe(1)
  })

  it.each(["before it leaves", "after it has left", "after it has come back and left"] as const)(
    "ends when its client has the response and has gone, though the upstream goes on: %s",
    (when) => {
      const started = new Started(post(call(1)), "tracked")
      started.upstream.act("event")
      if (when === "before it leaves") started.upstream.act("response")
      started.leave()
      if (when === "after it has left") started.upstream.act("response")
      if (when === "after it has come back and left") {
        const back = started.comeBack()
        started.upstream.act("response")
        expect(started.isOver).toBe(false)
        back.leave()
      }
      expect(started.isOver).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
      expect(started.answer.violations).toEqual([])
    }
  )

  it("that has no head yet is aborted where it is the stream of a session", () => {
    const started = new Started(get, "tracked")
    started.leave()
    expect(started.upstream.isAborted).toBe(true)
    expect(started.isOver).toBe(true)
  })

  it.effect.each([
    { does: "left once", go: (started: Started) => started.leave() },
    {
      does: "come back and left again",
      go: (started: Started) => {
        started.leave()
        started.comeBack().leave()
      }
    },
    {
      does: "come back before it was missed, and left then",
      go: (started: Started) => started.comeBack().leave()
    },
    {
      does: "come back, read slowly and left",
      go: (started: Started) => {
        const { answer, leave } = started.comeBack()
        answer.flow?.pause()
        for (let count = 0; count < 600; count++) started.upstream.act("event")
        expect(started.upstream.isPaused).toBe(true)
        leave()
        expect(started.upstream.isPaused).toBe(false)
      }
    }
  ])("waits for a client that has $does as long as a session may be idle", ({ go }) =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)), "tracked")
      started.upstream.act("event")
      yield* started.pass(1_000)
      go(started)
      yield* started.pass(1_799)
      expect(started.isOver).toBe(false)
      yield* started.pass(1)
      expect(started.isOver).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
    })
  )

  it.effect("waits for the upstream as long as its client is there", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)), "tracked")
      started.upstream.act("event")
      started.leave()
      started.comeBack()
      for (let hours = 0; hours < 5; hours++) yield* started.pass(3_600)
      expect(started.isOver).toBe(false)
    })
  )

  it.each(["finish", "fail"] as const)("without ids is never gone on with (%s)", (how) => {
    const started = new Started(post([call(1), call(2)]), "tracked")
    started.upstream.act("event")
    started.upstream.data(event(response(1)))
    if (how === "finish") started.upstream.finish()
    else started.upstream.fail("Closed")
    expect(started.owner.resumptions.size).toBe(0)
    expect(started.answer.messages().slice(1)).toMatchObject([{ id: 1 }, { id: 2, error: { code: -32000 } }])
    expect(started.answer).toMatchObject({ ending: "end", violations: [] })
    expect(started.owner.outcomes).toEqual(["failed"])
  })

  it.effect.each(["finish", "fail"] as const)("with ids is resumed, unseen by its client (%s)", (how) =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)), "tracked")
      started.upstream.head(200, "text/event-stream")
      started.upstream.data(numbered("a", progress))
      started.upstream.data(numbered("b", progress) + "data: half")
      if (how === "finish") started.upstream.finish()
      else started.upstream.fail("Closed")
      const resumption = yield* started.resumption
      expect(resumption.request.headers).toEqual({ "last-event-id": "b" })
      expect(started.answer.isOver).toBe(false)
      resumption.head(200, "text/event-stream")
      resumption.data(numbered("b", progress))
      resumption.data(numbered("c", response(1)))
      yield* settle
      expect(started.answer.messages()).toEqual([progress, progress, response(1)])
      expect(started.answer).toMatchObject({ ending: "end", violations: [] })
      expect(started.owner.outcomes).toEqual(["answered"])
    })
  )

  it.effect("that cannot be resumed ends with an error for each request that waits", () =>
    Effect.gen(function* () {
      const started = new Started(post([call(1), call(2)]), "tracked")
      started.upstream.head(200, "text/event-stream")
      started.upstream.data(numbered("a", response(2)))
      started.upstream.fail("Closed")
      const resumption = yield* started.resumption
      resumption.act("not found")
      yield* settle
      expect(started.answer.messages()).toMatchObject([
        { id: 2, result: {} },
        { id: 1, error: { code: -32000 } }
      ])
      expect(started.answer).toMatchObject({ ending: "end", violations: [] })
    })
  )

  it.effect("drops what belongs to other streams when it is resumed", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)), "tracked")
      started.upstream.act("event with id")
      started.upstream.fail("Closed")
      const resumption = yield* started.resumption
      resumption.head(200, "text/event-stream")
      resumption.data(numbered("b", response(FOREIGN)) + "id: c\ndata: {}\n\n")
      resumption.data(numbered("d", call(FOREIGN, "sampling/createMessage")))
      resumption.data(numbered("e", response(1)))
      yield* settle
      expect(started.answer.messages().slice(1)).toEqual([
        call(FOREIGN, "sampling/createMessage"),
        response(1)
      ])
    })
  )

  it.effect("pauses the upstream for a slow client on the next connection too", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)), "tracked")
      started.upstream.act("event with id")
      started.answer.flow?.pause()
      for (let count = 0; count < 600; count++) started.upstream.act("event")
      expect(started.upstream.isPaused).toBe(true)
      started.upstream.fail("Closed")
      const resumption = yield* started.resumption
      resumption.head(200, "text/event-stream")
      expect(resumption.isPaused).toBe(true)
      started.answer.flow?.unpause()
      expect(resumption.isPaused).toBe(false)
    })
  )

  it("whose client has what it waits for is not gone on with", () => {
    const started = new Started(post(call(1)), "tracked")
    started.upstream.act("event with id")
    started.upstream.act("last words")
    expect(started.owner.resumptions.size).toBe(0)
    expect(started.answer).toMatchObject({ ending: "end", violations: [] })
  })

  it.effect("whose call is cancelled is not gone on with for longer than any other", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)), "tracked")
      started.upstream.act("event with id")
      started.upstream.fail("Closed")
      started.exchange.cancel(1)
      yield* started.pass(5)
      yield* settle
      expect(started.owner.resumptions.size).toBe(0)
      expect(started.answer.messages().length).toBe(1)
      expect(started.answer).toMatchObject({ ending: "end", violations: [] })
      expect(started.owner.outcomes).toEqual(["cancelled"])
    })
  )

  it.effect("is cut while it is resumed, and says why", () =>
    Effect.gen(function* () {
      const started = new Started(post(call(1)), "tracked")
      started.upstream.act("event with id")
      started.upstream.fail("Closed")
      started.exchange.cut(new SessionNotFound())
      yield* settle
      expect(started.owner.resumptions.size).toBe(0)
      expect(started.answer.messages().at(-1)).toMatchObject({ id: 1, error: { code: -32001 } })
      expect(started.answer).toMatchObject({ ending: "end", violations: [] })
    })
  )
})

describe("whatever happens to an exchange", () => {
  const request = FastCheck.constantFrom<Request>(
    post(call(1)),
    post(call("1")),
    post([call(1), call(2)]),
    post(notification("notifications/progress")),
    post(response(1)),
    post(modernCall(1, "subscriptions/listen")),
    get
  )
  type Step = (started: Started) => Effect.Effect<void>
  const now =
    (step: (started: Started) => void): Step =>
    (started) =>
      Effect.sync(() => step(started))
  const step: FastCheck.Arbitrary<Step> = FastCheck.oneof(
    {
      weight: 6,
      arbitrary: FastCheck.constantFrom(...acts).map((act) => now(({ upstream }) => upstream.act(act)))
    },
    {
      weight: 2,
      arbitrary: FastCheck.constantFrom<RequestId>(1, "1", 2).map((id) =>
        now(({ exchange }) => exchange.cancel(id))
      )
    },
    { weight: 1, arbitrary: FastCheck.constant(now((started) => started.leave())) },
    { weight: 1, arbitrary: FastCheck.constant(now((started) => void started.comeBack())) },
    {
      weight: 1,
      arbitrary: FastCheck.constantFrom(...acts).map((act) =>
        now(({ pool }) => {
          const resumption = pool.open.at(-1)
          if (resumption?.request.method === "GET") resumption.act(act)
        })
      )
    },
    { weight: 1, arbitrary: FastCheck.constant(now(({ answer }) => answer.hasLeft || answer.flow?.pause())) },
    {
      weight: 1,
      arbitrary: FastCheck.constant(now(({ answer }) => answer.hasLeft || answer.flow?.unpause()))
    },
    {
      weight: 1,
      arbitrary: FastCheck.constantFrom(1, 4, 6, 61).map(
        (seconds): Step =>
          (started) =>
            started.pass(seconds)
      )
    }
  )

  it.effect.prop(
    "it settles once, gives everything back, and tells its client one ending",
    [
      request,
      FastCheck.constantFrom<Kind>("session", "tracked", "stateless"),
      FastCheck.array(step, { maxLength: 12 })
    ],
    ([request, kind, steps]) =>
      Effect.gen(function* () {
        const started = new Started(request, kind)
        const { answer, exchange, owner, pool, upstream } = started
        for (const step of steps) {
          // Of an exchange that is over nobody is told anything any more.
          if (started.isOver) break
          yield* step(started)
        }
        exchange.cut(new ShuttingDown())
        owner.close()
        yield* settle
        expect(owner.settlements).toEqual([exchange])
        expect(owner.resumptions.size).toBe(0)
        expect(owner.retention?.totals ?? { events: 0, bytes: 0 }).toEqual({ events: 0, bytes: 0 })
        expect(owner.deadlines.size).toBe(0)
        expect(owner.inFlight).toMatchObject({ current: 0, least: 0 })
        expect(upstream.isOver).toBe(true)
        expect(pool.open).toEqual([])
        expect(started.reading.flatMap(({ violations }) => violations)).toEqual([])
        expect(answer.isOver || answer.hasLeft).toBe(true)
        if (kind === "tracked") expect(new Set(started.eventIds).size).toBe(started.eventIds.length)
        for (const id of [1, "1", 2]) expect(answer.responsesTo(id)).toBeLessThanOrEqual(1)
      }),
    { fastCheck: { numRuns: 300 } }
  )

  it.effect.prop(
    "a client that stays and cancels nothing gets one response for each request of a stream without ids",
    [
      FastCheck.array(
        FastCheck.constantFrom(
          event(response(1)),
          event(response("1")),
          event(response(2)),
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
        // What the server itself answers twice is not the proxy's affair.
        const stream = Array.from(new Set(frames)).join("")
        const { answer, exchange, upstream } = new Started(post([call(1), call("1"), call(2)]))
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
        expect([1, "1", 2].map((id) => answer.responsesTo(id))).toEqual([1, 1, 1])
        expect(answer).toMatchObject({ ending: "end", violations: [] })
      }),
    { fastCheck: { numRuns: 300 } }
  )
})
