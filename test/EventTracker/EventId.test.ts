import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { idOf, MAX_LENGTH, parse } from "../../src/EventTracker/EventId.js"

const count = FastCheck.integer({ min: 0, max: 36 ** 9 - 1 })
const id = FastCheck.record({
  secret: FastCheck.stringMatching(/^[\w-]{12}$/),
  generation: count,
  number: count.map((number) => Math.max(1, number)),
  sequence: count,
  requests: FastCheck.array(
    FastCheck.oneof(
      FastCheck.string({ maxLength: 12 }),
      FastCheck.stringMatching(/^\d{1,12}$/),
      FastCheck.integer(),
      FastCheck.maxSafeInteger(),
      FastCheck.double({ noNaN: true, noDefaultInfinity: true }).map((number) => number + 0)
    ),
    { maxLength: 3 }
  )
})

describe("parse", () => {
  it.prop("returns the position and the requests that idOf encoded", [id], ([id]) => {
    const text = idOf(id)
    expect(text.length).toBeLessThanOrEqual(MAX_LENGTH)
    expect(text).toMatch(/^[\w.-]+$/)
    const { requests, ...position } = parse(text) ?? { requests: [] }
    expect({ requests, ...position }).toEqual({ ...id, requests: text.endsWith("._") ? [] : id.requests })
  })

  it.prop("returns undefined for any other text", [FastCheck.string({ maxLength: 200 })], ([text]) => {
    expect(parse(text)).toBeUndefined()
  })
})
