import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/TestClock"
import { UpstreamError } from "../../src/ProxyError.js"
import { type BrokenStream, resumeStream } from "../../src/Streams/Resumption.js"
import { type TelemetryListener, silent } from "../../src/Telemetry.js"
import { type Abort, noFlow, type Sink } from "../../src/Upstream.js"
import { settle } from "../fixtures/ManualClock.js"

const name = "http://upstream.test/mcp"

/** Handles one resume request. */
type Attempt = (sink: Sink) => void

const status =
  (status: number, contentType = "application/json"): Attempt =>
  (sink) => {
    sink.head(status, { "content-type": contentType }, noFlow)
    sink.end()
  }

const unreachable: Attempt = (sink) =>
  sink.error(new UpstreamError({ reason: "Unreachable", upstream: name }))

const opens: Attempt = (sink) => sink.head(200, { "content-type": "text/event-stream" }, noFlow)

/** Sends these events and then disconnects. */
const events =
  (...texts: ReadonlyArray<string>): Attempt =>
  (sink) => {
    opens(sink)
    for (const text of texts) sink.data(Buffer.from(text))
    sink.error(new UpstreamError({ reason: "Closed", upstream: name }))
  }

const hangs: Attempt = () => {}

/** An upstream whose responses to resume requests are scripted. */
class ScriptedLease {
  /** The Last-Event-ID of each request. */
  readonly lastEventIds: Array<string | undefined> = []
  /** The time of each request, in milliseconds of the test clock. */
  readonly times: Array<number> = []
  readonly sinks: Array<Sink> = []
  aborts = 0

  constructor(
    private readonly now: () => number,
    private readonly script: (number: number) => Attempt
  ) {}

  resume(lastEventId: string | undefined, sink: Sink): Abort {
    this.lastEventIds.push(lastEventId)
    this.times.push(this.now())
    this.sinks.push(sink)
    const attempt = this.script(this.lastEventIds.length)
    queueMicrotask(() => attempt(sink))
    return () => this.aborts++
  }
}

const COMMENT = ": comment\n\n"

/** A stream that is complete after the event `last`. The text of each event is its id. */
class ScriptedStream implements BrokenStream {
  lastEventId: string | undefined = "begun"
  retryAfter: number | undefined
  progress = 0
  isComplete = false
  isResumable = true
  restarts = 0
  readonly texts: Array<string> = []

  constructor(private readonly lease: ScriptedLease) {}

  requestRest(sink: Sink): Abort {
    return this.lease.resume(this.lastEventId, sink)
  }

  restart(): void {
    this.restarts++
  }

  data(chunk: Uint8Array): void {
    const text = Buffer.from(chunk).toString()
    if (text === COMMENT) return
    this.progress++
    this.texts.push(text)
    this.lastEventId = text
    this.isComplete ||= text === "last"
  }
}

interface Options {
  /** The random number of each delay, from 0 for none to 1 for the longest. Default: 1. */
  readonly random?: number
  readonly retryAfter?: number
  readonly telemetry?: TelemetryListener
}

const start = (script: (number: number) => Attempt, options: Options = {}) =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const lease = new ScriptedLease(() => clock.unsafeCurrentTimeMillis(), script)
    const stream = new ScriptedStream(lease)
    stream.retryAfter = options.retryAfter
    const fiber = yield* Effect.fork(
      Effect.withRandomFixed(resumeStream(stream, options.telemetry ?? silent), [options.random ?? 1])
    )
    return { lease, stream, fiber }
  })

/** The delay before each attempt, in milliseconds. */
const delays = ({ times }: ScriptedLease): ReadonlyArray<number> =>
  times.map((time, index) => time - (times[index - 1] ?? 0))

describe("a broken stream", () => {
  it.effect("is resumed after its last event until it is complete", () =>
    Effect.gen(function* () {
      let resumed = 0
      const attempts = [events("a", "b"), events("c"), events("last")]
      const { fiber, lease, stream } = yield* start((number) => attempts[number - 1] ?? hangs, {
        telemetry: { ...silent, streamResumed: () => resumed++ }
      })
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(fiber)).toBe(true)
      expect(lease.lastEventIds).toEqual(["begun", "b", "c"])
      expect(stream.texts).toEqual(["a", "b", "c", "last"])
      expect(stream.restarts).toBe(3)
      expect(resumed).toBe(3)
    })
  )

  it.effect("is closed when it is complete, although the upstream keeps it open", () =>
    Effect.gen(function* () {
      const { fiber, lease } = yield* start(() => (sink) => {
        opens(sink)
        sink.data(Buffer.from("last"))
      })
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(fiber)).toBe(true)
      expect(lease.aborts).toBe(1)
    })
  )

  it.effect("is given up after ten failed attempts, with delays from 200 ms to 30 s", () =>
    Effect.gen(function* () {
      const { fiber, lease, stream } = yield* start(() => unreachable)
      yield* TestClock.adjust("10 minutes")
      expect(yield* Fiber.join(fiber)).toBe(false)
      expect(delays(lease)).toEqual([200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000])
      expect(stream.restarts).toBe(0)
    })
  )

  it.effect("is resumed after a random part of the delay", () =>
    Effect.gen(function* () {
      const none = yield* start(() => unreachable, { random: 0 })
      expect(yield* Fiber.join(none.fiber)).toBe(false)
      expect(delays(none.lease)).toEqual(Array.from({ length: 10 }, () => 0))
      const half = yield* start(() => unreachable, { random: 0.5 })
      yield* TestClock.adjust("10 minutes")
      expect(delays(half.lease).slice(0, 4)).toEqual([100, 200, 400, 800])
    })
  )

  it.effect("is resumed after the retry time of the upstream and the delay", () =>
    Effect.gen(function* () {
      const { lease } = yield* start(() => unreachable, { retryAfter: 3_000 })
      yield* TestClock.adjust("1 minute")
      expect(delays(lease).slice(0, 4)).toEqual([3_200, 3_400, 3_800, 4_600])
    })
  )

  it.effect("is resumed after at most 5 min, even if the retry time is longer", () =>
    Effect.gen(function* () {
      const { lease } = yield* start(() => unreachable, { retryAfter: 1e12 })
      yield* TestClock.adjust("6 minutes")
      expect(delays(lease)).toEqual([300_200])
    })
  )

  it.effect.each(["Unsupported", "Redirected"] as const)(
    "is given up immediately after an error that no attempt can fix: %s",
    (reason) =>
      Effect.gen(function* () {
        const { fiber, lease } = yield* start(
          () => (sink) => sink.error(new UpstreamError({ reason, upstream: name }))
        )
        yield* TestClock.adjust("1 minute")
        expect(yield* Fiber.join(fiber)).toBe(false)
        expect(lease.lastEventIds).toHaveLength(1)
      })
  )

  it.effect("is resumed without a limit as long as new events arrive", () =>
    Effect.gen(function* () {
      const script = (number: number): Attempt =>
        number === 200 ? events("last") : number % 5 === 0 ? events(String(number)) : unreachable
      const { fiber, lease } = yield* start(script)
      yield* TestClock.adjust("10 minutes")
      expect(yield* Fiber.join(fiber)).toBe(true)
      expect(lease.lastEventIds).toHaveLength(200)
      expect(delays(lease).slice(4, 10)).toEqual([3_200, 200, 400, 800, 1_600, 3_200])
    })
  )

  it.effect("is resumed again after 409, 5xx and connection errors", () =>
    Effect.gen(function* () {
      const attempts = [status(409), status(503), status(500), unreachable, events("last")]
      const { fiber, lease, stream } = yield* start((number) => attempts[number - 1] ?? hangs)
      yield* TestClock.adjust("1 minute")
      expect(yield* Fiber.join(fiber)).toBe(true)
      expect(lease.lastEventIds).toHaveLength(5)
      expect(stream.texts).toEqual(["last"])
    })
  )

  it.effect("is given up after ten attempts without new events", () =>
    Effect.gen(function* () {
      const { fiber, lease, stream } = yield* start(() => events(COMMENT))
      yield* TestClock.adjust("10 minutes")
      expect(yield* Fiber.join(fiber)).toBe(false)
      expect(lease.lastEventIds).toHaveLength(10)
      expect(stream.restarts).toBe(10)
    })
  )

  it.effect("is given up immediately after a final refusal, the body of which is not read", () =>
    Effect.gen(function* () {
      for (const attempt of [status(400), status(404), status(405), status(200), status(202, "text/plain")]) {
        const { fiber, lease, stream } = yield* start(() => attempt)
        yield* TestClock.adjust("1 second")
        expect(yield* Fiber.join(fiber)).toBe(false)
        expect(lease.lastEventIds).toHaveLength(1)
        expect(stream).toMatchObject({ restarts: 0, texts: [] })
      }
    })
  )

  it.effect("is aborted when its fiber is interrupted, before and during an attempt", () =>
    Effect.gen(function* () {
      const waiting = yield* start(() => hangs)
      yield* TestClock.adjust("100 millis")
      yield* Fiber.interrupt(waiting.fiber)
      yield* TestClock.adjust("1 minute")
      expect(waiting.lease.lastEventIds).toEqual([])

      const requested = yield* start(() => hangs)
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(requested.fiber)
      expect(requested.lease.aborts).toBe(1)

      const open = yield* start(() => opens)
      yield* TestClock.adjust("1 second")
      open.lease.sinks[0]?.data(Buffer.from("a"))
      yield* settle
      yield* Fiber.interrupt(open.fiber)
      yield* TestClock.adjust("1 minute")
      expect(open.lease).toMatchObject({ aborts: 1, lastEventIds: ["begun"] })
    })
  )
})
