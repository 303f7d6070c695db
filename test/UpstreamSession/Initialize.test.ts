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
const notice = JSON.stringify(notification("notifications/message"))
const frame = (json: string, end = "\n") => `event: message${end}data: ${json}${end}${end}`

/** An `initialize` that is sent, and what the upstream does meanwhile. */
const held = (script: (exchange: ScriptedExchange) => void) =>
  Effect.gen(function* () {
    const clock = new ManualClock()
    const deadlines = new Deadlines(clock)
    const pool = new CountingPool()
    const fiber = yield* Effect.fork(relayInitialize(pool, post(initialize()), deadlines))
    yield* settle
    const [exchange] = pool.exchanges
    if (exchange === undefined) return yield* Effect.dieMessage("nothing was asked")
    script(exchange)
    yield* settle
    const exit = Option.getOrUndefined(yield* Fiber.poll(fiber))
    return { clock, deadlines, exchange, exit, fiber, pool }
  })

const streams = (exchange: ScriptedExchange, ...chunks: ReadonlyArray<string>) => {
  exchange.head(200, "text/event-stream")
  for (const chunk of chunks) exchange.data(chunk)
}

const releases = (exit: Exit.Exit<HeldAnswer, UpstreamError> | undefined) => {
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

describe("the initializeResponse to initialize", () => {
  it.effect("in JSON is held until it is whole, and passed on as it came", () =>
    Effect.gen(function* () {
      const half = yield* held((exchange) => {
        exchange.head(200, "application/json")
        exchange.data(initializeResponse.slice(0, 20))
      })
      expect(half.exit).toBeUndefined()
      half.exchange.data(initializeResponse.slice(20))
      half.exchange.finish()
      const whole = yield* Fiber.await(half.fiber)
      expect(whole).toMatchObject({ _tag: "Success", value: { result: initializeResult } })
      expect(releases(whole)).toMatchObject({
        status: 200,
        text: initializeResponse,
        ending: "end",
        violations: []
      })
      expect(half.deadlines.size).toBe(0)
    })
  )

  it.effect.each<readonly [string, string]>([
    ["in a stream", frame(initializeResponse)],
    ["behind other messages", frame(notice) + frame(initializeResponse)],
    ["behind a priming event", `id: 1\ndata:\n\n${frame(initializeResponse)}`],
    ["with CRLF", frame(initializeResponse, "\r\n")],
    ["with CR", frame(initializeResponse, "\r")],
    ["in a batch", frame(`[${initializeResponse}]`)]
  ])("%s is known as soon as it has come, and the stream goes on", ([, text]) =>
    Effect.gen(function* () {
      const { deadlines, exchange, exit } = yield* held((exchange) => streams(exchange, text))
      expect(exit).toMatchObject({ _tag: "Success", value: { result: initializeResult } })
      const recorded = releases(exit)
      exchange.data(frame(notice))
      exchange.finish()
      expect(recorded).toMatchObject({ text: text + frame(notice), ending: "end", violations: [] })
      expect(deadlines.size).toBe(0)
    })
  )

  it.effect.prop(
    "in a stream is found and passed on byte for byte, however it is cut",
    [
      FastCheck.constantFrom("\n", "\r\n", "\r"),
      FastCheck.array(FastCheck.integer({ min: 1, max: 30 }), { maxLength: 30 }),
      FastCheck.nat({ max: 2 })
    ],
    ([end, lengths, others]) =>
      Effect.gen(function* () {
        const text = frame(notice, end).repeat(others) + frame(initializeResponse, end)
        const chunks: Array<string> = []
        let start = 0
        for (const length of lengths) {
          chunks.push(text.slice(start, start + length))
          start += length
        }
        const { exit } = yield* held((exchange) => streams(exchange, ...chunks, text.slice(start)))
        expect(exit).toMatchObject({ _tag: "Success", value: { result: initializeResult } })
        expect(releases(exit).text).toBe(text)
      })
  )

  it.effect("that is a JSON-RPC error is passed on, without a result", () =>
    Effect.gen(function* () {
      const { exit } = yield* held((exchange) => exchange.perform("error response"))
      expect(exit).toMatchObject({ _tag: "Success", value: { result: undefined } })
      expect(releases(exit)).toMatchObject({ status: 200, ending: "end" })
    })
  )

  it.effect.each([401, 403, 404, 405, 500])(
    "with the status %d is passed on whole, whatever it is",
    (status) =>
      Effect.gen(function* () {
        const { exchange, exit, fiber } = yield* held((exchange) => {
          exchange.head(status, "text/plain")
          exchange.data("no")
        })
        expect(exit).toBeUndefined()
        exchange.finish()
        const whole = yield* Fiber.await(fiber)
        expect(whole).toMatchObject({ _tag: "Success", value: { result: undefined } })
        expect(releases(whole)).toMatchObject({ status, text: "no", ending: "end" })
      })
  )

  it.effect("with a status of failure opens nothing, though a result be in it", () =>
    Effect.gen(function* () {
      const { exchange, fiber } = yield* held((exchange) => {
        exchange.head(404, "text/event-stream")
        exchange.data(frame(initializeResponse))
      })
      exchange.finish()
      const whole = yield* Fiber.await(fiber)
      expect(whole).toMatchObject({ _tag: "Success", value: { result: undefined } })
      expect(releases(whole)).toMatchObject({ status: 404, text: frame(initializeResponse), ending: "end" })
    })
  )

  it.effect.each([
    ["is no MCP", (exchange: ScriptedExchange) => exchange.perform("not MCP")],
    ["is empty", (exchange: ScriptedExchange) => exchange.perform("accepted")],
    [
      "names no revision",
      (exchange: ScriptedExchange) => streams(exchange, frame(JSON.stringify(responseTo(0))))
    ],
    [
      "is a stream that ends without it",
      (exchange: ScriptedExchange) => {
        streams(exchange, frame(notice))
        exchange.finish()
      }
    ],
    [
      "is larger than what is held",
      (exchange: ScriptedExchange) => {
        exchange.head(200, "application/json")
        for (let count = 0; count < 5; count++) exchange.data("x".repeat(1024 * 1024))
      }
    ]
  ] as const)("that %s is a failure, and the exchange is over", ([, script]) =>
    Effect.gen(function* () {
      const { deadlines, exchange, exit } = yield* held(script)
      expect(exit).toMatchObject({ _tag: "Failure", cause: { error: { reason: "NotMcp" } } })
      expect(exchange.hasEnded).toBe(true)
      expect(deadlines.size).toBe(0)
    })
  )

  it.effect("that is no MCP is given up even when it comes before the request has returned", () =>
    Effect.gen(function* () {
      const pool = new CountingPool()
      pool.onExchange = (exchange) => streams(exchange, frame(JSON.stringify(responseTo(0))))
      const exit = yield* Effect.exit(
        relayInitialize(pool, post(initialize()), new Deadlines(new ManualClock()))
      )
      expect(exit).toMatchObject({ _tag: "Failure", cause: { error: { reason: "NotMcp" } } })
      expect(pool.openExchanges).toEqual([])
    })
  )

  it.effect("an upstream's failure is passed on as it is", () =>
    Effect.gen(function* () {
      const { exit, pool } = yield* held((exchange) => exchange.fail("Unreachable"))
      expect(exit).toEqual(Exit.fail(new UpstreamError({ reason: "Unreachable", upstream: pool.name })))
    })
  )

  it.effect("an interruption gives the exchange up", () =>
    Effect.gen(function* () {
      const { deadlines, exchange, fiber } = yield* held((exchange) => exchange.perform("open stream"))
      yield* Fiber.interrupt(fiber)
      expect(exchange.isAborted).toBe(true)
      expect(deadlines.size).toBe(0)
    })
  )

  it.effect("may be silent on a stream for as long as its server works on it", () =>
    Effect.gen(function* () {
      const { clock, deadlines, exchange } = yield* held((exchange) => exchange.perform("open stream"))
      yield* clock.advance("1 hour")
      deadlines.sweep()
      expect(exchange.isAborted).toBe(false)
    })
  )

  it.effect("that stops in the middle of its JSON is given up", () =>
    Effect.gen(function* () {
      const { clock, deadlines, exchange, fiber } = yield* held((exchange) =>
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

describe("between the first message and the session", () => {
  it.effect.each([
    ["the end", (exchange: ScriptedExchange) => exchange.finish(), "end"],
    ["a failure", (exchange: ScriptedExchange) => exchange.fail("Closed"), { reason: "Closed" }]
  ] as const)("%s of the stream is kept", ([, script, ending]) =>
    Effect.gen(function* () {
      const { exit } = yield* held((exchange) => {
        streams(exchange, frame(initializeResponse))
        script(exchange)
      })
      const recorded = releases(exit)
      expect(recorded.text).toBe(frame(initializeResponse))
      expect(recorded).toMatchObject({ ending, violations: [] })
    })
  )

  it.effect("what more comes is kept, and read by nobody", () =>
    Effect.gen(function* () {
      const wrong = frame(JSON.stringify(responseTo(5)))
      const { exchange, exit } = yield* held((exchange) =>
        streams(exchange, frame(initializeResponse), wrong)
      )
      expect(exchange.hasEnded).toBe(false)
      expect(releases(exit).text).toBe(frame(initializeResponse) + wrong)
    })
  )

  it.effect("more than can be held cuts the initializeResponse off", () =>
    Effect.gen(function* () {
      const { exchange, exit } = yield* held((exchange) => {
        streams(exchange, frame(initializeResponse))
        for (let count = 0; count < 5; count++) exchange.data("x".repeat(1024 * 1024))
      })
      expect(exchange.isAborted).toBe(true)
      expect(releases(exit).hasEnded).toBe(true)
    })
  )
})
