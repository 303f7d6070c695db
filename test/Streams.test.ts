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

/** Makes the streams of one session, with a log. */
const makeStreams = (options: Partial<EventTrackerOptions> = {}, retry?: number, telemetry = silent) =>
  Effect.gen(function* () {
    const tracker = yield* EventTracker
    const log = yield* tracker.open("a")
    if (log === undefined) return yield* Effect.dieMessage("streams are not tracked")
    const { maxEventBytes, maxEvents } = tracker.options
    const deps = {
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
          other === undefined ? Effect.die("streams are not tracked") : Effect.succeed(other)
        ),
      streams: new Streams(log, deps, "the-id"),
      tracker,
      upstream: { pause: vi.fn(), unpause: vi.fn() }
    }
  }).pipe((streams) =>
    Effect.flatMap(Layer.build(layerMemory(options)), (context) => Effect.provide(streams, context))
  )

/** A client of one stream. It collects the events of all its connections and keeps the last event id. */
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

  /** Parses the received bytes. Bytes that arrive between this call and `drop` are lost. */
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

/** Makes the streams of one session, with a response stream that a client reads. */
const makeReadStream = (...args: Parameters<typeof makeStreams>) =>
  Effect.map(makeStreams(...args), (made) => {
    const client = new Client(made.streams)
    const writer = made.streams.openAnswer([1], made.upstream)
    client.open(writer)
    return { ...made, client, writer }
  })

const event = (text: string) => Buffer.from(`data: ${text}\n\n`)

describe("a stream", () => {
  it.scoped("can be resumed, with the missed events and the later ones", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams()
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

  it.scoped("reports the number of replayed events", () =>
    Effect.gen(function* () {
      const replayed = vi.fn()
      const { client, writer } = yield* makeReadStream({}, undefined, { ...silent, eventsReplayed: replayed })
      for (const text of ["one", "two", "three"]) writer.append(event(text), undefined)
      client.receive()
      client.drop()
      client.resume(client.ids[0])
      expect(replayed.mock.calls).toEqual([[2]])
    })
  )

  it.scoped("begins with a keep-alive comment if it is silent and has no priming event", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams()
      const client = new Client(streams)
      client.open(streams.openAnswer([1], upstream))
      yield* TestClock.adjust(KEEP_ALIVE + 1_000)
      expect(client.response.text).toBe(": keep-alive\n\n")
    })
  )

  it.scoped("begins with a priming event and the retry time for clients that support them", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* makeReadStream({}, 3_000)
      expect(client.response.text).toMatch(/^id: \S+\nretry: 3000\ndata: \n\n$/)
      client.receive()
      client.drop()
      writer.append(event("one"), undefined)
      client.resume()
      client.receive()
      expect(client.texts).toEqual(["one"])
    })
  )

  it.scoped("gets 405 after it is delivered, and 400 for an unknown event id", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* makeReadStream()
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
    ["for a minute after a client has read its end", true],
    ["as long as the session if no client reads its end", false]
  ] as const)("is retained %s", ([, isRead]) =>
    Effect.gen(function* () {
      const { client, writer, tracker } = yield* makeReadStream()
      writer.append(event("one"), undefined)
      writer.append(event("two"), undefined)
      client.response.isRead = isRead
      writer.end()
      client.receive()
      yield* TestClock.adjust("55 seconds")
      expect(tracker.size().events).toBe(2)
      yield* TestClock.adjust("10 seconds")
      expect(tracker.size().events).toBe(isRead ? 0 : 2)
      client.resume(client.ids[0])
      client.receive()
      expect(client.texts).toEqual(isRead ? ["one", "two"] : ["one", "two", "two"])
    })
  )

  it.scoped("is not evicted while a client reads it again", () =>
    Effect.gen(function* () {
      const { client, writer, streams, tracker } = yield* makeReadStream()
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

  it.scoped("is not delivered if only an earlier connection has read its end", () =>
    Effect.gen(function* () {
      const { client, writer, streams, tracker } = yield* makeReadStream()
      for (const text of ["one", "two"]) writer.append(event(text), undefined)
      let flushed = () => {}
      client.response.end = (onFlushed = () => {}) => void (flushed = onFlushed)
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

  it.scoped("sends events to the newest connection and ends the earlier one", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* makeReadStream()
      writer.append(event("one"), undefined)
      client.receive()
      const earlier = client.response
      client.resume()
      writer.append(event("two"), undefined)
      expect(earlier).toMatchObject({ ending: "end", violations: [] })
      client.receive()
      expect(client.texts).toEqual(["one", "two"])
    })
  )

  it.scoped("ends with one error for each of its requests if missed events were evicted", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams({ maxEvents: 2 })
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

  it.scoped(
    "without requests continues with a comment and the remaining events if missed events were evicted",
    () =>
      Effect.gen(function* () {
        const { streams, upstream } = yield* makeStreams({ maxEvents: 2 })
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

  it.scoped("sends a keep-alive comment only if a client is connected", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams()
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
  it.scoped("send each message only to the newest stream that is read", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams()
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

  it.scoped("begin with the messages that arrived while none was read, which no other stream sends", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams()
      const [first, second] = [new Client(streams), new Client(streams)]
      const stream = streams.openStandaloneStream(upstream)
      first.open(stream)
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

  it.scoped("of disconnected clients are evicted except for the latest", () =>
    Effect.gen(function* () {
      const { streams, tracker, upstream } = yield* makeStreams()
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

describe("a slow client", () => {
  it.scoped("reads from the log, and pauses the upstream before events are evicted", () =>
    Effect.gen(function* () {
      const { client, writer, upstream } = yield* makeReadStream({ maxEvents: 10 })
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

  it.scoped("loses no event that arrives after the upstream was paused", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* makeReadStream({ maxEvents: 10, maxEventBytes: 2_000 })
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

  it.scoped(
    "is disconnected after 5 s if other streams wait, even if it has read a little or the log is over its limit",
    () =>
      Effect.gen(function* () {
        for (const [count, isReading] of [
          [6, true],
          [8, false]
        ] as const) {
          const { streams, upstream } = yield* makeStreams({ maxEvents: 8 })
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
          if (isReading) writer.unpause()
          yield* TestClock.adjust("7 seconds")
          expect(response.ending).toBe("end")
        }
      })
  )

  it.scoped("gets no later event if its events were evicted for another session", () =>
    Effect.gen(function* () {
      const { open, streams } = yield* makeStreams({
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

  it.scoped.each([true, false])("is disconnected after 5 s only if other streams wait (%s)", (isShared) =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams({ maxEvents: 4 })
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

  it.scoped("loses no event to other slow clients or to delivered streams of its session", () =>
    Effect.gen(function* () {
      const { streams } = yield* makeStreams({ maxEvents: 40 })
      const slowClients = [0, 1, 2, 3].map((id) => {
        let isPaused = false
        const upstream = { pause: () => (isPaused = true), unpause: () => (isPaused = false) }
        const client = new Client(streams)
        const writer = streams.openAnswer([id], upstream)
        client.open(writer)
        client.response.flow?.pause()
        return { client, writer, sent: new Array<string>(), isPaused: () => isPaused }
      })
      for (let round = 0; round < 400; round++) {
        for (const slow of slowClients) {
          if (slow.isPaused()) continue
          slow.sent.push(String(round))
          slow.writer.append(event(String(round)), undefined)
        }
        const quick = streams.openAnswer(["quick"], { pause: () => {}, unpause: () => {} })
        new Client(streams).open(quick)
        quick.append(event("quick"), undefined)
        quick.end()
        // The clients take turns to read a little.
        const { flow } = slowClients[round % slowClients.length]?.client.response ?? {}
        flow?.unpause()
        flow?.pause()
      }
      for (const { client, writer, sent } of slowClients) {
        writer.end()
        client.response.flow?.unpause()
        client.receive()
        expect(client.texts).toEqual(sent)
        expect(sent.length).toBeGreaterThan(50)
      }
    })
  )

  it.scoped("gets keep-alive comments after it continues to read", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams()
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

  it.scoped("unpauses the upstream when it disconnects", () =>
    Effect.gen(function* () {
      const { client, writer, upstream } = yield* makeReadStream({ maxEvents: 10 })
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

describe("after arbitrary operations, a client", () => {
  const stream = FastCheck.nat({ max: 2 })
  const of = <const Type extends string>(weight: number, type: Type) => ({
    weight,
    arbitrary: FastCheck.record({ type: FastCheck.constant(type), stream })
  })
  const isReceived = FastCheck.boolean()
  const step = FastCheck.oneof(
    of(6, "append"),
    {
      weight: 2,
      arbitrary: FastCheck.record({ type: FastCheck.constant("drop" as const), stream, isReceived })
    },
    of(3, "resume"),
    of(2, "pause"),
    of(2, "unpause"),
    of(1, "end")
  )

  const property = (maxEvents: number, check: (client: Client, sent: ReadonlyArray<string>) => void) =>
    it.scoped.prop(
      maxEvents > 100
        ? "receives each event once and in order"
        : "receives no event twice, and an error if events were evicted",
      [FastCheck.array(step, { maxLength: 80 })],
      ([steps]) =>
        Effect.gen(function* () {
          const { streams, tracker, upstream } = yield* makeStreams({ maxEvents }, 3_000)
          const readers = [0, 1, 2].map((id) => {
            const writer = streams.openAnswer([id], upstream)
            const client = new Client(streams)
            client.open(writer)
            return { writer, client, sent: new Array<string>(), isConnected: true, hasEnded: false }
          })
          for (const [index, { type, ...step }] of steps.entries()) {
            const reader = readers[step.stream]
            if (reader === undefined) continue
            if (type === "append" && !reader.hasEnded) {
              reader.sent.push(`${step.stream}:${index}`)
              reader.writer.append(event(`${step.stream}:${index}`), undefined)
            } else if (type === "drop" && reader.isConnected && !reader.client.response.hasEnded) {
              if ("isReceived" in step && step.isReceived) reader.client.receive()
              reader.client.drop()
              reader.isConnected = false
            } else if (type === "resume" && !reader.isConnected) {
              reader.client.resume(reader.client.ids.at(-1) ?? reader.writer.log.idAt(0))
              reader.isConnected = true
            } else if (type === "pause" && reader.isConnected && !reader.client.response.hasEnded)
              reader.client.response.flow?.pause()
            else if (type === "unpause" && reader.isConnected && !reader.client.response.hasEnded)
              reader.client.response.flow?.unpause()
            else if (type === "end" && !reader.hasEnded) {
              reader.hasEnded = true
              reader.writer.end()
            }
          }
          for (const reader of readers) {
            if (!reader.hasEnded) reader.writer.end()
            if (!reader.client.response.hasEnded && reader.isConnected) reader.client.response.flow?.unpause()
            reader.client.receive()
            if (!reader.isConnected || reader.client.response.ending === "end") {
              reader.client.resume(reader.client.ids.at(-1) ?? reader.writer.log.idAt(0))
              reader.client.receive()
            }
            check(reader.client, reader.sent)
            expect(reader.client.response.violations).toEqual([])
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
