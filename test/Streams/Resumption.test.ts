import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/TestClock"
import { UpstreamError } from "../../src/ProxyError.js"
import { type BrokenStream, resumeStream } from "../../src/Streams/Resumption.js"
import { type TelemetryListener, silent } from "../../src/Telemetry.js"
import type { Abort, Flow, Sink } from "../../src/Upstream.js"
import { settle } from "../fixtures/ManualClock.js"

const name = "http://upstream.test/mcp"

/** What an upstream does with one attempt. */
type UpstreamAction = (sink: Sink) => void

const noFlow: Flow = { pause: () => {}, unpause: () => {} }

const status =
  (status: number, contentType = "application/json"): UpstreamAction =>
  (sink) => {
    sink.head(status, { "content-type": contentType }, noFlow)
    sink.end()
  }

const unreachable: UpstreamAction = (sink) =>
  sink.error(new UpstreamError({ reason: "Unreachable", upstream: name }))

const opened: UpstreamAction = (sink) => sink.head(200, { "content-type": "text/event-stream" }, noFlow)

/** Brings these events, and breaks again. */
const events =
  (...texts: ReadonlyArray<string>): UpstreamAction =>
  (sink) => {
    opened(sink)
    for (const text of texts) sink.data(Buffer.from(text))
    sink.error(new UpstreamError({ reason: "Closed", upstream: name }))
  }

const hangs: UpstreamAction = () => {}

/** An upstream that goes on with a stream as it is told, attempt by attempt. */
class ScriptedLease {
  /** The ids that it was asked to go on behind. */
  readonly lastEventIds: Array<string | undefined> = []
  /** When, by the clock of the test. */
  readonly times: Array<number> = []
  readonly sinks: Array<Sink> = []
  aborts = 0

  constructor(
    private readonly now: () => number,
    private readonly script: (attempt: number) => UpstreamAction
  ) {}

  resume(lastEventId: string | undefined, sink: Sink): Abort {
    this.lastEventIds.push(lastEventId)
    this.times.push(this.now())
    this.sinks.push(sink)
    const act = this.script(this.lastEventIds.length)
    queueMicrotask(() => act(sink))
    return () => this.aborts++
  }
}

const COMMENT = ": nothing new\n\n"

/** A stream that is complete with the event `last`. Each event is its own id. */
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
  /** Where in its bounds each delay lies, from 0 to 1: at the longest unless told. */
  readonly chance?: number
  readonly retryAfter?: number
  readonly telemetry?: TelemetryListener
}

const start = (script: (attempt: number) => UpstreamAction, options: Options = {}) =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const lease = new ScriptedLease(() => clock.unsafeCurrentTimeMillis(), script)
    const stream = new ScriptedStream(lease)
    stream.retryAfter = options.retryAfter
    const fiber = yield* Effect.fork(
      Effect.withRandomFixed(resumeStream(stream, options.telemetry ?? silent), [options.chance ?? 1])
    )
    return { lease, stream, fiber }
  })

/** The times between one attempt and the next, the first counted from the beginning. */
const delays = ({ times }: ScriptedLease): ReadonlyArray<number> =>
  times.map((time, index) => time - (times[index - 1] ?? 0))

describe("a stream that has broken", () => {
  it.effect("goes on behind the last event that came, until nothing more is awaited", () =>
    Effect.gen(function* () {
      let resumed = 0
      const acts = [events("a", "b"), events("c"), events("last")]
      const { fiber, lease, stream } = yield* start((attempt) => acts[attempt - 1] ?? hangs, {
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

  it.effect("is left as soon as it is complete, though the upstream keeps it open", () =>
    Effect.gen(function* () {
      const { fiber, lease } = yield* start(() => (sink) => {
        opened(sink)
        sink.data(Buffer.from("last"))
      })
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(fiber)).toBe(true)
      expect(lease.aborts).toBe(1)
    })
  )

  it.effect("is asked for ten times in vain, at times that grow from 200 ms to 30 s, and then given up", () =>
    Effect.gen(function* () {
      const { fiber, lease, stream } = yield* start(() => unreachable)
      yield* TestClock.adjust("10 minutes")
      expect(yield* Fiber.join(fiber)).toBe(false)
      expect(delays(lease)).toEqual([200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000])
      expect(stream.restarts).toBe(0)
    })
  )

  it.effect("is asked for at any time before that, by chance", () =>
    Effect.gen(function* () {
      const never = yield* start(() => unreachable, { chance: 0 })
      expect(yield* Fiber.join(never.fiber)).toBe(false)
      expect(delays(never.lease)).toEqual(Array.from({ length: 10 }, () => 0))
      const half = yield* start(() => unreachable, { chance: 0.5 })
      yield* TestClock.adjust("10 minutes")
      expect(delays(half.lease).slice(0, 4)).toEqual([100, 200, 400, 800])
    })
  )

  it.effect("is left alone for as long as the upstream wants, and by chance longer", () =>
    Effect.gen(function* () {
      const { lease } = yield* start(() => unreachable, { retryAfter: 3_000 })
      yield* TestClock.adjust("1 minute")
      expect(delays(lease).slice(0, 4)).toEqual([3_200, 3_400, 3_800, 4_600])
    })
  )

  it.effect("is left alone for five minutes at the longest, whatever the upstream wants", () =>
    Effect.gen(function* () {
      const { lease } = yield* start(() => unreachable, { retryAfter: 1e12 })
      yield* TestClock.adjust("6 minutes")
      expect(delays(lease)).toEqual([300_200])
    })
  )

  it.effect.each(["Unsupported", "Redirected"] as const)(
    "is given up at once where no attempt could help: %s",
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

  it.effect("may break as often as it likes, as long as it gets on", () =>
    Effect.gen(function* () {
      const script = (attempt: number): UpstreamAction =>
        attempt === 200 ? events("last") : attempt % 5 === 0 ? events(String(attempt)) : unreachable
      const { fiber, lease } = yield* start(script)
      yield* TestClock.adjust("10 minutes")
      expect(yield* Fiber.join(fiber)).toBe(true)
      expect(lease.lastEventIds).toHaveLength(200)
      expect(delays(lease).slice(4, 10)).toEqual([3_200, 200, 400, 800, 1_600, 3_200])
    })
  )

  it.effect(
    "is asked for again where the upstream still holds the connection that broke, or has a bad moment",
    () =>
      Effect.gen(function* () {
        const acts = [status(409), status(503), status(500), unreachable, events("last")]
        const { fiber, lease, stream } = yield* start((attempt) => acts[attempt - 1] ?? hangs)
        yield* TestClock.adjust("1 minute")
        expect(yield* Fiber.join(fiber)).toBe(true)
        expect(lease.lastEventIds).toHaveLength(5)
        expect(stream.texts).toEqual(["last"])
      })
  )

  it.effect("is given up, too, where the upstream opens it each time and brings nothing new", () =>
    Effect.gen(function* () {
      const { fiber, lease, stream } = yield* start(() => events(COMMENT))
      yield* TestClock.adjust("10 minutes")
      expect(yield* Fiber.join(fiber)).toBe(false)
      expect(lease.lastEventIds).toHaveLength(10)
      expect(stream.restarts).toBe(10)
    })
  )

  it.effect("is given up at once where the upstream will not go on, and nothing of its answer is read", () =>
    Effect.gen(function* () {
      for (const act of [status(400), status(404), status(405), status(200), status(202, "text/plain")]) {
        const { fiber, lease, stream } = yield* start(() => act)
        yield* TestClock.adjust("1 second")
        expect(yield* Fiber.join(fiber)).toBe(false)
        expect(lease.lastEventIds).toHaveLength(1)
        expect(stream).toMatchObject({ restarts: 0, texts: [] })
      }
    })
  )

  it.effect("is let go of with whoever waits for it, before an attempt and during one", () =>
    Effect.gen(function* () {
      const waiting = yield* start(() => hangs)
      yield* TestClock.adjust("100 millis")
      yield* Fiber.interrupt(waiting.fiber)
      yield* TestClock.adjust("1 minute")
      expect(waiting.lease.lastEventIds).toEqual([])

      const asked = yield* start(() => hangs)
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(asked.fiber)
      expect(asked.lease.aborts).toBe(1)

      const open = yield* start(() => opened)
      yield* TestClock.adjust("1 second")
      open.lease.sinks[0]?.data(Buffer.from("a"))
      yield* settle
      yield* Fiber.interrupt(open.fiber)
      yield* TestClock.adjust("1 minute")
      expect(open.lease).toMatchObject({ aborts: 1, lastEventIds: ["begun"] })
    })
  )
})
