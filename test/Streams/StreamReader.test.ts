import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { vi } from "vitest"
import { EventTracker, layerMemory } from "../../src/EventTracker.js"
import { type Awaiting, StreamReader } from "../../src/Streams/StreamReader.js"
import { Backlog } from "../../src/Streams/Backlog.js"
import * as Deadlines from "../../src/internal/deadlines.js"
import type { RequestId } from "../../src/Protocol.js"
import { Streams } from "../../src/Streams.js"
import { type TelemetryListener, silent } from "../../src/Telemetry.js"
import type { Flow } from "../../src/Upstream.js"
import { eventOf, toolResult } from "../fixtures/events.js"
import { RecordedAnswer } from "../fixtures/RecordedAnswer.js"

const still: Flow = { pause: () => {}, unpause: () => {} }

/** One session of the upstream's, whose streams are read into one log. */
const readingFor = (telemetry: TelemetryListener) =>
  Effect.gen(function* () {
    const tracker = yield* EventTracker
    const log = yield* tracker.open("a")
    if (log === undefined) return yield* Effect.dieMessage("nothing is kept")
    const terms = {
      deadlines: yield* Deadlines.make,
      telemetry,
      keepAlive: 15_000,
      retry: 3_000,
      isPrimed: false,
      bounds: { events: 1_000, bytes: 1_000_000 },
      backlog: new Backlog()
    }
    const streams = new Streams(log, terms, "the-id")
    /** Reads a stream that answers these requests, or a standalone one. */
    const read = (...requests: ReadonlyArray<RequestId>) => {
      const answers = requests.length > 0
      const delivery = answers ? streams.answering(requests, still) : streams.listening(still)
      const answer = new RecordedAnswer()
      delivery.begin(answer, 200, { "content-type": "text/event-stream" })
      const noted: Array<string> = []
      const awaiting: Awaiting = { requests, note: (frame) => noted.push(String(frame)), follow: () => {} }
      const intake = new StreamReader(
        awaiting,
        answers,
        () => (answers ? delivery : streams.newest),
        streams.log,
        telemetry
      )
      return { answer, delivery, intake, log: delivery.log, noted, streams }
    }
    return read
  })
const reading = readingFor(silent)
const make = Effect.provide(reading, layerMemory())

const notification = (text: string) => ({ jsonrpc: "2.0", method: "notifications/message", params: { text } })

describe("a stream that is resumed", () => {
  it.scoped("takes nothing from another one to which the upstream repeats the same", () =>
    Effect.gen(function* () {
      const read = yield* make
      const [one, two] = [read(1), read(2)]
      one.intake.data(Buffer.from(eventOf(notification("one"), "e1")))
      two.intake.data(Buffer.from(eventOf(notification("two"), "e2")))
      const all = [toolResult(1, "one"), toolResult(2, "two")].map((message, index) =>
        eventOf(message, `e${index + 3}`)
      )
      for (const { intake } of [two, one]) {
        intake.restarted(still)
        intake.data(Buffer.from(all.join("")))
      }
      expect(one.answer.messages()).toMatchObject([{ params: { text: "one" } }, { id: 1 }])
      expect(two.answer.messages()).toMatchObject([{ params: { text: "two" } }, { id: 2 }])
    })
  )

  it.scoped("goes on behind an event of its own, whatever of others came in between", () =>
    Effect.gen(function* () {
      const read = yield* make
      const { intake } = read(1)
      intake.data(Buffer.from("id: e1\ndata: \n\n"))
      intake.restarted(still)
      intake.data(Buffer.from(eventOf(notification("own"), "e2") + eventOf(toolResult(2, "two"), "e3")))
      intake.data(Buffer.from("id: e4\ndata: {}\n\n"))
      expect(intake.lastEventId).toBe("e2")
      intake.data(Buffer.from("id: e5\ndata: \n\n"))
      expect(intake.lastEventId).toBe("e5")
    })
  )

  it.scoped("goes on behind an id that came without an event", () =>
    Effect.gen(function* () {
      const read = yield* make
      const { answer, intake, log } = read(1)
      intake.data(Buffer.from(`${eventOf(notification("x"), "e1")}: a comment\nid: e2\n\n`))
      expect([intake.lastEventId, log.cursor]).toEqual(["e2", "e2"])
      expect(answer.messages()).toMatchObject([{ params: { text: "x" } }])
    })
  )

  it.scoped("does not go on behind an id that was taken back", () =>
    Effect.gen(function* () {
      const read = yield* make
      for (const takenBack of ["id:\n\n", eventOf(notification("y"), ""), "id:\ndata:\n\n"]) {
        const { intake, log } = read(1)
        intake.data(Buffer.from(eventOf(notification("x"), `before ${JSON.stringify(takenBack)}`)))
        expect(intake.isResumable).toBe(true)
        intake.data(Buffer.from(takenBack))
        expect([intake.isResumable, log.cursor]).toEqual([false, undefined])
      }
    })
  )

  it.scoped("does not go on behind an id that is too long to be remembered", () =>
    Effect.gen(function* () {
      const read = yield* make
      const { answer, intake, log } = read(1)
      intake.data(
        Buffer.from(eventOf(notification("x"), "e1") + eventOf(notification("y"), "e".repeat(1_025)))
      )
      expect(answer.messages()).toHaveLength(2)
      expect([intake.isResumable, log.cursor, log.after(1)?.upstreamId]).toEqual([
        false,
        undefined,
        undefined
      ])
    })
  )

  it.scoped("repeats nothing by ids that are empty", () =>
    Effect.gen(function* () {
      const read = yield* make
      const { answer, intake } = read()
      for (const text of ["x", "y"]) {
        intake.restarted(still)
        intake.data(Buffer.from(eventOf(notification(text), "")))
      }
      expect(answer.messages()).toMatchObject([{ params: { text: "x" } }, { params: { text: "y" } }])
    })
  )

  it.scoped("counts what the upstream repeats", () =>
    Effect.gen(function* () {
      const repeated = vi.fn()
      const { answer, intake } = (yield* readingFor({ ...silent, duplicateDropped: repeated }))(1)
      const once = Buffer.from(eventOf(notification("x"), "e1"))
      intake.data(once)
      intake.restarted(still)
      intake.data(once)
      expect(answer.messages()).toHaveLength(1)
      expect(repeated).toHaveBeenCalledTimes(1)
    }).pipe(Effect.provide(layerMemory()))
  )

  it.scoped("that answers nothing brings no responses", () =>
    Effect.gen(function* () {
      const read = yield* make
      const listening = read()
      const call = read(1)
      listening.intake.restarted(still)
      call.intake.restarted(still)
      const repeated = `id: e1\ndata: {}\n\n${eventOf(toolResult(1, "one"), "e2")}${eventOf(notification("x"), "e3")}`
      for (const { intake } of [listening, call]) intake.data(Buffer.from(repeated))
      expect(listening.answer.messages()).toMatchObject([{ params: { text: "x" } }])
      expect(call.answer.messages()).toMatchObject([{ id: 1 }])
    })
  )
})

describe("a stream that has not broken", () => {
  it.scoped("repeats nothing, whatever ids its server gives: some begin anew with each stream", () =>
    Effect.gen(function* () {
      const read = yield* make
      for (const id of [1, 2, 3]) {
        const { answer, intake } = read(id)
        intake.data(Buffer.from(eventOf(notification("on its way"), "1") + eventOf(toolResult(id, "x"), "2")))
        expect(answer.messages()).toMatchObject([{ params: { text: "on its way" } }, { id }])
      }
    })
  )
})

describe("an event of more than is held", () => {
  it.scoped("passes in pieces, and what follows it as ever", () =>
    Effect.gen(function* () {
      const read = yield* make
      const { answer, intake } = read(1)
      const text = "x".repeat(17 * 1024 * 1024)
      const bytes = Buffer.from(eventOf(notification(text)) + eventOf(toolResult(1, "one")))
      for (let at = 0; at < bytes.length; at += 65_536) intake.data(bytes.subarray(at, at + 65_536))
      expect(answer.messages()).toMatchObject([{ params: { text } }, { id: 1 }])
      expect(intake.isComplete).toBe(true)
    })
  )

  const scarce = layerMemory({ maxTotalEventBytes: 2_000 })
  const large = Buffer.from(eventOf(notification("x".repeat(3_000)), "of the upstream"))
  const begin = (intake: StreamReader) => {
    for (const start of [0, 1_000]) intake.data(large.subarray(start, start + 1_000))
  }
  const rest = large.subarray(2_000)

  it.scoped("has an id of the proxy's all the same, and what comes with its end is read", () =>
    Effect.gen(function* () {
      const { answer, intake, log, noted } = (yield* reading)(1)
      const next = eventOf(toolResult(1, "one"), "next")
      begin(intake)
      intake.data(Buffer.concat([rest, Buffer.from(next)]))
      expect(answer.messages()).toMatchObject([{ method: "notifications/message" }, { id: 1 }])
      expect(answer.eventIds()).toEqual([log.idAt(1), log.idAt(2)])
      expect(noted.join("")).toContain("one")
      expect(log.hasEvicted(0)).toBe(true)
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("has no comment inside of it", () =>
    Effect.gen(function* () {
      const { answer, delivery, intake } = (yield* reading)(1)
      begin(intake)
      delivery.expire()
      intake.data(rest)
      expect(answer.messages()).toHaveLength(1)
      delivery.expire()
      expect(answer.text).toMatch(/\n\n: keep-alive\n\n$/)
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("that breaks is not taken for whole, and what is said next is heard", () =>
    Effect.gen(function* () {
      const { answer, delivery, intake } = (yield* reading)(1)
      begin(intake)
      expect(intake.isComplete).toBe(false)
      delivery.append(
        Buffer.from(eventOf({ jsonrpc: "2.0", id: 1, error: { code: -1, message: "cut" } })),
        undefined
      )
      expect(answer.messages()).toMatchObject([{ id: 1, error: { message: "cut" } }])
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("that breaks comes whole when the stream goes on", () =>
    Effect.gen(function* () {
      const { answer, intake } = (yield* reading)(1)
      begin(intake)
      intake.restarted(still)
      intake.data(Buffer.from(": nothing yet\n\n"))
      expect(intake.isComplete).toBe(false)
      begin(intake)
      intake.data(rest)
      expect(answer.messages()).toMatchObject([{ params: { text: "x".repeat(3_000) } }])
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("is not parted by what the proxy itself says", () =>
    Effect.gen(function* () {
      const { answer, intake, streams } = (yield* reading)(1)
      begin(intake)
      streams.tell(Buffer.from(eventOf(notification("of the proxy"))), true)
      intake.data(rest)
      expect(answer.messages()).toMatchObject([{ params: { text: "x".repeat(3_000) } }])
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("goes on where it began, though there is a newer stream", () =>
    Effect.gen(function* () {
      const { answer, intake, streams } = (yield* reading)()
      begin(intake)
      const newer = new RecordedAnswer()
      streams.join(newer, still)
      intake.data(rest)
      expect(answer.messages()).toMatchObject([{ params: { text: "x".repeat(3_000) } }])
      expect(newer.text).toBe("")
    }).pipe(Effect.provide(scarce))
  )

  it.scoped("is told to nobody who was not told its beginning", () =>
    Effect.gen(function* () {
      const { answer, delivery, intake } = (yield* reading)()
      begin(intake)
      delivery.leave(answer)
      const late = new RecordedAnswer()
      delivery.comeBack(late, { "content-type": "text/event-stream" }, 1)
      intake.data(Buffer.concat([rest, Buffer.from(eventOf(notification("next")))]))
      expect(late.messages()).toMatchObject([{ params: { text: "next" } }])
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
      const { intake } = (yield* reading)(1)
      for (const leave of [() => intake.restarted(still), () => intake.close()]) {
        intake.data(half)
        expect(tracker.size()).toEqual({ events: 0, bytes: half.length })
        leave()
        expect(tracker.size()).toEqual({ events: 0, bytes: 0 })
      }
    }).pipe(Effect.provide(layerMemory(bound)))
  )

  it.scoped("pass in pieces when there is no room for more of them", () =>
    Effect.gen(function* () {
      const read = yield* reading
      const [one, two] = [read(1), read(2)]
      for (const { intake } of [one, two])
        for (const part of [half.subarray(0, 300), half.subarray(300)]) intake.data(part)
      expect(one.answer.text).toBe("")
      expect(two.answer.text).toMatch(/^id: .*\ndata: x+$/)
      for (const { intake } of [one, two]) intake.data(Buffer.from("\n\n"))
      for (const { answer } of [one, two]) expect(answer.text).toMatch(/^id: .*\ndata: x+\n\n$/)
    }).pipe(Effect.provide(layerMemory(bound)))
  )
})

describe("the progress of a stream", () => {
  it.scoped("is what is new in it", () =>
    Effect.gen(function* () {
      const read = yield* make
      const { intake } = read(1)
      const progressBy = (text: string) => {
        const before = intake.progress
        intake.data(Buffer.from(text))
        return intake.progress - before
      }
      expect(progressBy("id: e1\ndata: \n\n")).toBe(1)
      expect(progressBy(eventOf(notification("x"), "e2") + eventOf(notification("y")))).toBe(2)
      intake.restarted(still)
      expect(progressBy(": comment\n\nretry: 5\n\ndata: \n\n")).toBe(0)
      expect(progressBy(eventOf(notification("x"), "e2") + eventOf(toolResult(2, "of another"), "e3"))).toBe(
        0
      )
      expect(progressBy(eventOf(toolResult(1, "own"), "e4"))).toBe(1)
    })
  )
})
