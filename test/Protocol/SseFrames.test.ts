import { describe, expect, it } from "@effect/vitest"
import { createParser } from "eventsource-parser"
import * as FastCheck from "effect/FastCheck"
import { frame, FrameSplitter, hasEventId, messages, isPlainResponse } from "../../src/Protocol/SseFrames.js"
import { pieces } from "../fixtures/pieces.js"
import { call, notification, responseTo } from "../fixtures/requests.js"

/** Lines of a server, including the unusual ones that the format allows. */
const line = FastCheck.oneof(
  FastCheck.constantFrom(
    "data: x",
    "data:",
    "data",
    "id: 7",
    "id:",
    "event: message",
    "retry: 3000",
    ": comment",
    ":",
    "data: id: 9",
    "unknown: field"
  ),
  FastCheck.string({ maxLength: 8 }).map((text) => text.replaceAll(/[\r\n]/g, "é"))
)
const lineEnd = FastCheck.constantFrom("\n", "\r\n", "\r")
const stream = FastCheck.array(FastCheck.tuple(FastCheck.oneof(line, FastCheck.constant("")), lineEnd), {
  maxLength: 20
}).map((lines) => lines.flat().join(""))

/** The lengths of the pieces into which a stream is cut. */
const cuts = FastCheck.array(FastCheck.integer({ min: 0, max: 12 }), { maxLength: 60 })

const chunksOf = (stream: string, lengths: ReadonlyArray<number>): ReadonlyArray<Buffer> =>
  pieces(Buffer.from(stream), lengths)

/** The events that the official clients read. */
const eventsIn = (stream: string): ReadonlyArray<unknown> => {
  const events: Array<unknown> = []
  const parser = createParser({ onEvent: (event) => events.push(event) })
  parser.feed(stream)
  // It holds a final CR, which may be half of a CRLF.
  parser.feed("\n")
  return events
}

const push = (splitter: FrameSplitter, chunks: ReadonlyArray<Buffer>): ReadonlyArray<Buffer> =>
  chunks.flatMap((chunk) => splitter.push(chunk) ?? [])

describe("FrameSplitter", () => {
  it.prop(
    "passes bytes on unchanged, up to the end of the last frame",
    [stream, cuts],
    ([stream, lengths]) => {
      const released = Buffer.concat(push(new FrameSplitter(), chunksOf(stream, lengths))).toString()
      expect(stream.startsWith(released)).toBe(true)
      // The rest has no complete frame. It may start with the LF of a CRLF.
      expect(stream.slice(released.length)).not.toMatch(/(?:\r\n|\r(?!\n)|\n)[\r\n]/)
    },
    { fastCheck: { numRuns: 1_000 } }
  )

  it.prop(
    "releases complete frames, so that an event can be inserted between two releases",
    [stream, cuts],
    ([stream, lengths]) => {
      const splitter = new FrameSplitter()
      const extra = frame("extra").toString()
      let released = ""
      let mixed = extra
      let count = 1
      for (const chunk of chunksOf(stream, lengths)) {
        const frames = splitter.push(chunk)?.toString()
        if (frames === undefined) continue
        expect(splitter.isAtFrameEnd).toBe(true)
        released += frames
        mixed += frames + extra
        count++
      }
      const isExtra = (event: unknown) => JSON.stringify(event) === '{"event":"message","data":"extra"}'
      const events = eventsIn(mixed)
      expect(events.filter(isExtra).length).toBe(count)
      expect(events.filter((event) => !isExtra(event))).toEqual(eventsIn(released))
    },
    { fastCheck: { numRuns: 1_000 } }
  )

  it.prop("loses no event, for arbitrary chunks", [stream, cuts], ([stream, lengths]) => {
    const released = Buffer.concat(push(new FrameSplitter(), chunksOf(stream, lengths))).toString()
    const complete = stream + "\n\n"
    const whole = Buffer.concat(push(new FrameSplitter(), chunksOf(complete, lengths))).toString()
    expect(eventsIn(whole)).toEqual(eventsIn(complete))
    expect(eventsIn(complete).slice(0, eventsIn(released).length)).toEqual(eventsIn(released))
  })

  it.each(["\n", "\r\n", "\r"])(
    "finds the end of each frame in single bytes, with lines that end with %j",
    (end) => {
      const one = `event: message${end}data: 1${end}${end}`
      const splitter = new FrameSplitter()
      const released = push(splitter, chunksOf(one + one, new Array<number>(2 * one.length).fill(1)))
      expect(Buffer.concat(released).toString()).toBe(one + one)
      expect(eventsIn(released[0]?.toString() ?? "")).toEqual([{ event: "message", data: "1" }])
    }
  )

  it("passes on a chunk of complete frames without a copy", () => {
    const chunk = Buffer.from("data: 1\n\ndata: 2\n\n")
    expect(new FrameSplitter().push(chunk)).toBe(chunk)
  })

  it("accepts a part of a plain Uint8Array", () => {
    const chunk = new Uint8Array(Buffer.from("xxdata: 1\n\nyy")).subarray(2, 11)
    expect(new FrameSplitter().push(chunk)?.toString()).toBe("data: 1\n\n")
  })

  it("ignores an empty chunk", () => {
    const splitter = new FrameSplitter()
    expect(splitter.push(Buffer.from("data: 1\n"))).toBeUndefined()
    expect(splitter.push(Buffer.alloc(0))).toBeUndefined()
    expect(splitter.push(Buffer.from("\n"))?.toString()).toBe("data: 1\n\n")
  })

  it("does not count released bytes against its limit", () => {
    const splitter = new FrameSplitter()
    const one = `data: ${"x".repeat(1000)}\n\n`
    for (let count = 0; count < 2000; count++) {
      expect(splitter.push(Buffer.from(one.slice(0, 900)))).toBeUndefined()
      expect(splitter.push(Buffer.from(one.slice(900)))?.length).toBe(one.length)
    }
  })

  it("loses nothing if the budget is exhausted, and releases what it reserved", () => {
    let taken = 0
    const room = (bound: number) => ({
      hold: (bytes: number) => taken + bytes <= bound && (taken += bytes) > 0,
      release: (bytes: number) => void (taken -= bytes)
    })
    for (const bound of [0, 7, 12, 1_000]) {
      const splitter = new FrameSplitter(1_000, room(bound))
      const chunks = ["data: a\n\nda", "ta: bb", "bbb\n\ndata:", " c\n", "\ndata: d", "d", "d"].map((text) =>
        Buffer.from(text)
      )
      const released = push(splitter, chunks).join("")
      expect("data: a\n\ndata: bbbbb\n\ndata: c\n\ndata: ddd".startsWith(released)).toBe(true)
      splitter.close()
      expect(taken).toBe(0)
    }
  })

  it("passes on a frame over the limit in pieces, and holds no more than the limit", () => {
    const mebibyte = 1024 * 1024
    const huge = `data: ${"x".repeat(3 * mebibyte)}\n\n`
    const splitter = new FrameSplitter()
    const sizes = new Array<number>(Math.floor(huge.length / 60_000)).fill(60_000)
    let pushed = 0
    const released: Array<Buffer> = []
    for (const chunk of chunksOf(huge, sizes)) {
      pushed += chunk.length
      const frames = splitter.push(chunk)
      if (frames === undefined) {
        expect(pushed - Buffer.concat(released).length).toBeLessThanOrEqual(mebibyte)
      } else {
        released.push(frames)
        expect(splitter.isAtFrameEnd).toBe(pushed === huge.length)
      }
    }
    expect(Buffer.concat(released).toString()).toBe(huge)
    expect(splitter.push(Buffer.from("data: next\n\n"))?.toString()).toBe("data: next\n\n")
    expect(splitter.isAtFrameEnd).toBe(true)
  })
})

describe("hasEventId", () => {
  it.each([
    ["first in a stream", "id: 1\ndata: {}\n\n"],
    ["behind another field", "event: message\nid: 1\ndata: {}\n\n"],
    ["without a space", "data: {}\nid:1\n\n"],
    ["with CR", "data: {}\rid: 1\r\r"],
    ["with CRLF", "data: {}\r\nid: 1\r\n\r\n"],
    ["in a priming event", "id: 1\ndata:\n\n"],
    ["in a later frame", 'data: {"id:": "id:"}\n\nid: 1\ndata: {}\n\n']
  ])("finds an id %s", (_, text) => {
    expect(hasEventId(Buffer.from(text))).toBe(true)
  })

  it.each([
    ["in the data", 'data: {"id":1,"text":"id: 1"}\n\n'],
    ["in a comment", ": id: 1\n\n"],
    ["at the end of another field's name", "pid: 1\n\n"],
    ["without a colon", "data: idle\n\n"],
    ["nowhere", ""]
  ])("finds no id %s", (_, text) => {
    expect(hasEventId(Buffer.from(text))).toBe(false)
  })

  it.prop("finds every id that the client's parser finds", [stream], ([stream]) => {
    const ids: Array<string | undefined> = []
    const parser = createParser({ onEvent: ({ id }) => ids.push(id) })
    parser.feed(stream)
    parser.feed("\n\n")
    if (ids.some((id) => id !== undefined && id !== ""))
      expect(hasEventId(Buffer.from(`${stream}\n`))).toBe(true)
  })
})

describe("messages", () => {
  const one = responseTo(1, { text: "é ✓" })
  const two = notification("notifications/message")

  it.each(["\n", "\r\n", "\r"])("parses lines that end with %j", (end) => {
    const text = [one, two]
      .map((message) => `event: message${end}data: ${JSON.stringify(message)}${end}${end}`)
      .join("")
    expect(messages(Buffer.from(text))).toEqual([one, two])
  })

  it("parses a frame that ends between CR and LF", () => {
    expect(messages(Buffer.from(`data: ${JSON.stringify(one)}\r\n\r`))).toEqual([one])
  })

  it("parses a message over several data lines", () => {
    const text = JSON.stringify(one, undefined, 2).replaceAll("\n", "\ndata: ")
    expect(messages(Buffer.from(`data: ${text}\n\n`))).toEqual([one])
  })

  it("parses all messages of a batch in one event (2025-03-26)", () => {
    expect(messages(Buffer.from(`data: ${JSON.stringify([one, responseTo(2)])}\n\n`))).toEqual([
      one,
      responseTo(2)
    ])
  })

  it.prop("parses the messages of frame", [FastCheck.jsonValue()], ([params]) => {
    const message = call(1, "tools/call", { params })
    expect(messages(frame(JSON.stringify(message)))).toEqual(
      messages(Buffer.from(`data: ${JSON.stringify(message)}\n\n`))
    )
    expect(messages(frame(JSON.stringify(message)))).toMatchObject([{ id: 1, method: "tools/call" }])
  })

  it.prop("returns none for garbage, without an exception", [FastCheck.uint8Array()], ([garbage]) => {
    expect(messages(Buffer.from(garbage))).toEqual([])
    hasEventId(Buffer.from(garbage))
  })
})

describe("isPlainResponse", () => {
  const id = FastCheck.oneof(FastCheck.integer(), FastCheck.string())
  const nested = FastCheck.oneof(
    FastCheck.jsonValue(),
    FastCheck.tuple(id, FastCheck.jsonValue()).map(([id, result]) => responseTo(id, result)),
    FastCheck.tuple(id, FastCheck.jsonValue()).map(([id, result]) =>
      frame(JSON.stringify(responseTo(id, result))).toString()
    )
  )
  const written = FastCheck.tuple(id, nested, FastCheck.boolean()).map(([id, result, isLast]) => ({
    id,
    result,
    frames: frame(JSON.stringify(isLast ? { result, jsonrpc: "2.0", id } : responseTo(id, result)))
  }))

  it.prop("finds every response, wherever its id is", [written], ([{ frames, id, result }]) => {
    const mayAsk = JSON.stringify(result).includes('"method"')
    expect(isPlainResponse(frames, id)).toBe(!mayAsk)
  })

  it.prop("finds nothing that parsing would not find", [FastCheck.array(written), id], ([all, id]) => {
    const frames = Buffer.concat(all.map(({ frames }) => frames))
    for (const asked of [id, ...all.map(({ id }) => id), 0, 1, ""]) {
      if (isPlainResponse(frames, asked)) expect(messages(frames).map(({ id }) => id)).toContain(asked)
    }
  })

  it.each([
    ["a request with that id", call(1)],
    ["a response to another request", responseTo(11)],
    ["a response to another type of id", responseTo("1")],
    ["a response that quotes one", responseTo(2, { text: frame(JSON.stringify(responseTo(1))).toString() })],
    ["a response that holds one", responseTo(2, responseTo(1))]
  ])("ignores %s", (_, message) => {
    expect(isPlainResponse(frame(JSON.stringify(message)), 1)).toBe(false)
  })
})
