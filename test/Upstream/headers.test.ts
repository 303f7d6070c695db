import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import type { Headers } from "../../src/internal/headers.js"
import { toClient, toUpstream } from "../../src/Upstream/headers.js"

const hopByHop = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade"
]

const forUpstream = (headers: Headers) => toUpstream(headers, undefined, {})
const forClient = (headers: Headers) => toClient(headers, undefined)

const value = FastCheck.oneof(
  FastCheck.string(),
  FastCheck.array(FastCheck.string(), { minLength: 1, maxLength: 3 })
)
/** Names of fields that must cross, some of them similar to those that must not. */
const plainName = FastCheck.oneof(
  FastCheck.constantFrom(
    "authorization",
    "content-type",
    "accept",
    "accept-language",
    "cookie",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "mcp-param-city",
    "traceparent",
    "user-agent",
    "www-authenticate",
    "set-cookie",
    "x-access-control-allow-origin",
    "connection-id",
    "hostname"
  ),
  FastCheck.stringMatching(/^x-[a-z0-9-]{1,10}$/)
)
const plain = FastCheck.dictionary(plainName, value)

describe.each([
  ["upstream", forUpstream],
  ["client", forClient]
])("to the %s", (_, cross) => {
  it.each(hopByHop)("drops %s", (name) => {
    expect(cross({ [name]: "x", "x-other": "y" })).not.toHaveProperty([name])
  })

  it("drops the fields that Connection names, in upper or lower case", () => {
    const out = cross({
      connection: "close, X-One ,x-TWO",
      "x-one": "1",
      "x-two": "2",
      "x-three": "3",
      close: "a field"
    })
    expect(out).toMatchObject({ "x-three": "3" })
    for (const name of ["x-one", "x-two", "close"]) expect(out).not.toHaveProperty([name])
  })

  it("drops the fields that repeated Connection fields name", () => {
    const out = cross({ connection: ["x-one", "x-two"], "x-one": "1", "x-two": "2" })
    expect(Object.keys(out).filter((name) => name.startsWith("x-"))).toEqual([])
  })

  it.prop(
    "drops hop-by-hop fields and those that Connection names, and keeps all others",
    [
      plain,
      FastCheck.dictionary(
        FastCheck.constantFrom(...hopByHop.filter((name) => name !== "connection")),
        value
      ),
      FastCheck.array(plainName, { maxLength: 3 }),
      FastCheck.constantFrom(",", ", ", " ,\t"),
      FastCheck.boolean()
    ],
    ([plain, hops, nominated, comma, isUpper]) => {
      const connection = nominated.map((name) => (isUpper ? name.toUpperCase() : name)).join(comma)
      const out = cross({ ...plain, ...hops, connection })
      for (const name of [...hopByHop, ...nominated]) expect(out).not.toHaveProperty([name])
      for (const [name, value] of Object.entries(plain))
        if (!nominated.includes(name)) expect(out[name]).toEqual(value)
    }
  )

  it("does not change the given object", () => {
    const headers = Object.freeze({ "x-one": "1", "mcp-session-id": "a" })
    expect(() => cross(headers)).not.toThrow()
  })

  it("drops undefined fields", () => {
    expect(Object.keys(cross({ "x-one": undefined }))).not.toContain("x-one")
  })
})

describe("to the upstream only", () => {
  it.each(["host", "origin", "content-length", "expect", "mcp-session-id"])("drops %s", (name) => {
    expect(forUpstream({ [name]: "x" })).not.toHaveProperty([name])
  })

  it("replaces the session id by that of the upstream", () => {
    expect(toUpstream({ "mcp-session-id": "the proxy's" }, "the upstream's", {})).toMatchObject({
      "mcp-session-id": "the upstream's"
    })
  })

  it("forbids compression, because the proxy could not split a compressed stream", () => {
    expect(forUpstream({ "accept-encoding": "gzip, br" })["accept-encoding"]).toBe("identity")
    expect(forUpstream({})["accept-encoding"]).toBe("identity")
  })

  it("keeps Authorization and the protocol version", () => {
    const headers = { authorization: "Bearer x", "mcp-protocol-version": "2025-11-25" }
    expect(forUpstream(headers)).toMatchObject(headers)
  })

  it.prop("prefers configured fields, and adds no others", [plain, plain], ([headers, added]) => {
    const out = toUpstream(headers, undefined, added)
    expect(out).toMatchObject(added)
    expect(new Set(Object.keys(out))).toEqual(
      new Set([...Object.keys(headers), ...Object.keys(added), "accept-encoding"])
    )
  })
})

describe("to the client only", () => {
  it("replaces the session id by that of the proxy, or drops it", () => {
    expect(toClient({ "mcp-session-id": "the upstream's" }, "the proxy's")).toEqual({
      "mcp-session-id": "the proxy's"
    })
    expect(toClient({ "mcp-session-id": "the upstream's" }, undefined)).toEqual({})
  })

  it.each(["access-control-allow-origin", "access-control-expose-headers", "access-control-max-age"])(
    "drops %s",
    (name) => {
      expect(forClient({ [name]: "*" })).toEqual({})
    }
  )

  it("keeps the fields of OAuth", () => {
    const headers = { "www-authenticate": 'Bearer resource_metadata="x"', "retry-after": "5" }
    expect(forClient(headers)).toEqual(headers)
  })

  it("keeps repeated fields apart", () => {
    expect(forClient({ "set-cookie": ["a=1", "b=2"] })).toEqual({ "set-cookie": ["a=1", "b=2"] })
  })

  it.prop("adds no fields", [plain], ([headers]) => {
    expect(forClient(headers)).toEqual(headers)
  })
})
