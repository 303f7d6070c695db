import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import { createParser } from "eventsource-parser"
import * as TestClock from "effect/TestClock"
import { vi } from "vitest"
import type { Disconnect } from "../src/ClientResponse.js"
import type { StreamWriter } from "../src/Streams/StreamWriter.js"
import { EventTracker, layerMemory, type EventTrackerOptions } from "../src/EventTracker.js"
import { Backlog } from "../src/Streams/Backlog.js"
import * as Deadlines from "../src/internal/deadlines.js"
import type { Message } from "../src/Protocol.js"
import { Streams } from "../src/Streams.js"
import { silent } from "../src/Telemetry.js"
import { noFlow } from "../src/Upstream.js"
import { RecordedAnswer } from "./fixtures/RecordedAnswer.js"

const KEEP_ALIVE = 15_000

/** The streams of one session, with a log of their own. */
const make = (options: Partial<EventTrackerOptions> = {}, retry?: number, telemetry = silent) =>
  Effect.gen(function* () {
    const tracker = yield* EventTracker
    const log = yield* tracker.open("a")
    if (log === undefined) return yield* Effect.dieMessage("nothing is kept")
    const { maxEventBytes, maxEvents } = tracker.options
    const terms = {
      deadlines: yield* Deadlines.make,
      telemetry,
      keepAlive: KEEP_ALIVE,
      retry: retry ?? 0,
      hasPrimingEvents: retry !== undefined,
      limits: { events: maxEvents, bytes: maxEventBytes },
      backlog: new Backlog()
    }
    return {
      open: (session: string) =>
        Effect.flatMap(tracker.open(session), (other) =>
          other === undefined ? Effect.die("nothing is kept") : Effect.succeed(other)
        ),
      streams: new Streams(log, terms, "the-id"),
      tracker,
      upstream: { pause: vi.fn(), unpause: vi.fn() }
    }
  }).pipe((made) =>
    Effect.flatMap(Layer.build(layerMemory(options)), (context) => Effect.provide(made, context))
  )

/** A client of one stream, which reads what its connections bring and remembers the last id. */
class Client {
  readonly texts: Array<string> = []
  readonly ids: Array<string> = []
  readonly errors: Array<Message> = []
  answer = new RecordedAnswer()
  leave: Disconnect = () => {}
  private read = 0

  constructor(private readonly streams: Streams) {}

  open(writer: StreamWriter): void {
    writer.start(this.answer, 200, { "content-type": "text/event-stream" })
    this.leave = () => writer.disconnect(this.answer)
  }

  /** Takes in what has come; what comes later on a connection that is cut is lost. */
  take(): void {
    const parser = createParser({
      onEvent: ({ data, id }) => {
        if (id !== undefined) this.ids.push(id)
        if (data.startsWith("{")) this.errors.push(JSON.parse(data))
        else if (data !== "") this.texts.push(data)
      }
    })
    parser.feed(this.answer.text.slice(this.read))
    this.read = this.answer.text.length
  }

  cut(): void {
    this.answer.goes()
    this.leave()
  }

  comeBack(id: string | undefined = this.ids.at(-1)): void {
    this.answer = new RecordedAnswer()
    this.read = 0
    this.leave = this.streams.resume(id ?? "none", this.answer)
  }
}

/** The same, with a stream that answers a request and that a client reads. */
const begun = (...how: Parameters<typeof make>) =>
  Effect.map(make(...how), (made) => {
    const client = new Client(made.streams)
    const writer = made.streams.openAnswer([1], made.upstream)
    client.open(writer)
    return { ...made, client, writer }
  })

const event = (text: string) => Buffer.from(`data: ${text}\n\n`)

describe("a stream", () => {
  it.scoped("goes on for a client that comes back, with what it missed and what comes live", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make()
      const writer = streams.openAnswer([1], upstream)
      const client = new Client(streams)
      client.open(writer)
      writer.append(event("one"), undefined)
      client.take()
      client.cut()
      writer.append(event("two"), undefined)
      client.comeBack()
      writer.append(event("three"), undefined)
      writer.end()
      client.take()
      expect(client.texts).toEqual(["one", "two", "three"])
      expect(client.answer).toMatchObject({
        status: 200,
        ending: "end",
        violations: [],
        headers: {
          "mcp-session-id": "the-id",
          "content-type": "text/event-stream",
          "x-accel-buffering": "no"
        }
      })
    })
  )

  it.scoped("counts what it tells once more", () =>
    Effect.gen(function* () {
      const replayed = vi.fn()
      const { client, writer } = yield* begun({}, undefined, { ...silent, eventsReplayed: replayed })
      for (const text of ["one", "two", "three"]) writer.append(event(text), undefined)
      client.take()
      client.cut()
      client.comeBack(client.ids[0])
      expect(replayed.mock.calls).toEqual([[2]])
    })
  )

  it.scoped("that is silent from the beginning is told to be there, without an id to begin with", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make()
      const client = new Client(streams)
      client.open(streams.openAnswer([1], upstream))
      yield* TestClock.adjust(KEEP_ALIVE + 1_000)
      expect(client.answer.text).toBe(": keep-alive\n\n")
    })
  )

  it.scoped("begins with an id and the time to wait, for clients that know them", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* begun({}, 3_000)
      expect(client.answer.text).toMatch(/^id: \S+\nretry: 3000\ndata: \n\n$/)
      client.take()
      client.cut()
      writer.append(event("one"), undefined)
      client.comeBack()
      client.take()
      expect(client.texts).toEqual(["one"])
    })
  )

  it.scoped("that is over and delivered gets 405, one of no session 400, and never 404", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* begun()
      writer.append(event("one"), undefined)
      writer.end()
      client.take()
      client.comeBack()
      expect(client.answer.failure).toMatchObject({ status: 405, reason: "StreamEnded" })
      client.comeBack("AAAAAAAAAAAA.1.1")
      expect(client.answer.failure).toMatchObject({ status: 400, reason: "UnknownEventId" })
    })
  )

  it.scoped.each([
    ["the end of which has gone out, for a minute", true],
    ["the end of which a client does not take, for as long as the session lives", false]
  ] as const)("is kept, %s", ([, reads]) =>
    Effect.gen(function* () {
      const { client, writer, tracker } = yield* begun()
      writer.append(event("one"), undefined)
      writer.append(event("two"), undefined)
      client.answer.reads = reads
      writer.end()
      client.take()
      yield* TestClock.adjust("55 seconds")
      expect(tracker.size().events).toBe(2)
      yield* TestClock.adjust("10 seconds")
      expect(tracker.size().events).toBe(reads ? 0 : 2)
      client.comeBack(client.ids[0])
      client.take()
      expect(client.texts).toEqual(reads ? ["one", "two"] : ["one", "two", "two"])
    })
  )

  it.scoped("that ended whole is not let go of while a client reads it again", () =>
    Effect.gen(function* () {
      const { client, writer, streams, tracker } = yield* begun()
      for (const text of ["one", "two", "three"]) writer.append(event(text), undefined)
      writer.end()
      client.take()
      const slow = new RecordedAnswer()
      slow.reads = false
      streams.resume(client.ids[0] ?? "none", slow)
      yield* TestClock.adjust("65 seconds")
      expect(tracker.size().events).toBe(3)
    })
  )

  it.scoped("is not taken for delivered by a client that it had before", () =>
    Effect.gen(function* () {
      const { client, writer, streams, tracker } = yield* begun()
      for (const text of ["one", "two"]) writer.append(event(text), undefined)
      let flushed = () => {}
      client.answer.end = (told = () => {}) => void (flushed = told)
      writer.end()
      client.take()
      const slow = new RecordedAnswer()
      slow.reads = false
      streams.resume(client.ids[0] ?? "none", slow)
      flushed()
      yield* TestClock.adjust("65 seconds")
      expect(tracker.size().events).toBe(2)
    })
  )

  it.scoped("gives the newest connection what comes, and ends the one before", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* begun()
      writer.append(event("one"), undefined)
      client.take()
      const before = client.answer
      client.comeBack()
      writer.append(event("two"), undefined)
      expect(before).toMatchObject({ ending: "end", violations: [] })
      client.take()
      expect(client.texts).toEqual(["one", "two"])
    })
  )

  it.scoped("of which something is gone says so once, for each of its requests, and is over then", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make({ maxEvents: 2 })
      const client = new Client(streams)
      const writer = streams.openAnswer([1, "b"], upstream)
      client.open(writer)
      writer.append(event("one"), undefined)
      client.take()
      client.cut()
      for (const text of ["two", "three", "four"]) writer.append(event(text), undefined)
      client.comeBack()
      client.take()
      expect(client.errors.map(({ id }) => id)).toEqual([1, "b"])
      expect(client.texts).toEqual(["one"])
      expect(client.answer).toMatchObject({ status: 200, ending: "end" })
      client.comeBack()
      expect(client.answer.failure).toMatchObject({ status: 405 })
      writer.append(event("five"), undefined)
      writer.end()
    })
  )

  it.scoped("without requests goes on with what is left", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make({ maxEvents: 2 })
      const client = new Client(streams)
      const writer = streams.openStandaloneStream(upstream)
      client.open(writer)
      writer.append(event("one"), undefined)
      client.take()
      client.cut()
      for (const text of ["two", "three", "four"]) writer.append(event(text), undefined)
      client.comeBack()
      writer.append(event("five"), undefined)
      client.take()
      expect(client.texts).toEqual(["one", "three", "four", "five"])
      expect(client.answer.text).toMatch(/^: .* no longer kept\n\n/)
    })
  )

  it.scoped("sends a comment when it has been silent, and none to nobody", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make()
      const client = new Client(streams)
      const writer = streams.openStandaloneStream(upstream)
      client.open(writer)
      writer.expire()
      expect(client.answer.text).toBe(": keep-alive\n\n")
      client.cut()
      writer.expire()
      expect(client.answer.text).toBe(": keep-alive\n\n")
    })
  )
})

describe("standalone streams", () => {
  it.scoped("get a message each, the newest that is read", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make()
      const [older, newer] = [new Client(streams), new Client(streams)]
      older.open(streams.openStandaloneStream(upstream))
      newer.open(streams.openStandaloneStream(upstream))
      streams.newest?.append(event("one"), undefined)
      newer.take()
      newer.cut()
      streams.newest?.append(event("two"), undefined)
      older.take()
      older.cut()
      streams.newest?.append(event("three"), undefined)
      newer.comeBack()
      newer.take()
      expect(older.texts).toEqual(["two"])
      expect(newer.texts).toEqual(["one", "three"])
      expect(streams.openStandalone).toBe(1)
    })
  )

  it.scoped("begin with what came while none was read, and it comes nowhere else", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make()
      const [first, second] = [new Client(streams), new Client(streams)]
      const left = streams.openStandaloneStream(upstream)
      first.open(left)
      streams.newest?.append(event("one"), "up-1")
      first.take()
      first.cut()
      streams.newest?.append(event("two"), "up-2")
      second.open(streams.openStandaloneStream(upstream))
      streams.newest?.append(event("three"), "up-3")
      second.take()
      first.comeBack()
      second.cut()
      streams.newest?.append(event("four"), "up-4")
      first.take()
      expect(second.texts).toEqual(["two", "three"])
      expect(first.texts).toEqual(["one", "four"])
      expect(second.ids).toHaveLength(2)
    })
  )

  it.scoped("that were left are forgotten but for the latest", () =>
    Effect.gen(function* () {
      const { streams, tracker, upstream } = yield* make()
      for (let count = 0; count < 50; count++) {
        const client = new Client(streams)
        const writer = streams.openStandaloneStream(upstream)
        client.open(writer)
        writer.append(event("x"), undefined)
        client.cut()
      }
      expect(tracker.size().events).toBeLessThan(10)
    })
  )
})

describe("a slow reader", () => {
  it.scoped("is told from the log as it reads, and lets the upstream wait before anything is lost", () =>
    Effect.gen(function* () {
      const { client, writer, upstream } = yield* begun({ maxEvents: 10 })
      client.answer.flow?.pause()
      for (let count = 1; count <= 4; count++) writer.append(event(String(count)), undefined)
      expect(upstream.pause).not.toHaveBeenCalled()
      writer.append(event("5"), undefined)
      expect(upstream.pause).toHaveBeenCalledTimes(1)
      expect(client.answer.text).toBe("")
      client.answer.flow?.unpause()
      expect(upstream.unpause).toHaveBeenCalledTimes(1)
      writer.end()
      client.take()
      expect(client.texts).toEqual(["1", "2", "3", "4", "5"])
      expect(client.answer.ending).toBe("end")
    })
  )

  it.scoped("loses nothing to what was on its way when the upstream was told to wait", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* begun({ maxEvents: 10, maxEventBytes: 2_000 })
      client.answer.flow?.pause()
      const texts = Array.from({ length: 40 }, (_, index) => String(index))
      for (const text of texts) writer.append(event(text), undefined)
      writer.append(event("x".repeat(5_000)), undefined)
      writer.end()
      client.answer.flow?.unpause()
      client.take()
      expect(client.texts).toEqual([...texts, "x".repeat(5_000)])
    })
  )

  it.scoped("holds up others for five seconds though it has taken a little, and more is urgent", () =>
    Effect.gen(function* () {
      for (const [count, takes] of [
        [6, true],
        [8, false]
      ] as const) {
        const { streams, upstream } = yield* make({ maxEvents: 8 })
        const client = new Client(streams)
        const writer = streams.openAnswer([1], { ...upstream, isShared: true })
        client.open(writer)
        writer.pause()
        for (let number = 0; number < count; number++) writer.append(event(String(number)), undefined)
        const { answer } = client
        const data = answer.data.bind(answer)
        answer.data = (chunk) => {
          data(chunk)
          writer.pause()
        }
        if (takes) writer.unpause()
        yield* TestClock.adjust("7 seconds")
        expect(answer.ending).toBe("end")
      }
    })
  )

  it.scoped("misses nothing in silence when another session has taken its place", () =>
    Effect.gen(function* () {
      const { open, streams } = yield* make({
        maxEvents: 100,
        maxEventBytes: 4_000,
        maxTotalEventBytes: 4_500
      })
      const client = new Client(streams)
      const slow = streams.openAnswer([1], noFlow)
      client.open(slow)
      client.answer.flow?.pause()
      for (const text of ["one", "two"]) slow.append(event(text), undefined)
      const other = (yield* open("b")).createStream([1])
      for (let number = 0; number < 12; number++) other.append(event(String(number)), undefined)
      slow.append(event("x".repeat(3_000)), undefined)
      expect(client.answer).toMatchObject({ text: "", ending: "end" })
    })
  )

  it.scoped.each([true, false])("holds up others for five seconds (others wait: %s)", (isShared) =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make({ maxEvents: 4 })
      const client = new Client(streams)
      const writer = streams.openAnswer([1], { ...upstream, isShared })
      client.open(writer)
      writer.append(event("one"), undefined)
      client.take()
      client.answer.flow?.pause()
      for (const text of ["two", "three"]) writer.append(event(text), undefined)
      expect(upstream.pause).toHaveBeenCalledTimes(1)
      yield* TestClock.adjust("4 seconds")
      expect(client.answer.ending).toBeUndefined()
      yield* TestClock.adjust("2 seconds")
      expect(client.answer.ending).toBe(isShared ? "end" : undefined)
      expect(upstream.unpause).toHaveBeenCalledTimes(isShared ? 1 : 0)
      client.comeBack()
      client.take()
      expect(client.texts).toEqual(["one", "two", "three"])
    })
  )

  it.scoped("loses nothing to other slow readers of its session, nor to what was delivered", () =>
    Effect.gen(function* () {
      const { streams } = yield* make({ maxEvents: 40 })
      const lanes = [0, 1, 2, 3].map((id) => {
        let isPaused = false
        const upstream = { pause: () => (isPaused = true), unpause: () => (isPaused = false) }
        const client = new Client(streams)
        const writer = streams.openAnswer([id], upstream)
        client.open(writer)
        client.answer.flow?.pause()
        return { client, writer, sent: new Array<string>(), isPaused: () => isPaused }
      })
      for (let round = 0; round < 400; round++) {
        for (const lane of lanes) {
          if (lane.isPaused()) continue
          lane.sent.push(String(round))
          lane.writer.append(event(String(round)), undefined)
        }
        const quick = streams.openAnswer(["quick"], { pause: () => {}, unpause: () => {} })
        new Client(streams).open(quick)
        quick.append(event("quick"), undefined)
        quick.end()
        // One after the other reads a little.
        const { flow } = lanes[round % lanes.length]?.client.answer ?? {}
        flow?.unpause()
        flow?.pause()
      }
      for (const { client, writer, sent } of lanes) {
        writer.end()
        client.answer.flow?.unpause()
        client.take()
        expect(client.texts).toEqual(sent)
        expect(sent.length).toBeGreaterThan(50)
      }
    })
  )

  it.scoped("that reads again is told in silence that the stream is there", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make()
      const client = new Client(streams)
      const writer = streams.openStandaloneStream(upstream)
      client.open(writer)
      writer.append(event("one"), undefined)
      client.answer.flow?.pause()
      client.answer.flow?.unpause()
      yield* TestClock.adjust(KEEP_ALIVE + 1_000)
      expect(client.answer.text).toMatch(/: keep-alive\n\n$/)
    })
  )

  it.scoped("that goes lets the upstream go on", () =>
    Effect.gen(function* () {
      const { client, writer, upstream } = yield* begun({ maxEvents: 10 })
      client.answer.flow?.pause()
      for (let count = 1; count <= 6; count++) writer.append(event(String(count)), undefined)
      client.cut()
      expect(upstream.unpause).toHaveBeenCalledTimes(1)
      client.comeBack(writer.log.idAt(0))
      client.take()
      expect(client.texts).toEqual(["1", "2", "3", "4", "5", "6"])
    })
  )
})

describe("whatever comes, breaks and is let go of", () => {
  const stream = FastCheck.nat({ max: 2 })
  const of = <const Type extends string>(weight: number, type: Type) => ({
    weight,
    arbitrary: FastCheck.record({ type: FastCheck.constant(type), stream })
  })
  const taken = FastCheck.boolean()
  const step = FastCheck.oneof(
    of(6, "append"),
    { weight: 2, arbitrary: FastCheck.record({ type: FastCheck.constant("cut" as const), stream, taken }) },
    of(3, "back"),
    of(2, "pause"),
    of(2, "resume"),
    of(1, "end")
  )

  const property = (maxEvents: number, judge: (client: Client, sent: ReadonlyArray<string>) => void) =>
    it.scoped.prop(
      maxEvents > 100
        ? "each event arrives once and in order"
        : "none arrives twice, and what is missing is told",
      [FastCheck.array(step, { maxLength: 80 })],
      ([steps]) =>
        Effect.gen(function* () {
          const { streams, tracker, upstream } = yield* make({ maxEvents }, 3_000)
          const lanes = [0, 1, 2].map((id) => {
            const writer = streams.openAnswer([id], upstream)
            const client = new Client(streams)
            client.open(writer)
            return { writer, client, sent: new Array<string>(), isThere: true, hasEnded: false }
          })
          for (const [index, { type, ...step }] of steps.entries()) {
            const lane = lanes[step.stream]
            if (lane === undefined) continue
            if (type === "append" && !lane.hasEnded) {
              lane.sent.push(`${step.stream}:${index}`)
              lane.writer.append(event(`${step.stream}:${index}`), undefined)
            } else if (type === "cut" && lane.isThere && !lane.client.answer.isOver) {
              if ("taken" in step && step.taken) lane.client.take()
              lane.client.cut()
              lane.isThere = false
            } else if (type === "back" && !lane.isThere) {
              lane.client.comeBack(lane.client.ids.at(-1) ?? lane.writer.log.idAt(0))
              lane.isThere = true
            } else if (type === "pause" && lane.isThere && !lane.client.answer.isOver)
              lane.client.answer.flow?.pause()
            else if (type === "resume" && lane.isThere && !lane.client.answer.isOver)
              lane.client.answer.flow?.unpause()
            else if (type === "end" && !lane.hasEnded) {
              lane.hasEnded = true
              lane.writer.end()
            }
          }
          for (const lane of lanes) {
            if (!lane.hasEnded) lane.writer.end()
            if (!lane.client.answer.isOver && lane.isThere) lane.client.answer.flow?.unpause()
            lane.client.take()
            if (!lane.isThere || lane.client.answer.ending === "end") {
              lane.client.comeBack(lane.client.ids.at(-1) ?? lane.writer.log.idAt(0))
              lane.client.take()
            }
            judge(lane.client, lane.sent)
            expect(lane.client.answer.violations).toEqual([])
          }
          streams.close()
          streams.log.close()
          expect(tracker.size()).toEqual({ events: 0, bytes: 0 })
        })
    )

  property(1_000, ({ texts }, sent) => expect(texts).toEqual(sent))
  property(5, ({ answer, errors, texts }, sent) => {
    expect(sent.filter((text) => texts.includes(text))).toEqual(texts)
    if (texts.length < sent.length)
      expect(errors.length + (answer.failure === undefined ? 0 : 1)).toBeGreaterThan(0)
  })
})
