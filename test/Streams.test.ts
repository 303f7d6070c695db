import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as TestClock from "effect/TestClock"
import { vi } from "vitest"
import { silent } from "../src/Telemetry.js"
import { RecordedResponse } from "./fixtures/RecordedResponse.js"
import { KEEP_ALIVE, makeReadStream, makeStreams, StreamClient, textEvent } from "./fixtures/StreamClient.js"

describe("a stream", () => {
  it.scoped("can be resumed, with the missed events and the later ones", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams()
      const writer = streams.openAnswer([1], upstream)
      const client = new StreamClient(streams)
      client.open(writer)
      writer.append(textEvent("one"), undefined)
      client.receive()
      client.drop()
      writer.append(textEvent("two"), undefined)
      client.resume()
      writer.append(textEvent("three"), undefined)
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
      for (const text of ["one", "two", "three"]) writer.append(textEvent(text), undefined)
      client.receive()
      client.drop()
      client.resume(client.ids[0])
      expect(replayed.mock.calls).toEqual([[2]])
    })
  )

  it.scoped("begins with a keep-alive comment if it is silent and has no priming event", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams()
      const client = new StreamClient(streams)
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
      writer.append(textEvent("one"), undefined)
      client.resume()
      client.receive()
      expect(client.texts).toEqual(["one"])
    })
  )

  it.scoped("gets 405 after it is delivered, and 400 for an unknown event id", () =>
    Effect.gen(function* () {
      const { client, writer } = yield* makeReadStream()
      writer.append(textEvent("one"), undefined)
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
      writer.append(textEvent("one"), undefined)
      writer.append(textEvent("two"), undefined)
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
      for (const text of ["one", "two", "three"]) writer.append(textEvent(text), undefined)
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
      for (const text of ["one", "two"]) writer.append(textEvent(text), undefined)
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
      writer.append(textEvent("one"), undefined)
      client.receive()
      const earlier = client.response
      client.resume()
      writer.append(textEvent("two"), undefined)
      expect(earlier).toMatchObject({ ending: "end", violations: [] })
      client.receive()
      expect(client.texts).toEqual(["one", "two"])
    })
  )

  it.scoped("ends with one error for each of its requests if missed events were evicted", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams({ maxEvents: 2 })
      const client = new StreamClient(streams)
      const writer = streams.openAnswer([1, "b"], upstream)
      client.open(writer)
      writer.append(textEvent("one"), undefined)
      client.receive()
      client.drop()
      for (const text of ["two", "three", "four"]) writer.append(textEvent(text), undefined)
      client.resume()
      client.receive()
      expect(client.errors.map(({ id }) => id)).toEqual([1, "b"])
      expect(client.texts).toEqual(["one"])
      expect(client.response).toMatchObject({ status: 200, ending: "end" })
      client.resume()
      expect(client.response.failure).toMatchObject({ status: 405 })
      writer.append(textEvent("five"), undefined)
      writer.end()
    })
  )

  it.scoped(
    "without requests continues with a comment and the remaining events if missed events were evicted",
    () =>
      Effect.gen(function* () {
        const { streams, upstream } = yield* makeStreams({ maxEvents: 2 })
        const client = new StreamClient(streams)
        const writer = streams.openStandaloneStream(upstream)
        client.open(writer)
        writer.append(textEvent("one"), undefined)
        client.receive()
        client.drop()
        for (const text of ["two", "three", "four"]) writer.append(textEvent(text), undefined)
        client.resume()
        writer.append(textEvent("five"), undefined)
        client.receive()
        expect(client.texts).toEqual(["one", "three", "four", "five"])
        expect(client.response.text).toMatch(/^: .* no longer kept\n\n/)
      })
  )

  it.scoped("sends a keep-alive comment only if a client is connected", () =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams()
      const client = new StreamClient(streams)
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
      const [older, newer] = [new StreamClient(streams), new StreamClient(streams)]
      older.open(streams.openStandaloneStream(upstream))
      newer.open(streams.openStandaloneStream(upstream))
      streams.newest?.append(textEvent("one"), undefined)
      newer.receive()
      newer.drop()
      streams.newest?.append(textEvent("two"), undefined)
      older.receive()
      older.drop()
      streams.newest?.append(textEvent("three"), undefined)
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
      const [first, second] = [new StreamClient(streams), new StreamClient(streams)]
      const stream = streams.openStandaloneStream(upstream)
      first.open(stream)
      streams.newest?.append(textEvent("one"), "up-1")
      first.receive()
      first.drop()
      streams.newest?.append(textEvent("two"), "up-2")
      second.open(streams.openStandaloneStream(upstream))
      streams.newest?.append(textEvent("three"), "up-3")
      second.receive()
      first.resume()
      second.drop()
      streams.newest?.append(textEvent("four"), "up-4")
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
        const client = new StreamClient(streams)
        const writer = streams.openStandaloneStream(upstream)
        client.open(writer)
        writer.append(textEvent("x"), undefined)
        client.drop()
      }
      expect(tracker.size().events).toBeLessThan(10)
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

  const property = (maxEvents: number, check: (client: StreamClient, sent: ReadonlyArray<string>) => void) =>
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
            const client = new StreamClient(streams)
            client.open(writer)
            return { writer, client, sent: new Array<string>(), isConnected: true, hasEnded: false }
          })
          for (const [index, { type, ...step }] of steps.entries()) {
            const reader = readers[step.stream]
            if (reader === undefined) continue
            if (type === "append" && !reader.hasEnded) {
              reader.sent.push(`${step.stream}:${index}`)
              reader.writer.append(textEvent(`${step.stream}:${index}`), undefined)
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
