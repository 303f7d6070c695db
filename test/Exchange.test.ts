import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { SessionNotFound, ShuttingDown } from "../src/ProxyError.js"
import { noFlow } from "../src/Upstream.js"
import { eventOf } from "./fixtures/events.js"
import { call, getRequest, notification, post, responseTo } from "./fixtures/requests.js"
import { StartedExchange } from "./fixtures/StartedExchange.js"

describe("a JSON response", () => {
  it("reaches the client chunk by chunk, with the proxy's session id", () => {
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

  it.effect("fails after a minute without data between its head and its end", () =>
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

  it.effect("has no stall timeout while the client does not read", () =>
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

  it("fails with the upstream's error, without a head, if the upstream fails before its head", () => {
    const { response, context, upstream } = new StartedExchange(post(call(1)))
    upstream.perform("timeout")
    expect(response).toMatchObject({ status: 0, violations: [] })
    expect(response.failure).toMatchObject({ reason: "ResponseTimeout" })
    expect(context.failures).toMatchObject([{ reason: "ResponseTimeout" }])
  })

  it("fails if the upstream fails after its head", () => {
    const { response, upstream } = new StartedExchange(post(call(1)))
    upstream.perform("partial json")
    upstream.perform("fail")
    expect(response.failure).toMatchObject({ reason: "Closed" })
  })

  it("is passed through unparsed if it is a compressed event stream", () => {
    const { response, exchange } = new StartedExchange(post(call(1)))
    exchange.head(200, { "content-type": "text/event-stream", "content-encoding": "gzip" }, noFlow)
    exchange.data(Buffer.from("half"))
    expect(response.text).toBe("half")
  })
})

describe("an event stream", () => {
  it("reaches the client in complete frames, with headers that prevent buffering", () => {
    const { response, exchange, upstream } = new StartedExchange(post(call(1)))
    exchange.head(200, { "content-type": "text/event-stream; charset=utf-8", "content-length": "99" }, noFlow)
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

  it.effect("contains keep-alive comments while it is silent, only between two frames", () =>
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

  it.effect("has no limit on silence", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)))
      started.upstream.perform("open stream")
      yield* started.advance(10_000)
      expect(started.response.hasEnded).toBe(false)
    })
  )

  it.each([
    ["in the same chunk as a comment", [eventOf(responseTo("a")) + ": bye\n\n"]],
    ["in the chunk before a comment", [eventOf(responseTo("a")), ": bye\n\n"]],
    ["before a notification", [eventOf(responseTo("a")), eventOf(notification("notifications/message"))]],
    ["in two chunks", [eventOf(responseTo("a")).slice(0, 30), eventOf(responseTo("a")).slice(30)]],
    ["as an error", [eventOf({ jsonrpc: "2.0", id: "a", error: { code: 1, message: "no" } })]]
  ])("ends unchanged if it contains the response %s", (_, chunks) => {
    const { response, upstream } = new StartedExchange(post(call("a")))
    upstream.head(200, "text/event-stream")
    for (const chunk of chunks) upstream.data(chunk)
    upstream.finish()
    expect(response).toMatchObject({ text: chunks.join(""), ending: "end" })
  })

  it("ends with an error for the request if it ends without the response", () => {
    const { response, upstream } = new StartedExchange(post(call("a")))
    upstream.perform("event")
    upstream.finish()
    expect(response.messages.at(-1)).toMatchObject({ id: "a", error: { code: -32000 } })
    expect(response).toMatchObject({ ending: "end", violations: [] })
  })

  it.each(["finish", "fail"] as const)(
    "ends with an error for each request of a batch without a response (%s)",
    (how) => {
      const { response, upstream } = new StartedExchange(
        post([call(1), call("1"), notification("x"), call(2)])
      )
      upstream.head(200, "text/event-stream")
      upstream.data(eventOf(responseTo("1")))
      upstream.data(eventOf(responseTo(2)))
      if (how === "finish") upstream.finish()
      else upstream.fail("Closed")
      expect(response.messages.map(({ error, id }) => [id, error === undefined])).toEqual([
        ["1", true],
        [2, true],
        [1, false]
      ])
    }
  )

  it("may contain all responses to a batch in one event", () => {
    const { response, upstream } = new StartedExchange(post([call(1), call(2)]))
    upstream.head(200, "text/event-stream")
    upstream.data(eventOf([responseTo(1), responseTo(2)]))
    upstream.finish()
    expect(response.messages.length).toBe(2)
  })

  it.each(["end", "fail"] as const)("ends without an error if the client can resume it (%s)", (how) => {
    const { response, upstream } = new StartedExchange(post(call(1)))
    upstream.perform("event with id")
    upstream.perform(how)
    expect(response.messages.length).toBe(1)
    expect(response).toMatchObject({ ending: "end", violations: [] })
  })

  it.each(["finish", "fail"] as const)(
    "ends without an error if it contained a frame too large to parse, which may be the response (%s)",
    (how) => {
      const { response, upstream } = new StartedExchange(post(call(1)))
      upstream.head(200, "text/event-stream")
      const large = eventOf(responseTo(1, { text: "x".repeat(3 * 1024 * 1024) }))
      for (let start = 0; start < large.length; start += 1024 * 1024)
        upstream.data(large.slice(start, start + 1024 * 1024))
      if (how === "finish") upstream.finish()
      else upstream.fail("Closed")
      expect(response.text).toBe(large)
      expect(response.ending).toBe("end")
    }
  )

  it("fails without an error event inside a frame that is too large to hold", () => {
    const { response, upstream } = new StartedExchange(post(call(1)))
    upstream.head(200, "text/event-stream")
    upstream.data(`data: ${"x".repeat(2 * 1024 * 1024)}`)
    upstream.fail("Closed")
    expect(response.failure).toMatchObject({ reason: "Closed" })
  })
})

describe("cut", () => {
  it("fails the response with the reason before its head", () => {
    const { response, exchange, upstream } = new StartedExchange(post(call(1)))
    exchange.cut(new ShuttingDown())
    expect(response.ending).toEqual(new ShuttingDown())
    expect(upstream.isAborted).toBe(true)
  })

  it("adds an error with the reason for each pending request of a stream", () => {
    const { response, exchange, upstream } = new StartedExchange(post([call(1), call(2)]))
    upstream.head(200, "text/event-stream")
    upstream.data(eventOf(responseTo(1)))
    exchange.cut(new SessionNotFound())
    expect(response.messages).toMatchObject([
      { id: 1, result: {} },
      { id: 2, error: { code: -32001 } }
    ])
    expect(response.ending).toBe("end")
  })

  it("ends the standalone stream of a session without an error", () => {
    const { response, exchange, upstream } = new StartedExchange(getRequest)
    upstream.perform("event")
    exchange.cut(new ShuttingDown())
    expect(response.messages.length).toBe(1)
    expect(response.ending).toBe("end")
  })

  it("fails a standalone stream that has no head", () => {
    const { response, exchange } = new StartedExchange(getRequest)
    exchange.cut(new ShuttingDown())
    expect(response.ending).toEqual(new ShuttingDown())
  })

  it("does nothing after the exchange has ended", () => {
    const started = new StartedExchange(post(call(1)))
    started.upstream.perform("json")
    started.exchange.cut(new ShuttingDown())
    started.exchange.disconnect()
    expect(started.context.settlements.length).toBe(1)
    expect(started.response.violations).toEqual([])
  })
})
