import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { type HeldAnswer, relayInitialize } from "../../src/UpstreamSession/Initialize.js"
import { Deadlines } from "../../src/internal/deadlines.js"
import { UpstreamError } from "../../src/ProxyError.js"
import { CountingPool } from "../fixtures/CountingPool.js"
import { ManualClock, settle } from "../fixtures/ManualClock.js"
import { RecordedResponse } from "../fixtures/RecordedResponse.js"
import { initialize, initializeResult, notification, post, responseTo } from "../fixtures/requests.js"
import type { ScriptedExchange } from "../fixtures/ScriptedExchange.js"

const initializeResponse = JSON.stringify(responseTo(0, initializeResult))
const log = JSON.stringify(notification("notifications/message"))
const frame = (json: string, end = "\n") => `event: message${end}data: ${json}${end}${end}`

/** Relays `initialize` to an upstream that follows a script. */
const relay = (script: (exchange: ScriptedExchange) => void) =>
  Effect.gen(function* () {
    const clock = new ManualClock()
    const deadlines = new Deadlines(clock)
    const pool = new CountingPool()
    const fiber = yield* Effect.fork(relayInitialize(pool, post(initialize()), deadlines))
    yield* settle
    const [exchange] = pool.exchanges
    if (exchange === undefined) return yield* Effect.dieMessage("the upstream got no request")
    script(exchange)
    yield* settle
    const exit = Option.getOrUndefined(yield* Fiber.poll(fiber))
    return { clock, deadlines, exchange, exit, fiber, pool }
  })

const sendStream = (exchange: ScriptedExchange, ...chunks: ReadonlyArray<string>) => {
  exchange.head(200, "text/event-stream")
  for (const chunk of chunks) exchange.data(chunk)
}

/** Releases a held response and records it. */
const release = (exit: Exit.Exit<HeldAnswer, UpstreamError> | undefined) => {
  const recorded = new RecordedResponse()
  if (exit !== undefined && Exit.isSuccess(exit))
    exit.value.release({
      head: (status, headers, flow) =>
        recorded.head(status, { "content-type": headers["content-type"] ?? "" }, flow),
      data: (chunk) => recorded.data(chunk),
      end: () => recorded.end(),
      error: (error) => recorded.error(error)
    })
  return recorded
}

describe("the response to initialize", () => {
  it.effect("is held until it is complete and passed on unchanged, if it is JSON", () =>
    Effect.gen(function* () {
      const half = yield* relay((exchange) => {
        exchange.head(200, "application/json")
        exchange.data(initializeResponse.slice(0, 20))
      })
      expect(half.exit).toBeUndefined()
      half.exchange.data(initializeResponse.slice(20))
      half.exchange.finish()
      const whole = yield* Fiber.await(half.fiber)
      expect(whole).toMatchObject({ _tag: "Success", value: { result: initializeResult } })
      expect(release(whole)).toMatchObject({
        status: 200,
        text: initializeResponse,
        ending: "end",
        violations: []
      })
      expect(half.deadlines.size).toBe(0)
    })
  )

  it.effect.each<readonly [string, string]>([
    ["is in a stream", frame(initializeResponse)],
    ["follows other messages", frame(log) + frame(initializeResponse)],
    ["follows a priming event", `id: 1\ndata:\n\n${frame(initializeResponse)}`],
    ["has CRLF line ends", frame(initializeResponse, "\r\n")],
    ["has CR line ends", frame(initializeResponse, "\r")],
    ["is in a batch", frame(`[${initializeResponse}]`)]
  ])("succeeds when the result arrives, and the stream continues, if it %s", ([, text]) =>
    Effect.gen(function* () {
      const { deadlines, exchange, exit } = yield* relay((exchange) => sendStream(exchange, text))
      expect(exit).toMatchObject({ _tag: "Success", value: { result: initializeResult } })
      const recorded = release(exit)
      exchange.data(frame(log))
      exchange.finish()
      expect(recorded).toMatchObject({ text: text + frame(log), ending: "end", violations: [] })
      expect(deadlines.size).toBe(0)
    })
  )

  it.effect.prop(
    "is found in a stream and passed on byte for byte, for arbitrary chunks",
    [
      FastCheck.constantFrom("\n", "\r\n", "\r"),
      FastCheck.array(FastCheck.integer({ min: 1, max: 30 }), { maxLength: 30 }),
      FastCheck.nat({ max: 2 })
    ],
    ([end, lengths, others]) =>
      Effect.gen(function* () {
        const text = frame(log, end).repeat(others) + frame(initializeResponse, end)
        const chunks: Array<string> = []
        let start = 0
        for (const length of lengths) {
          chunks.push(text.slice(start, start + length))
          start += length
        }
        const { exit } = yield* relay((exchange) => sendStream(exchange, ...chunks, text.slice(start)))
        expect(exit).toMatchObject({ _tag: "Success", value: { result: initializeResult } })
        expect(release(exit).text).toBe(text)
      })
  )

  it.effect("is passed on without a result, if it is a JSON-RPC error", () =>
    Effect.gen(function* () {
      const { exit } = yield* relay((exchange) => exchange.perform("error response"))
      expect(exit).toMatchObject({ _tag: "Success", value: { result: undefined } })
      expect(release(exit)).toMatchObject({ status: 200, ending: "end" })
    })
  )

  it.effect.each([401, 403, 404, 405, 500])("is passed on complete, if it has the status %d", (status) =>
    Effect.gen(function* () {
      const { exchange, exit, fiber } = yield* relay((exchange) => {
        exchange.head(status, "text/plain")
        exchange.data("no")
      })
      expect(exit).toBeUndefined()
      exchange.finish()
      const whole = yield* Fiber.await(fiber)
      expect(whole).toMatchObject({ _tag: "Success", value: { result: undefined } })
      expect(release(whole)).toMatchObject({ status, text: "no", ending: "end" })
    })
  )

  it.effect("is passed on without a result, if a stream with a result has an error status", () =>
    Effect.gen(function* () {
      const { exchange, fiber } = yield* relay((exchange) => {
        exchange.head(404, "text/event-stream")
        exchange.data(frame(initializeResponse))
      })
      exchange.finish()
      const whole = yield* Fiber.await(fiber)
      expect(whole).toMatchObject({ _tag: "Success", value: { result: undefined } })
      expect(release(whole)).toMatchObject({ status: 404, text: frame(initializeResponse), ending: "end" })
    })
  )

  it.effect.each([
    ["is not MCP", (exchange: ScriptedExchange) => exchange.perform("not MCP")],
    ["is empty", (exchange: ScriptedExchange) => exchange.perform("accepted")],
    [
      "has no protocol version",
      (exchange: ScriptedExchange) => sendStream(exchange, frame(JSON.stringify(responseTo(0))))
    ],
    [
      "is a stream that ends without a result",
      (exchange: ScriptedExchange) => {
        sendStream(exchange, frame(log))
        exchange.finish()
      }
    ],
    [
      "is larger than the limit",
      (exchange: ScriptedExchange) => {
        exchange.head(200, "application/json")
        for (let count = 0; count < 5; count++) exchange.data("x".repeat(1024 * 1024))
      }
    ]
  ] as const)("fails and ends its exchange, if it %s", ([, script]) =>
    Effect.gen(function* () {
      const { deadlines, exchange, exit } = yield* relay(script)
      expect(exit).toMatchObject({ _tag: "Failure", cause: { error: { reason: "NotMcp" } } })
      expect(exchange.hasEnded).toBe(true)
      expect(deadlines.size).toBe(0)
    })
  )

  it.effect("fails if it is not MCP and arrives before `exchange` returns", () =>
    Effect.gen(function* () {
      const pool = new CountingPool()
      pool.onExchange = (exchange) => sendStream(exchange, frame(JSON.stringify(responseTo(0))))
      const exit = yield* Effect.exit(
        relayInitialize(pool, post(initialize()), new Deadlines(new ManualClock()))
      )
      expect(exit).toMatchObject({ _tag: "Failure", cause: { error: { reason: "NotMcp" } } })
      expect(pool.openExchanges).toEqual([])
    })
  )

  it.effect("fails with the error of the upstream", () =>
    Effect.gen(function* () {
      const { exit, pool } = yield* relay((exchange) => exchange.fail("Unreachable"))
      expect(exit).toEqual(Exit.fail(new UpstreamError({ reason: "Unreachable", upstream: pool.name })))
    })
  )

  it.effect("aborts its exchange when it is interrupted", () =>
    Effect.gen(function* () {
      const { deadlines, exchange, fiber } = yield* relay((exchange) => exchange.perform("open stream"))
      yield* Fiber.interrupt(fiber)
      expect(exchange.isAborted).toBe(true)
      expect(deadlines.size).toBe(0)
    })
  )

  it.effect("has no limit on the silence of a stream", () =>
    Effect.gen(function* () {
      const { clock, deadlines, exchange } = yield* relay((exchange) => exchange.perform("open stream"))
      yield* clock.advance("1 hour")
      deadlines.sweep()
      expect(exchange.isAborted).toBe(false)
    })
  )

  it.effect("fails with 504 if it stalls in the middle of its JSON", () =>
    Effect.gen(function* () {
      const { clock, deadlines, exchange, fiber } = yield* relay((exchange) =>
        exchange.perform("partial json")
      )
      yield* clock.advance("5 minutes")
      deadlines.sweep()
      expect(yield* Fiber.await(fiber)).toMatchObject({
        _tag: "Failure",
        cause: { error: { reason: "Stalled", status: 504 } }
      })
      expect(exchange.isAborted).toBe(true)
    })
  )
})

describe("a held response stream", () => {
  it.effect.each([
    ["the end", (exchange: ScriptedExchange) => exchange.finish(), "end"],
    ["a failure", (exchange: ScriptedExchange) => exchange.fail("Closed"), { reason: "Closed" }]
  ] as const)("passes on %s of the stream after its release", ([, script, ending]) =>
    Effect.gen(function* () {
      const { exit } = yield* relay((exchange) => {
        sendStream(exchange, frame(initializeResponse))
        script(exchange)
      })
      const recorded = release(exit)
      expect(recorded.text).toBe(frame(initializeResponse))
      expect(recorded).toMatchObject({ ending, violations: [] })
    })
  )

  it.effect("passes on the events after the result unparsed", () =>
    Effect.gen(function* () {
      const wrong = frame(JSON.stringify(responseTo(5)))
      const { exchange, exit } = yield* relay((exchange) =>
        sendStream(exchange, frame(initializeResponse), wrong)
      )
      expect(exchange.hasEnded).toBe(false)
      expect(release(exit).text).toBe(frame(initializeResponse) + wrong)
    })
  )

  it.effect("is aborted if it is over the limit", () =>
    Effect.gen(function* () {
      const { exchange, exit } = yield* relay((exchange) => {
        sendStream(exchange, frame(initializeResponse))
        for (let count = 0; count < 5; count++) exchange.data("x".repeat(1024 * 1024))
      })
      expect(exchange.isAborted).toBe(true)
      expect(release(exit).hasEnded).toBe(true)
    })
  )
})
