import { describe, expect, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { backoff, isTransient } from "../../src/internal/backoff.js"

describe("backoff", () => {
  it.prop(
    "grows exponentially to 30 s above the minimum",
    [FastCheck.nat({ max: 2_000 }), FastCheck.nat({ max: 10_000 })],
    ([failures, minimum]) => {
      const jitter = Duration.toMillis(Effect.runSync(backoff(failures, minimum))) - minimum
      expect(jitter).toBeGreaterThanOrEqual(0)
      expect(jitter).toBeLessThanOrEqual(Math.min(30_000, 200 * 2 ** failures))
    }
  )
})

describe("isTransient", () => {
  it.each([408, 409, 425, 429, 500, 502, 503, 504])("accepts %d", (status) => {
    expect(isTransient(status)).toBe(true)
  })

  it.each([200, 202, 301, 400, 401, 404, 405])("rejects %d", (status) => {
    expect(isTransient(status)).toBe(false)
  })
})
