import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { acceptedTypes, isAcceptable } from "../../src/Protocol/Accept.js"

describe("isAcceptable", () => {
  it.each([
    "application/json, text/event-stream",
    "application/json",
    "text/event-stream",
    "*/*",
    "application/*",
    "text/*;q=0.1",
    "text/html, */*;q=0.1",
    "Application/JSON",
    "application/json;q=0, */*",
    " application/json , text/html",
    "application/json; charset=utf-8"
  ])("accepts %j", (accept) => {
    expect(isAcceptable(accept)).toBe(true)
  })

  it("accepts a request without the header", () => {
    expect(isAcceptable(undefined)).toBe(true)
  })

  it.each([
    "text/html",
    "image/*",
    "application/jsonp",
    "application/json;q=0, text/event-stream;q=0",
    "*/*;q=0",
    "text/plain, application/xml;q=0.9"
  ])("rejects %j", (accept) => {
    expect(isAcceptable(accept)).toBe(false)
  })

  it("does not depend on earlier headers", () => {
    for (const accept of ["text/html", "*/*", "text/html", undefined, "text/html"])
      expect(isAcceptable(accept)).toBe(accept !== "text/html")
  })

  it.prop("returns the same result for the same garbage", [FastCheck.string()], ([accept]) => {
    const verdict = isAcceptable(accept)
    isAcceptable(undefined)
    expect(isAcceptable(accept)).toBe(verdict)
  })
})

describe("acceptedTypes", () => {
  it.each([
    [undefined, { json: true, stream: true }],
    ["application/json, text/event-stream", { json: true, stream: true }],
    ["application/json", { json: true, stream: false }],
    ["text/event-stream", { json: false, stream: true }],
    ["text/*, application/json;q=0", { json: false, stream: true }],
    ["text/html", { json: false, stream: false }]
  ])("parses %j", (accept, expected) => {
    expect(acceptedTypes(accept)).toEqual(expected)
  })
})
