import { describe, expect, it } from "@effect/vitest"
import { first, hasType, mediaType } from "../../src/internal/headers.js"

describe("a header field", () => {
  it("has the first of several values", () => {
    expect(first({ a: ["1", "2"] }, "a")).toBe("1")
    expect(first({ a: "1" }, "a")).toBe("1")
    expect(first({}, "a")).toBeUndefined()
  })

  it.each([
    ["application/json", "application/json"],
    ["Application/JSON; charset=utf-8", "application/json"],
    [" text/event-stream ;charset=utf-8", "text/event-stream"],
    ["", ""]
  ])("Content-Type %j has the media type %j", (contentType, expected) => {
    expect(mediaType({ "content-type": contentType })).toBe(expected)
    expect(hasType({ "content-type": contentType }, expected)).toBe(true)
  })

  it("has no media type without Content-Type", () => {
    expect(mediaType({})).toBeUndefined()
    expect(hasType({}, "application/json")).toBe(false)
    expect(hasType({ "content-type": "application/jsonp" }, "application/json")).toBe(false)
  })
})
