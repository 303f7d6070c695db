import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { asLine, LineSplitter } from "../../src/internal/lines.js"
import { pieces } from "../fixtures/pieces.js"

/** Bytes and not text: a line may hold anything but its end. */
const line = FastCheck.oneof(
  FastCheck.string({ unit: "binary", maxLength: 12 }).map((text) => Buffer.from(text)),
  FastCheck.uint8Array({ maxLength: 12 }).map((bytes) => Buffer.from(bytes))
).map((bytes) => Buffer.from(bytes.filter((byte) => byte !== 0x0a && byte !== 0x0d)))

const lengths = FastCheck.array(FastCheck.integer({ min: 1, max: 9 }), { maxLength: 60 })

const read = (splitter: LineSplitter, chunks: ReadonlyArray<Buffer>): ReadonlyArray<Buffer> => {
  const lines: Array<Buffer> = []
  for (const chunk of chunks) expect(splitter.push(chunk, (line) => lines.push(line))).toBe(true)
  return lines
}

describe("lines", () => {
  it.prop(
    "are the same wherever the bytes are cut, in the middle of a character too",
    [FastCheck.array(FastCheck.tuple(line, FastCheck.constantFrom("\n", "\r\n"))), line, lengths],
    ([lines, rest, lengths]) => {
      const bytes = Buffer.concat([...lines.flatMap(([line, end]) => [line, Buffer.from(end)]), rest])
      const splitter = new LineSplitter(1024)
      expect(read(splitter, pieces(bytes, lengths))).toEqual(lines.map(([line]) => line))
      expect(splitter.flush() ?? Buffer.alloc(0)).toEqual(rest)
    }
  )

  it.prop(
    "may have as many bytes as the bound says, and no more",
    [FastCheck.integer({ min: 1, max: 40 }), FastCheck.integer({ min: 0, max: 80 }), lengths],
    ([bound, size, lengths]) => {
      const splitter = new LineSplitter(bound)
      const chunks = pieces(Buffer.from(`${"x".repeat(size)}\n`), lengths)
      expect(chunks.every((chunk) => splitter.push(chunk, () => {}))).toBe(size <= bound)
    }
  )

  it("one that is too long is let go of, and the next one is read", () => {
    const splitter = new LineSplitter(4)
    expect(splitter.push(Buffer.from("abcde"), () => {})).toBe(false)
    expect(read(splitter, [Buffer.from("ab\n")])).toEqual([Buffer.from("ab")])
  })
})

describe("JSON as a line", () => {
  it.prop(
    "means the same, and has no end of a line",
    [FastCheck.jsonValue(), FastCheck.nat({ max: 4 })],
    ([value, indent]) => {
      const json = JSON.stringify(value, undefined, indent).replaceAll("\n", "\r\n")
      const line = asLine(Buffer.from(json)).toString()
      expect(line).not.toMatch(/[\r\n]/)
      expect(JSON.parse(line)).toEqual(JSON.parse(json))
    }
  )

  it("that is one already is not copied", () => {
    const json = Buffer.from('{"a":1}')
    expect(asLine(json)).toBe(json)
  })
})
