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

describe("what a client is told", () => {
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

  it.each(table)("%s has its status and its code", (error, status, code) => {
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
  ] as const)("a limit names its option and its bound: %s", (limit) => {
    const error = new LimitReached({ limit, bound: 17 })
    expect(error.message).toContain(`--${limit} 17`)
    expect(error.retryAfter).toBeGreaterThan(0)
  })

  it("in single-session mode the error names the option for many", () => {
    expect(new LimitReached({ limit: "multi-session", bound: 1 }).message).toContain("--multi-session")
  })

  it("whoever meets a shutdown is asked to come again", () => {
    expect(new ShuttingDown().retryAfter).toBeGreaterThan(0)
  })

  it("an upstream's failure names the upstream and what the system said", () => {
    const error = new UpstreamError({ reason: "Unreachable", upstream, detail: "ECONNREFUSED" })
    expect(error.message).toContain(upstream)
    expect(error.message).toContain("ECONNREFUSED")
  })
})

describe("as JSON-RPC", () => {
  it.prop(
    "an error carries the id of its request, with its type",
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

  it("an error to nobody in particular has the id null", () => {
    expect(JSON.parse(toJsonRpc(new ShuttingDown(), undefined))).toMatchObject({ id: null })
  })

  it.prop("an error is one line, so that it fits an event", [FastCheck.string()], ([detail]) => {
    const error = new UpstreamError({ reason: "NotMcp", upstream, detail })
    expect(toJsonRpc(error, 1)).not.toMatch(/[\r\n]/)
  })
})

describe("a port that cannot be had", () => {
  const failure = (code: string) => Object.assign(new Error(`listen ${code}`), { code })

  it.each([
    ["EADDRINUSE", "in use"],
    ["EACCES", "permission"],
    ["EADDRNOTAVAIL", "no such address"],
    ["ENOTFOUND", "no such address"],
    ["EMFILE", "listen EMFILE"]
  ])("%s says in one line what to do", (code, words) => {
    const { message } = new ListenError({ host: "127.0.0.1", port: 80, cause: failure(code) })
    expect(message).toContain("127.0.0.1:80")
    expect(message).toContain(words)
    expect(message).not.toContain("\n")
  })

  it.prop("whatever was thrown, there is a message and a code or none", [FastCheck.anything()], ([cause]) => {
    expect(new ListenError({ host: "h", port: 1, cause }).message).toContain("Cannot listen on h:1")
    expect(errorCode(cause)).toBeUndefined()
  })
})
