import { describe, expect, it } from "@effect/vitest"
import { first, hasType, mediaType } from "../../src/internal/headers.js"

describe("reading a field", () => {
  it("the first of several values counts", () => {
    expect(first({ a: ["1", "2"] }, "a")).toBe("1")
    expect(first({ a: "1" }, "a")).toBe("1")
    expect(first({}, "a")).toBeUndefined()
  })

  it.each([
    ["application/json", "application/json"],
    ["Application/JSON; charset=utf-8", "application/json"],
    [" text/event-stream ;charset=utf-8", "text/event-stream"],
    ["", ""]
  ])("the media type of %j is %j", (contentType, expected) => {
    expect(mediaType({ "content-type": contentType })).toBe(expected)
    expect(hasType({ "content-type": contentType }, expected)).toBe(true)
  })

  it("without a Content-Type there is no media type", () => {
    expect(mediaType({})).toBeUndefined()
    expect(hasType({}, "application/json")).toBe(false)
    expect(hasType({ "content-type": "application/jsonp" }, "application/json")).toBe(false)
  })
})
