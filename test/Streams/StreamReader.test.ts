import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { vi } from "vitest"
import { EventTracker, layerMemory } from "../../src/EventTracker.js"
import { StreamReader, type StreamReaderDeps } from "../../src/Streams/StreamReader.js"
import type { StreamWriter } from "../../src/Streams/StreamWriter.js"
import { ServerRequests } from "../../src/UpstreamSession/ServerRequests.js"
import { call, getRequest, post } from "../fixtures/requests.js"
import { Backlog } from "../../src/Streams/Backlog.js"
import * as Deadlines from "../../src/internal/deadlines.js"
import type { RequestId } from "../../src/Protocol.js"
import { Streams } from "../../src/Streams.js"
import { type TelemetryListener, silent } from "../../src/Telemetry.js"
import { ignoreAnswer, noFlow } from "../../src/Upstream.js"
import { eventOf, toolResult } from "../fixtures/events.js"
import { RecordedResponse } from "../fixtures/RecordedResponse.js"

/** Returns a function that reads a new stream of one upstream session into its log. */
const makeReaderWith = (telemetry: TelemetryListener) =>
  Effect.gen(function* () {
    const tracker = yield* EventTracker
    const log = yield* tracker.open("a")
    if (log === undefined) return yield* Effect.dieMessage("streams are not tracked")
    const streams = new Streams(
      log,
      {
        deadlines: yield* Deadlines.make,
        telemetry,
        keepAlive: 15_000,
        retry: 3_000,
        hasPrimingEvents: false,
        limits: { events: 1_000, bytes: 1_000_000 },
        backlog: new Backlog()
      },
      "the-id"
    )
    const deps: StreamReaderDeps = {
      log,
      telemetry,
      report: () => {},
      cancel: () => {},
      fork: () => Effect.runFork(Effect.void),
      upstream: {
        name: "http://upstream.test/mcp",
        recovers: true,
        serverRequests: new ServerRequests(),
        streamRequest: () => getRequest,
        exchange: () => () => {},
        resume: () => () => {}
      }
    }
    /** Reads a response stream to these requests, or a standalone stream. */
    const read = (...requests: ReadonlyArray<RequestId>) => {
      const isResponse = requests.length > 0
      const writer = isResponse ? streams.openAnswer(requests, noFlow) : streams.openStandaloneStream(noFlow)
      const response = new RecordedResponse()
      writer.open(response, 200, { "content-type": "text/event-stream" })
      let pieceTarget: StreamWriter | undefined
      const request = isResponse ? post(requests.map((id) => call(id))) : getRequest
      const reader = new StreamReader(
        deps,
        request,
        {
          ...ignoreAnswer,
          data: (chunk, part) => {
            if (part?.type === "piece" && part.isFirst) pieceTarget = isResponse ? writer : streams.newest
            const isWhole = part?.type === "event" || part?.type === "cursor"
            const target = isWhole ? (isResponse ? writer : streams.newest) : pieceTarget
            if (part !== undefined) target?.add(Buffer.from(chunk), part)
          }
        },
        () => {}
      )
      reader.start(request)
      reader.head(200, { "content-type": "text/event-stream" }, noFlow)
      return { response, writer, reader, log: writer.log, streams }
    }
    return read
  })
const makeReader = makeReaderWith(silent)
const makeReaderOverMemory = Effect.provide(makeReader, layerMemory())

const notification = (text: string) => ({ jsonrpc: "2.0", method: "notifications/message", params: { text } })

describe("a resumed stream", () => {
  it.scoped("ignores events that the upstream repeats of another stream", () =>
    Effect.gen(function* () {
      const read = yield* makeReaderOverMemory
      const [one, two] = [read(1), read(2)]
      one.reader.data(Buffer.from(eventOf(notification("one"), "e1")))
      two.reader.data(Buffer.from(eventOf(notification("two"), "e2")))
      const all = [toolResult(1, "one"), toolResult(2, "two")].map((message, index) =>
        eventOf(message, `e${index + 3}`)
      )
      for (const { reader } of [two, one]) {
        reader.restart(noFlow)
        reader.data(Buffer.from(all.join("")))
      }
      expect(one.response.messages).toMatchObject([{ params: { text: "one" } }, { id: 1 }])
      expect(two.response.messages).toMatchObject([{ params: { text: "two" } }, { id: 2 }])
    })
  )

  it.scoped("is resumed after its own last event, not after events of other streams", () =>
    Effect.gen(function* () {
      const read = yield* makeReaderOverMemory
      const { reader } = read(1)
      reader.data(Buffer.from("id: e1\ndata: \n\n"))
      reader.restart(noFlow)
      reader.data(Buffer.from(eventOf(notification("own"), "e2") + eventOf(toolResult(2, "two"), "e3")))
      reader.data(Buffer.from("id: e4\ndata: {}\n\n"))
      expect(reader.lastEventId).toBe("e2")
      reader.data(Buffer.from("id: e5\ndata: \n\n"))
      expect(reader.lastEventId).toBe("e5")
    })
  )

  it.scoped("is resumed after an id without data", () =>
    Effect.gen(function* () {
      const read = yield* makeReaderOverMemory
      const { response, reader, log } = read(1)
      reader.data(Buffer.from(`${eventOf(notification("x"), "e1")}: a comment\nid: e2\n\n`))
      expect([reader.lastEventId, log.cursor]).toEqual(["e2", "e2"])
      expect(response.messages).toMatchObject([{ params: { text: "x" } }])
    })
  )

  it.scoped("is not resumed after an id that an empty id reset", () =>
    Effect.gen(function* () {
      const read = yield* makeReaderOverMemory
      for (const reset of ["id:\n\n", eventOf(notification("y"), ""), "id:\ndata:\n\n"]) {
        const { reader, log } = read(1)
        reader.data(Buffer.from(eventOf(notification("x"), `before ${JSON.stringify(reset)}`)))
        expect(reader.lastEventId).toBeDefined()
        reader.data(Buffer.from(reset))
        expect([reader.lastEventId !== undefined, log.cursor]).toEqual([false, undefined])
      }
    })
  )

  it.scoped("is not resumed after an id of more than 1024 characters", () =>
    Effect.gen(function* () {
      const read = yield* makeReaderOverMemory
      const { response, reader, log } = read(1)
      reader.data(
        Buffer.from(eventOf(notification("x"), "e1") + eventOf(notification("y"), "e".repeat(1_025)))
      )
      expect(response.messages).toHaveLength(2)
      expect([reader.lastEventId !== undefined, log.cursor, log.after(1)?.upstreamId]).toEqual([
        false,
        undefined,
        undefined
      ])
    })
  )

  it.scoped("does not drop events with empty ids as duplicates", () =>
    Effect.gen(function* () {
      const read = yield* makeReaderOverMemory
      const { response, reader } = read()
      for (const text of ["x", "y"]) {
        reader.restart(noFlow)
        reader.data(Buffer.from(eventOf(notification(text), "")))
      }
      expect(response.messages).toMatchObject([{ params: { text: "x" } }, { params: { text: "y" } }])
    })
  )

  it.scoped("reports dropped duplicates", () =>
    Effect.gen(function* () {
      const duplicateDropped = vi.fn()
      const { response, reader } = (yield* makeReaderWith({ ...silent, duplicateDropped }))(1)
      const once = Buffer.from(eventOf(notification("x"), "e1"))
      reader.data(once)
      reader.restart(noFlow)
      reader.data(once)
      expect(response.messages).toHaveLength(1)
      expect(duplicateDropped).toHaveBeenCalledTimes(1)
    }).pipe(Effect.provide(layerMemory()))
  )

  it.scoped("drops responses if it is standalone", () =>
    Effect.gen(function* () {
      const read = yield* makeReaderOverMemory
      const listening = read()
      const call = read(1)
      listening.reader.restart(noFlow)
      call.reader.restart(noFlow)
      const replayed = `id: e1\ndata: {}\n\n${eventOf(toolResult(1, "one"), "e2")}${eventOf(notification("x"), "e3")}`
      for (const { reader } of [listening, call]) reader.data(Buffer.from(replayed))
      expect(listening.response.messages).toMatchObject([{ params: { text: "x" } }])
      expect(call.response.messages).toMatchObject([{ id: 1 }])
    })
  )
})

describe("a stream that is not resumed", () => {
  it.scoped("keeps all events if the server uses the same ids in each stream", () =>
    Effect.gen(function* () {
      const read = yield* makeReaderOverMemory
      for (const id of [1, 2, 3]) {
        const { response, reader } = read(id)
        reader.data(Buffer.from(eventOf(notification("on its way"), "1") + eventOf(toolResult(id, "x"), "2")))
        expect(response.messages).toMatchObject([{ params: { text: "on its way" } }, { id }])
      }
    })
  )
})

describe("an event over the limit", () => {
  it.scoped("is passed on in pieces, and the next events as usual", () =>
    Effect.gen(function* () {
      const read = yield* makeReaderOverMemory
      const { response, reader } = read(1)
      const text = "x".repeat(17 * 1024 * 1024)
      const bytes = Buffer.from(eventOf(notification(text)) + eventOf(toolResult(1, "one")))
      for (let at = 0; at < bytes.length; at += 65_536) reader.data(bytes.subarray(at, at + 65_536))
      expect(response.messages).toMatchObject([{ params: { text } }, { id: 1 }])
      expect(reader.isComplete).toBe(true)
    })
  )

  const scarce = layerMemory({ maxTotalEventBytes: 2_000 })
  const large = Buffer.from(eventOf(notification("x".repeat(3_000)), "e1"))
  const sendBeginning = (reader: StreamReader) => {
    for (const start of [0, 1_000]) reader.data(large.subarray(start, start + 1_000))
  }
  const rest = large.subarray(2_000)

  it.scoped("has an event id of the proxy, and the event in the chunk of its end is read", () =>
    Effect.gen(function* () {
      const { response, reader, log } = (yield* makeReader)(1)
      const next = eventOf(toolResult(1, "one"), "next")
      sendBeginning(reader)
      reader.data(Buffer.concat([rest, Buffer.from(next)]))
      expect(response.messages).toMatchObject([{ method: "notifications/message" }, { id: 1 }])
      expect(response.eventIds).toEqual([log.idAt(1), log.idAt(2)])
      expect(reader.isComplete).toBe(true)
      expect(log.hasEvicted(0)).toBe(true)
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("contains no keep-alive comment", () =>
    Effect.gen(function* () {
      const { response, writer, reader } = (yield* makeReader)(1)
      sendBeginning(reader)
      writer.expire()
      reader.data(rest)
      expect(response.messages).toHaveLength(1)
      writer.expire()
      expect(response.text).toMatch(/\n\n: keep-alive\n\n$/)
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("is not complete after a disconnect, and the next event reaches the client", () =>
    Effect.gen(function* () {
      const { response, writer, reader } = (yield* makeReader)(1)
      sendBeginning(reader)
      expect(reader.isComplete).toBe(false)
      writer.append(
        Buffer.from(eventOf({ jsonrpc: "2.0", id: 1, error: { code: -1, message: "cut" } })),
        undefined
      )
      expect(response.messages).toMatchObject([{ id: 1, error: { message: "cut" } }])
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("arrives complete after a disconnect when the stream is resumed", () =>
    Effect.gen(function* () {
      const { response, reader } = (yield* makeReader)(1)
      sendBeginning(reader)
      reader.restart(noFlow)
      reader.data(Buffer.from(": nothing yet\n\n"))
      expect(reader.isComplete).toBe(false)
      sendBeginning(reader)
      reader.data(rest)
      expect(response.messages).toMatchObject([{ params: { text: "x".repeat(3_000) } }])
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("is not interrupted by an event of the proxy", () =>
    Effect.gen(function* () {
      const { response, reader, streams } = (yield* makeReader)(1)
      sendBeginning(reader)
      streams.send(Buffer.from(eventOf(notification("of the proxy"))), true)
      reader.data(rest)
      expect(response.messages).toMatchObject([{ params: { text: "x".repeat(3_000) } }])
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("ends on the stream where it began, although there is a newer stream", () =>
    Effect.gen(function* () {
      const { response, reader, streams } = (yield* makeReader)()
      sendBeginning(reader)
      const newer = new RecordedResponse()
      streams.join(newer, noFlow)
      reader.data(rest)
      expect(response.messages).toMatchObject([{ params: { text: "x".repeat(3_000) } }])
      expect(newer.text).toBe("")
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("is not sent to a client that did not receive its beginning", () =>
    Effect.gen(function* () {
      const { response, writer, reader } = (yield* makeReader)()
      sendBeginning(reader)
      writer.disconnect(response)
      const late = new RecordedResponse()
      writer.resume(late, { "content-type": "text/event-stream" }, 1)
      reader.data(Buffer.concat([rest, Buffer.from(eventOf(notification("next")))]))
      expect(late.messages).toMatchObject([{ params: { text: "next" } }])
      expect(late.text).not.toContain("xxx")
    }).pipe(Effect.provide(scarce))
  )
})

describe("incomplete events", () => {
  const half = Buffer.from(`data: ${"x".repeat(600)}`)
  const limit = { maxTotalEventBytes: 2_000 }

  it.scoped("count for the size of the tracker until their stream restarts or is aborted", () =>
    Effect.gen(function* () {
      const tracker = yield* EventTracker
      const { reader } = (yield* makeReader)(1)
      for (const stop of [() => reader.restart(noFlow), () => reader.abort()]) {
        reader.data(half)
        expect(tracker.size()).toEqual({ events: 0, bytes: half.length })
        stop()
        expect(tracker.size()).toEqual({ events: 0, bytes: 0 })
      }
    }).pipe(Effect.provide(layerMemory(limit)))
  )

  it.scoped("are passed on in pieces over the limit of all incomplete events", () =>
    Effect.gen(function* () {
      const read = yield* makeReader
      const [one, two] = [read(1), read(2)]
      for (const { reader } of [one, two])
        for (const part of [half.subarray(0, 300), half.subarray(300)]) reader.data(part)
      expect(one.response.text).toBe("")
      expect(two.response.text).toMatch(/^id: .*\ndata: x+$/)
      for (const { reader } of [one, two]) reader.data(Buffer.from("\n\n"))
      for (const { response } of [one, two]) expect(response.text).toMatch(/^id: .*\ndata: x+\n\n$/)
    }).pipe(Effect.provide(layerMemory(limit)))
  )
})

describe("the progress of a stream", () => {
  it.scoped("counts new events", () =>
    Effect.gen(function* () {
      const read = yield* makeReaderOverMemory
      const { reader } = read(1)
      const progressBy = (text: string) => {
        const before = reader.progress
        reader.data(Buffer.from(text))
        return reader.progress - before
      }
      expect(progressBy("id: e1\ndata: \n\n")).toBe(1)
      expect(progressBy(eventOf(notification("x"), "e2") + eventOf(notification("y")))).toBe(2)
      reader.restart(noFlow)
      expect(progressBy(": comment\n\nretry: 5\n\ndata: \n\n")).toBe(0)
      expect(progressBy(eventOf(notification("x"), "e2") + eventOf(toolResult(2, "of another"), "e3"))).toBe(
        0
      )
      expect(progressBy(eventOf(toolResult(1, "own"), "e4"))).toBe(1)
    })
  )
})
