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
import { RecordedResponse } from "./fixtures/RecordedResponse.js"

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
  response = new RecordedResponse()
  disconnect: Disconnect = () => {}
  private read = 0

  constructor(private readonly streams: Streams) {}

  open(writer: StreamWriter): void {
    writer.open(this.response, 200, { "content-type": "text/event-stream" })
    this.disconnect = () => writer.disconnect(this.response)
  }

  /** Takes in what has come; what comes later on a connection that is cut is lost. */
  receive(): void {
    const parser = createParser({
      onEvent: ({ data, id }) => {
        if (id !== undefined) this.ids.push(id)
        if (data.startsWith("{")) this.errors.push(JSON.parse(data))
        else if (data !== "") this.texts.push(data)
      }
    })
    parser.feed(this.response.text.slice(this.read))
    this.read = this.response.text.length
  }

  drop(): void {
    this.response.disconnect()
    this.disconnect()
  }

  resume(id: string | undefined = this.ids.at(-1)): void {
    this.response = new RecordedResponse()
    this.read = 0
    this.disconnect = this.streams.resume(id ?? "none", this.response)
  }
}

/** The same, with a stream that responses a request and that a client reads. */
const makeOpen = (...how: Parameters<typeof make>) =>
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
      client.receive()
      client.drop()
      writer.append(event("two"), undefined)
      client.resume()
      writer.append(event("three"), undefined)
      writer.end()
      client.receive()
      expect(client.texts).toEqual(["one", "two", "three"])
      expect(client.response).toMatchObject({
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
      const { client, writer } = yield* makeOpen({}, undefined, { ...silent, eventsReplayed: replayed })
      for (const text of ["one", "two", "three"]) writer.append(event(text), undefined)
      client.receive()
      client.drop()
      client.resume(client.ids[0])
      expect(replayed.mock.calls).toEqual([[2]])
    })
  )

  it.scoped("that is silent from the beginning is told to be there, without an id to begin with", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make()
      const client = new Client(streams)
      client.open(streams.openAnswer([1], upstream))
      yield* TestClock.adjust(KEEP_ALIVE + 1_000)
      expect(client.response.text).toBe(": keep-alive\n\n")
    })
  )

  it.scoped("begins with an id and the time to wait, for clients that know them", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* makeOpen({}, 3_000)
      expect(client.response.text).toMatch(/^id: \S+\nretry: 3000\ndata: \n\n$/)
      client.receive()
      client.drop()
      writer.append(event("one"), undefined)
      client.resume()
      client.receive()
      expect(client.texts).toEqual(["one"])
    })
  )

  it.scoped("that is over and delivered gets 405, one of no session 400, and never 404", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* makeOpen()
      writer.append(event("one"), undefined)
      writer.end()
      client.receive()
      client.resume()
      expect(client.response.failure).toMatchObject({ status: 405, reason: "StreamEnded" })
      client.resume("AAAAAAAAAAAA.1.1")
      expect(client.response.failure).toMatchObject({ status: 400, reason: "UnknownEventId" })
    })
  )

  it.scoped.each([
    ["the end of which has gone out, for a minute", true],
    ["the end of which a client does not take, for as long as the session lives", false]
  ] as const)("is kept, %s", ([, reads]) =>
    Effect.gen(function* () {
      const { client, writer, tracker } = yield* makeOpen()
      writer.append(event("one"), undefined)
      writer.append(event("two"), undefined)
      client.response.isRead = reads
      writer.end()
      client.receive()
      yield* TestClock.adjust("55 seconds")
      expect(tracker.size().events).toBe(2)
      yield* TestClock.adjust("10 seconds")
      expect(tracker.size().events).toBe(reads ? 0 : 2)
      client.resume(client.ids[0])
      client.receive()
      expect(client.texts).toEqual(reads ? ["one", "two"] : ["one", "two", "two"])
    })
  )

  it.scoped("that ended whole is not let go of while a client reads it again", () =>
    Effect.gen(function* () {
      const { client, writer, streams, tracker } = yield* makeOpen()
      for (const text of ["one", "two", "three"]) writer.append(event(text), undefined)
      writer.end()
      client.receive()
      const slow = new RecordedResponse()
      slow.isRead = false
      streams.resume(client.ids[0] ?? "none", slow)
      yield* TestClock.adjust("65 seconds")
      expect(tracker.size().events).toBe(3)
    })
  )

  it.scoped("is not taken for delivered by a client that it had before", () =>
    Effect.gen(function* () {
      const { client, writer, streams, tracker } = yield* makeOpen()
      for (const text of ["one", "two"]) writer.append(event(text), undefined)
      let flushed = () => {}
      client.response.end = (told = () => {}) => void (flushed = told)
      writer.end()
      client.receive()
      const slow = new RecordedResponse()
      slow.isRead = false
      streams.resume(client.ids[0] ?? "none", slow)
      flushed()
      yield* TestClock.adjust("65 seconds")
      expect(tracker.size().events).toBe(2)
    })
  )

  it.scoped("gives the newest connection what comes, and ends the one before", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* makeOpen()
      writer.append(event("one"), undefined)
      client.receive()
      const before = client.response
      client.resume()
      writer.append(event("two"), undefined)
      expect(before).toMatchObject({ ending: "end", violations: [] })
      client.receive()
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
      client.receive()
      client.drop()
      for (const text of ["two", "three", "four"]) writer.append(event(text), undefined)
      client.resume()
      client.receive()
      expect(client.errors.map(({ id }) => id)).toEqual([1, "b"])
      expect(client.texts).toEqual(["one"])
      expect(client.response).toMatchObject({ status: 200, ending: "end" })
      client.resume()
      expect(client.response.failure).toMatchObject({ status: 405 })
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
      client.receive()
      client.drop()
      for (const text of ["two", "three", "four"]) writer.append(event(text), undefined)
      client.resume()
      writer.append(event("five"), undefined)
      client.receive()
      expect(client.texts).toEqual(["one", "three", "four", "five"])
      expect(client.response.text).toMatch(/^: .* no longer kept\n\n/)
    })
  )

  it.scoped("sends a comment when it has been silent, and none to nobody", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make()
      const client = new Client(streams)
      const writer = streams.openStandaloneStream(upstream)
      client.open(writer)
      writer.expire()
      expect(client.response.text).toBe(": keep-alive\n\n")
      client.drop()
      writer.expire()
      expect(client.response.text).toBe(": keep-alive\n\n")
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
      newer.receive()
      newer.drop()
      streams.newest?.append(event("two"), undefined)
      older.receive()
      older.drop()
      streams.newest?.append(event("three"), undefined)
      newer.resume()
      newer.receive()
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
      first.receive()
      first.drop()
      streams.newest?.append(event("two"), "up-2")
      second.open(streams.openStandaloneStream(upstream))
      streams.newest?.append(event("three"), "up-3")
      second.receive()
      first.resume()
      second.drop()
      streams.newest?.append(event("four"), "up-4")
      first.receive()
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
        client.drop()
      }
      expect(tracker.size().events).toBeLessThan(10)
    })
  )
})

describe("a slow reader", () => {
  it.scoped("is told from the log as it reads, and lets the upstream wait before anything is lost", () =>
    Effect.gen(function* () {
      const { client, writer, upstream } = yield* makeOpen({ maxEvents: 10 })
      client.response.flow?.pause()
      for (let count = 1; count <= 4; count++) writer.append(event(String(count)), undefined)
      expect(upstream.pause).not.toHaveBeenCalled()
      writer.append(event("5"), undefined)
      expect(upstream.pause).toHaveBeenCalledTimes(1)
      expect(client.response.text).toBe("")
      client.response.flow?.unpause()
      expect(upstream.unpause).toHaveBeenCalledTimes(1)
      writer.end()
      client.receive()
      expect(client.texts).toEqual(["1", "2", "3", "4", "5"])
      expect(client.response.ending).toBe("end")
    })
  )

  it.scoped("loses nothing to what was on its way when the upstream was told to wait", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* makeOpen({ maxEvents: 10, maxEventBytes: 2_000 })
      client.response.flow?.pause()
      const texts = Array.from({ length: 40 }, (_, index) => String(index))
      for (const text of texts) writer.append(event(text), undefined)
      writer.append(event("x".repeat(5_000)), undefined)
      writer.end()
      client.response.flow?.unpause()
      client.receive()
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
        const { response } = client
        const data = response.data.bind(response)
        response.data = (chunk) => {
          data(chunk)
          writer.pause()
        }
        if (takes) writer.unpause()
        yield* TestClock.adjust("7 seconds")
        expect(response.ending).toBe("end")
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
      client.response.flow?.pause()
      for (const text of ["one", "two"]) slow.append(event(text), undefined)
      const other = (yield* open("b")).createStream([1])
      for (let number = 0; number < 12; number++) other.append(event(String(number)), undefined)
      slow.append(event("x".repeat(3_000)), undefined)
      expect(client.response).toMatchObject({ text: "", ending: "end" })
    })
  )

  it.scoped.each([true, false])("holds up others for five seconds (others wait: %s)", (isShared) =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* make({ maxEvents: 4 })
      const client = new Client(streams)
      const writer = streams.openAnswer([1], { ...upstream, isShared })
      client.open(writer)
      writer.append(event("one"), undefined)
      client.receive()
      client.response.flow?.pause()
      for (const text of ["two", "three"]) writer.append(event(text), undefined)
      expect(upstream.pause).toHaveBeenCalledTimes(1)
      yield* TestClock.adjust("4 seconds")
      expect(client.response.ending).toBeUndefined()
      yield* TestClock.adjust("2 seconds")
      expect(client.response.ending).toBe(isShared ? "end" : undefined)
      expect(upstream.unpause).toHaveBeenCalledTimes(isShared ? 1 : 0)
      client.resume()
      client.receive()
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
        client.response.flow?.pause()
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
        const { flow } = lanes[round % lanes.length]?.client.response ?? {}
        flow?.unpause()
        flow?.pause()
      }
      for (const { client, writer, sent } of lanes) {
        writer.end()
        client.response.flow?.unpause()
        client.receive()
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
      client.response.flow?.pause()
      client.response.flow?.unpause()
      yield* TestClock.adjust(KEEP_ALIVE + 1_000)
      expect(client.response.text).toMatch(/: keep-alive\n\n$/)
    })
  )

  it.scoped("that goes lets the upstream go on", () =>
    Effect.gen(function* () {
      const { client, writer, upstream } = yield* makeOpen({ maxEvents: 10 })
      client.response.flow?.pause()
      for (let count = 1; count <= 6; count++) writer.append(event(String(count)), undefined)
      client.drop()
      expect(upstream.unpause).toHaveBeenCalledTimes(1)
      client.resume(writer.log.idAt(0))
      client.receive()
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
            } else if (type === "cut" && lane.isThere && !lane.client.response.hasEnded) {
              if ("taken" in step && step.taken) lane.client.receive()
              lane.client.drop()
              lane.isThere = false
            } else if (type === "back" && !lane.isThere) {
              lane.client.resume(lane.client.ids.at(-1) ?? lane.writer.log.idAt(0))
              lane.isThere = true
            } else if (type === "pause" && lane.isThere && !lane.client.response.hasEnded)
              lane.client.response.flow?.pause()
            else if (type === "resume" && lane.isThere && !lane.client.response.hasEnded)
              lane.client.response.flow?.unpause()
            else if (type === "end" && !lane.hasEnded) {
              lane.hasEnded = true
              lane.writer.end()
            }
          }
          for (const lane of lanes) {
            if (!lane.hasEnded) lane.writer.end()
            if (!lane.client.response.hasEnded && lane.isThere) lane.client.response.flow?.unpause()
            lane.client.receive()
            if (!lane.isThere || lane.client.response.ending === "end") {
              lane.client.resume(lane.client.ids.at(-1) ?? lane.writer.log.idAt(0))
              lane.client.receive()
            }
            judge(lane.client, lane.sent)
            expect(lane.client.response.violations).toEqual([])
          }
          streams.close()
          streams.log.close()
          expect(tracker.size()).toEqual({ events: 0, bytes: 0 })
        })
    )

  property(1_000, ({ texts }, sent) => expect(texts).toEqual(sent))
  property(5, ({ response, errors, texts }, sent) => {
    expect(sent.filter((text) => texts.includes(text))).toEqual(texts)
    if (texts.length < sent.length)
      expect(errors.length + (response.failure === undefined ? 0 : 1)).toBeGreaterThan(0)
  })
})
