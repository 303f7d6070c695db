import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import {
  type ClientError,
  BadRequest,
  errorCode,
  LimitReached,
  ListenError,
  SessionNotFound,
  ShuttingDown,
  toJsonRpc,
  UpstreamError
} from "../src/ProxyError.js"

const upstream = "http://upstream.test/mcp"

describe("an error for a client", () => {
  const table: ReadonlyArray<readonly [error: ClientError, status: number, code: number]> = [
    [new BadRequest({ reason: "NotJson" }), 400, -32700],
    [new BadRequest({ reason: "NotJsonRpc" }), 400, -32600],
    [new BadRequest({ reason: "MissingSessionId" }), 400, -32600],
    [new BadRequest({ reason: "InitializeInBatch" }), 400, -32600],
    [new BadRequest({ reason: "TooLarge" }), 413, -32600],
    [new BadRequest({ reason: "BatchTooLarge" }), 400, -32600],
    [new BadRequest({ reason: "InitializeTooDeep" }), 400, -32600],
    [new BadRequest({ reason: "InitializeTooLarge" }), 413, -32600],
    [new BadRequest({ reason: "BodyTimeout" }), 408, -32600],
    [new BadRequest({ reason: "WrongContentType" }), 415, -32600],
    [new BadRequest({ reason: "NotAcceptable" }), 406, -32600],
    [new BadRequest({ reason: "WrongMethod" }), 405, -32600],
    [new BadRequest({ reason: "HostNotAllowed" }), 403, -32600],
    [new BadRequest({ reason: "OriginNotAllowed" }), 403, -32600],
    [new LimitReached({ limit: "max-sessions", bound: 1 }), 503, -32000],
    [new LimitReached({ limit: "max-per-client", bound: 1 }), 429, -32000],
    [new LimitReached({ limit: "multi-session", bound: 1 }), 503, -32000],
    [new SessionNotFound(), 404, -32001],
    [new ShuttingDown(), 503, -32000],
    [new UpstreamError({ reason: "Unreachable", upstream }), 502, -32000],
    [new UpstreamError({ reason: "ConnectTimeout", upstream }), 504, -32000],
    [new UpstreamError({ reason: "ResponseTimeout", upstream }), 504, -32000],
    [new UpstreamError({ reason: "Stalled", upstream }), 504, -32000],
    [new UpstreamError({ reason: "Closed", upstream }), 502, -32000],
    [new UpstreamError({ reason: "Redirected", upstream }), 502, -32000],
    [new UpstreamError({ reason: "NotMcp", upstream }), 502, -32000]
  ]

  it.each(table)("%s has a status, a code and a message of one line", (error, status, code) => {
    expect(error).toMatchObject({ status, code })
    expect(error.message).not.toBe("")
    expect(error.message).not.toContain("\n")
  })

  it.each([
    "max-sessions",
    "max-per-client",
    "max-exchanges",
    "max-stateless",
    "max-connections",
    "max-buffered"
  ] as const)("names the option and the value of a limit: %s", (limit) => {
    const error = new LimitReached({ limit, bound: 17 })
    expect(error.message).toContain(`--${limit} 17`)
    expect(error.retryAfter).toBeGreaterThan(0)
  })

  it("names --multi-session in single-session mode", () => {
    expect(new LimitReached({ limit: "multi-session", bound: 1 }).message).toContain("--multi-session")
  })

  it("has a Retry-After during a shutdown", () => {
    expect(new ShuttingDown().retryAfter).toBeGreaterThan(0)
  })

  it("names the upstream and the error of the system", () => {
    const error = new UpstreamError({ reason: "Unreachable", upstream, detail: "ECONNREFUSED" })
    expect(error.message).toContain(upstream)
    expect(error.message).toContain("ECONNREFUSED")
  })
})

describe("toJsonRpc", () => {
  it.prop(
    "keeps the id of the request and its type",
    [FastCheck.oneof(FastCheck.string(), FastCheck.integer())],
    ([id]) => {
      const parsed: unknown = JSON.parse(toJsonRpc(new ShuttingDown(), id))
      expect(parsed).toEqual({
        jsonrpc: "2.0",
        id,
        error: { code: -32000, message: "The proxy is shutting down" }
      })
    }
  )

  it("uses the id null without a request", () => {
    expect(JSON.parse(toJsonRpc(new ShuttingDown(), undefined))).toMatchObject({ id: null })
  })

  it.prop("returns one line, which fits an event", [FastCheck.string()], ([detail]) => {
    const error = new UpstreamError({ reason: "NotMcp", upstream, detail })
    expect(toJsonRpc(error, 1)).not.toMatch(/[\r\n]/)
  })
})

describe("ListenError", () => {
  const failure = (code: string) => Object.assign(new Error(`listen ${code}`), { code })

  it.each([
    ["EADDRINUSE", "in use"],
    ["EACCES", "permission"],
    ["EADDRNOTAVAIL", "no such address"],
    ["ENOTFOUND", "no such address"],
    ["EMFILE", "listen EMFILE"]
  ])("says in one line what to do on %s", (code, words) => {
    const { message } = new ListenError({ host: "127.0.0.1", port: 80, cause: failure(code) })
    expect(message).toContain("127.0.0.1:80")
    expect(message).toContain(words)
    expect(message).not.toContain("\n")
  })

  it.prop("has a message for any cause", [FastCheck.anything()], ([cause]) => {
    expect(new ListenError({ host: "h", port: 1, cause }).message).toContain("Cannot listen on h:1")
    expect(errorCode(cause)).toBeUndefined()
  })
})
