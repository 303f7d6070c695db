import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import {
  isModernRevision,
  legacyRevisions,
  modernHeaders,
  PROTOCOL_VERSION_META,
  requestedRevision
} from "../../src/Protocol.js"
import { bodyOf, call, modernCall } from "../fixtures/requests.js"

describe("isModernRevision", () => {
  it.each(["2026-07-28", "2026-07-29", "2099-01-01"])("accepts %s", (revision) => {
    expect(isModernRevision(revision)).toBe(true)
  })

  it.each([...legacyRevisions, "2026-07-27", "", "1.0", "draft", "latest", "2099-01-01x", "2099-01-01, x"])(
    "rejects %j",
    (revision) => {
      expect(isModernRevision(revision)).toBe(false)
    }
  )
})

describe("requestedRevision", () => {
  it("prefers the claim in `_meta` to the header", () => {
    expect(requestedRevision("2025-06-18", bodyOf(modernCall(1)))).toBe("2026-07-28")
    expect(requestedRevision("2099-01-01", bodyOf(call(1)))).toBe("2099-01-01")
    expect(requestedRevision(undefined, undefined)).toBeUndefined()
  })

  it.prop("reads the claim from its key only", [FastCheck.jsonValue()], ([value]) => {
    const none = [
      { params: value },
      { params: { _meta: value } },
      { params: { [PROTOCOL_VERSION_META]: value } }
    ]
    for (const members of none) {
      expect(requestedRevision(undefined, bodyOf({ ...call(1), ...members }))).toBeUndefined()
    }
  })
})

describe("modernHeaders", () => {
  const headersOf = (method: string, params: object) =>
    modernHeaders(bodyOf(call(1, method, { ...params, _meta: { [PROTOCOL_VERSION_META]: "2026-07-28" } })))

  it("repeats the revision, the method and the name or URI", () => {
    const common = { "mcp-protocol-version": "2026-07-28" }
    expect(headersOf("tools/list", {})).toEqual({ ...common, "mcp-method": "tools/list" })
    expect(headersOf("tools/call", { name: "a" })).toEqual({
      ...common,
      "mcp-method": "tools/call",
      "mcp-name": "a"
    })
    expect(headersOf("resources/read", { uri: "file:///a" })).toMatchObject({ "mcp-name": "file:///a" })
  })

  it.each([
    ["日本", "=?base64?5pel5pys?="],
    [" a", "=?base64?IGE=?="],
    ["=?x", "=?base64?PT94?="]
  ])("encodes the name %j", (name, encoded) => {
    expect(headersOf("tools/call", { name })).toMatchObject({ "mcp-name": encoded })
  })
})
