import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/TestClock"
import { noFlow } from "../../src/Upstream.js"
import { KEEP_ALIVE, makeReadStream, makeStreams, StreamClient, textEvent } from "../fixtures/StreamClient.js"

describe("a slow client", () => {
  it.scoped("reads from the log, and pauses the upstream before events are evicted", () =>
    Effect.gen(function* () {
      const { client, writer, upstream } = yield* makeReadStream({ maxEvents: 10 })
      client.response.flow?.pause()
      for (let count = 1; count <= 4; count++) writer.append(textEvent(String(count)), undefined)
      expect(upstream.pause).not.toHaveBeenCalled()
      writer.append(textEvent("5"), undefined)
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
      for (const text of texts) writer.append(textEvent(text), undefined)
      writer.append(textEvent("x".repeat(5_000)), undefined)
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
          const client = new StreamClient(streams)
          const writer = streams.openAnswer([1], { ...upstream, isShared: true })
          client.open(writer)
          writer.pause()
          for (let number = 0; number < count; number++) writer.append(textEvent(String(number)), undefined)
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
      const client = new StreamClient(streams)
      const slow = streams.openAnswer([1], noFlow)
      client.open(slow)
      client.response.flow?.pause()
      for (const text of ["one", "two"]) slow.append(textEvent(text), undefined)
      const other = (yield* open("b")).createStream([1])
      for (let number = 0; number < 12; number++) other.append(textEvent(String(number)), undefined)
      slow.append(textEvent("x".repeat(3_000)), undefined)
      expect(client.response).toMatchObject({ text: "", ending: "end" })
    })
  )

  it.scoped.each([true, false])("is disconnected after 5 s only if other streams wait (%s)", (isShared) =>
    Effect.gen(function* () {
      const { streams, upstream } = yield* makeStreams({ maxEvents: 4 })
      const client = new StreamClient(streams)
      const writer = streams.openAnswer([1], { ...upstream, isShared })
      client.open(writer)
      writer.append(textEvent("one"), undefined)
      client.receive()
      client.response.flow?.pause()
      for (const text of ["two", "three"]) writer.append(textEvent(text), undefined)
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
        const client = new StreamClient(streams)
        const writer = streams.openAnswer([id], upstream)
        client.open(writer)
        client.response.flow?.pause()
        return { client, writer, sent: new Array<string>(), isPaused: () => isPaused }
      })
      for (let round = 0; round < 400; round++) {
        for (const slow of slowClients) {
          if (slow.isPaused()) continue
          slow.sent.push(String(round))
          slow.writer.append(textEvent(String(round)), undefined)
        }
        const quick = streams.openAnswer(["quick"], { pause: () => {}, unpause: () => {} })
        new StreamClient(streams).open(quick)
        quick.append(textEvent("quick"), undefined)
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
      const client = new StreamClient(streams)
      const writer = streams.openStandaloneStream(upstream)
      client.open(writer)
      writer.append(textEvent("one"), undefined)
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
      for (let count = 1; count <= 6; count++) writer.append(textEvent(String(count)), undefined)
      client.drop()
      expect(upstream.unpause).toHaveBeenCalledTimes(1)
      client.resume(writer.log.idAt(0))
      client.receive()
      expect(client.texts).toEqual(["1", "2", "3", "4", "5", "6"])
    })
  )
})
