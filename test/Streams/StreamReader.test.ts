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

/** One upstream session, whose streams are read into one log. */
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
    /** Reads a stream that responses these requests, or a standalone one. */
    const read = (...requests: ReadonlyArray<RequestId>) => {
      const responses = requests.length > 0
      const writer = responses ? streams.openAnswer(requests, noFlow) : streams.openStandaloneStream(noFlow)
      const response = new RecordedResponse()
      writer.open(response, 200, { "content-type": "text/event-stream" })
      let pieceTarget: StreamWriter | undefined
      const request = responses ? post(requests.map((id) => call(id))) : getRequest
      const reader = new StreamReader(
        deps,
        request,
        {
          ...ignoreAnswer,
          data: (chunk, part) => {
            if (part?.type === "piece" && part.isFirst) pieceTarget = responses ? writer : streams.newest
            const isWhole = part?.type === "event" || part?.type === "cursor"
            const target = isWhole ? (responses ? writer : streams.newest) : pieceTarget
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
const make = Effect.provide(makeReader, layerMemory())

const notification = (text: string) => ({ jsonrpc: "2.0", method: "notifications/message", params: { text } })

describe("a stream that is resumed", () => {
  it.scoped("takes nothing from another one to which the upstream repeats the same", () =>
    Effect.gen(function* () {
      const read = yield* make
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

  it.scoped("goes on behind an event of its own, whatever of others came in between", () =>
    Effect.gen(function* () {
      const read = yield* make
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

  it.scoped("goes on behind an id that came without an event", () =>
    Effect.gen(function* () {
      const read = yield* make
      const { response, reader, log } = read(1)
      reader.data(Buffer.from(`${eventOf(notification("x"), "e1")}: a comment\nid: e2\n\n`))
      expect([reader.lastEventId, log.cursor]).toEqual(["e2", "e2"])
      expect(response.messages).toMatchObject([{ params: { text: "x" } }])
    })
  )

  it.scoped("does not go on behind an id that was taken back", () =>
    Effect.gen(function* () {
      const read = yield* make
      for (const takenBack of ["id:\n\n", eventOf(notification("y"), ""), "id:\ndata:\n\n"]) {
        const { reader, log } = read(1)
        reader.data(Buffer.from(eventOf(notification("x"), `before ${JSON.stringify(takenBack)}`)))
        expect(reader.lastEventId).toBeDefined()
        reader.data(Buffer.from(takenBack))
        expect([reader.lastEventId !== undefined, log.cursor]).toEqual([false, undefined])
      }
    })
  )

  it.scoped("does not go on behind an id that is too long to be remembered", () =>
    Effect.gen(function* () {
      const read = yield* make
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

  it.scoped("repeats nothing by ids that are empty", () =>
    Effect.gen(function* () {
      const read = yield* make
      const { response, reader } = read()
      for (const text of ["x", "y"]) {
        reader.restart(noFlow)
        reader.data(Buffer.from(eventOf(notification(text), "")))
      }
      expect(response.messages).toMatchObject([{ params: { text: "x" } }, { params: { text: "y" } }])
    })
  )

  it.scoped("counts what the upstream repeats", () =>
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

  it.scoped("that responses nothing brings no responses", () =>
    Effect.gen(function* () {
      const read = yield* make
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

describe("a stream that has not broken", () => {
  it.scoped("repeats nothing, whatever ids its server gives: some begin anew with each stream", () =>
    Effect.gen(function* () {
      const read = yield* make
      for (const id of [1, 2, 3]) {
        const { response, reader } = read(id)
        reader.data(Buffer.from(eventOf(notification("on its way"), "1") + eventOf(toolResult(id, "x"), "2")))
        expect(response.messages).toMatchObject([{ params: { text: "on its way" } }, { id }])
      }
    })
  )
})

describe("an event of more than is held", () => {
  it.scoped("passes in pieces, and what follows it as ever", () =>
    Effect.gen(function* () {
      const read = yield* make
      const { response, reader } = read(1)
      const text = "x".repeat(17 * 1024 * 1024)
      const bytes = Buffer.from(eventOf(notification(text)) + eventOf(toolResult(1, "one")))
      for (let at = 0; at < bytes.length; at += 65_536) reader.data(bytes.subarray(at, at + 65_536))
      expect(response.messages).toMatchObject([{ params: { text } }, { id: 1 }])
      expect(reader.isComplete).toBe(true)
    })
  )

  const scarce = layerMemory({ maxTotalEventBytes: 2_000 })
  const large = Buffer.from(eventOf(notification("x".repeat(3_000)), "of the upstream"))
  const begin = (reader: StreamReader) => {
    for (const start of [0, 1_000]) reader.data(large.subarray(start, start + 1_000))
  }
  const rest = large.subarray(2_000)

  it.scoped("has an id of the proxy's all the same, and what comes with its end is read", () =>
    Effect.gen(function* () {
      const { response, reader, log } = (yield* makeReader)(1)
      const next = eventOf(toolResult(1, "one"), "next")
      begin(reader)
      reader.data(Buffer.concat([rest, Buffer.from(next)]))
      expect(response.messages).toMatchObject([{ method: "notifications/message" }, { id: 1 }])
      expect(response.eventIds).toEqual([log.idAt(1), log.idAt(2)])
      expect(reader.isComplete).toBe(true)
      expect(log.hasEvicted(0)).toBe(true)
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("has no comment inside of it", () =>
    Effect.gen(function* () {
      const { response, writer, reader } = (yield* makeReader)(1)
      begin(reader)
      writer.expire()
      reader.data(rest)
      expect(response.messages).toHaveLength(1)
      writer.expire()
      expect(response.text).toMatch(/\n\n: keep-alive\n\n$/)
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("that breaks is not taken for whole, and what is said next is heard", () =>
    Effect.gen(function* () {
      const { response, writer, reader } = (yield* makeReader)(1)
      begin(reader)
      expect(reader.isComplete).toBe(false)
      writer.append(
        Buffer.from(eventOf({ jsonrpc: "2.0", id: 1, error: { code: -1, message: "cut" } })),
        undefined
      )
      expect(response.messages).toMatchObject([{ id: 1, error: { message: "cut" } }])
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("that breaks comes whole when the stream goes on", () =>
    Effect.gen(function* () {
      const { response, reader } = (yield* makeReader)(1)
      begin(reader)
      reader.restart(noFlow)
      reader.data(Buffer.from(": nothing yet\n\n"))
      expect(reader.isComplete).toBe(false)
      begin(reader)
      reader.data(rest)
      expect(response.messages).toMatchObject([{ params: { text: "x".repeat(3_000) } }])
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("is not parted by what the proxy itself says", () =>
    Effect.gen(function* () {
      const { response, reader, streams } = (yield* makeReader)(1)
      begin(reader)
      streams.send(Buffer.from(eventOf(notification("of the proxy"))), true)
      reader.data(rest)
      expect(response.messages).toMatchObject([{ params: { text: "x".repeat(3_000) } }])
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("goes on where it began, though there is a newer stream", () =>
    Effect.gen(function* () {
      const { response, reader, streams } = (yield* makeReader)()
      begin(reader)
      const newer = new RecordedResponse()
      streams.join(newer, noFlow)
      reader.data(rest)
      expect(response.messages).toMatchObject([{ params: { text: "x".repeat(3_000) } }])
      expect(newer.text).toBe("")
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("is told to nobody who was not told its beginning", () =>
    Effect.gen(function* () {
      const { response, writer, reader } = (yield* makeReader)()
      begin(reader)
      writer.disconnect(response)
      const late = new RecordedResponse()
      writer.resume(late, { "content-type": "text/event-stream" }, 1)
      reader.data(Buffer.concat([rest, Buffer.from(eventOf(notification("next")))]))
      expect(late.messages).toMatchObject([{ params: { text: "next" } }])
      expect(late.text).not.toContain("xxx")
    }).pipe(Effect.provide(scarce))
  )
})

describe("events that are not whole", () => {
  const half = Buffer.from(`data: ${"x".repeat(600)}`)
  const bound = { maxTotalEventBytes: 2_000 }

  it.scoped("have room as long as somebody reads on", () =>
    Effect.gen(function* () {
      const tracker = yield* EventTracker
      const { reader } = (yield* makeReader)(1)
      for (const leave of [() => reader.restart(noFlow), () => reader.abort()]) {
        reader.data(half)
        expect(tracker.size()).toEqual({ events: 0, bytes: half.length })
        leave()
        expect(tracker.size()).toEqual({ events: 0, bytes: 0 })
      }
    }).pipe(Effect.provide(layerMemory(bound)))
  )

  it.scoped("pass in pieces when there is no room for more of them", () =>
    Effect.gen(function* () {
      const read = yield* makeReader
      const [one, two] = [read(1), read(2)]
      for (const { reader } of [one, two])
        for (const part of [half.subarray(0, 300), half.subarray(300)]) reader.data(part)
      expect(one.response.text).toBe("")
      expect(two.response.text).toMatch(/^id: .*\ndata: x+$/)
      for (const { reader } of [one, two]) reader.data(Buffer.from("\n\n"))
      for (const { response } of [one, two]) expect(response.text).toMatch(/^id: .*\ndata: x+\n\n$/)
    }).pipe(Effect.provide(layerMemory(bound)))
  )
})

describe("the progress of a stream", () => {
  it.scoped("is what is new in it", () =>
    Effect.gen(function* () {
      const read = yield* make
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
