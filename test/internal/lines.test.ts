import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { asLine, LineSplitter } from "../../src/internal/lines.js"
import { pieces } from "../fixtures/pieces.js"

/** Bytes that need not be UTF-8. A line can hold any byte except those of its ending. */
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

describe("LineSplitter", () => {
  it.prop(
    "finds the same lines for all chunk boundaries, also inside of a character",
    [FastCheck.array(FastCheck.tuple(line, FastCheck.constantFrom("\n", "\r\n"))), line, lengths],
    ([lines, rest, lengths]) => {
      const bytes = Buffer.concat([...lines.flatMap(([line, end]) => [line, Buffer.from(end)]), rest])
      const splitter = new LineSplitter(1024)
      expect(read(splitter, pieces(bytes, lengths))).toEqual(lines.map(([line]) => line))
      expect(splitter.flush() ?? Buffer.alloc(0)).toEqual(rest)
    }
  )

  it.prop(
    "rejects a line that exceeds the limit",
    [FastCheck.integer({ min: 1, max: 40 }), FastCheck.integer({ min: 0, max: 80 }), lengths],
    ([bound, size, lengths]) => {
      const splitter = new LineSplitter(bound)
      const chunks = pieces(Buffer.from(`${"x".repeat(size)}\n`), lengths)
      expect(chunks.every((chunk) => splitter.push(chunk, () => {}))).toBe(size <= bound)
    }
  )

  it("drops a line that is too long, and reads the next one", () => {
    const splitter = new LineSplitter(4)
    expect(splitter.push(Buffer.from("abcde"), () => {})).toBe(false)
    expect(read(splitter, [Buffer.from("ab\n")])).toEqual([Buffer.from("ab")])
  })
})

describe("asLine", () => {
  it.prop(
    "removes the line endings and keeps the value",
    [FastCheck.jsonValue(), FastCheck.nat({ max: 4 })],
    ([value, indent]) => {
      const json = JSON.stringify(value, undefined, indent).replaceAll("\n", "\r\n")
      const line = asLine(Buffer.from(json)).toString()
      expect(line).not.toMatch(/[\r\n]/)
      expect(JSON.parse(line)).toEqual(JSON.parse(json))
    }
  )

  it("does not copy JSON without line endings", () => {
    const json = Buffer.from('{"a":1}')
    expect(asLine(json)).toBe(json)
  })
})
