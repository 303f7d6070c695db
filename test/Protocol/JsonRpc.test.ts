import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { type Body, parseBody, parseMessages, requestId, requestIds } from "../../src/Protocol.js"
import { BadRequest } from "../../src/ProxyError.js"
import { bodyOf, call, notification, responseTo } from "../fixtures/requests.js"

const bytes = (text: string) => Buffer.from(text)
const notJson = Either.left(new BadRequest({ reason: "NotJson" }))
const notJsonRpc = Either.left(new BadRequest({ reason: "NotJsonRpc" }))

const id = FastCheck.oneof(FastCheck.string(), FastCheck.integer())
const message = FastCheck.oneof(
  FastCheck.record({ id, method: FastCheck.string() }).map(({ id, method }) => call(id, method)),
  FastCheck.string().map((method) => notification(method)),
  FastCheck.record({ id, result: FastCheck.jsonValue() }).map(({ id, result }) => responseTo(id, result)),
  FastCheck.option(id).map((id) => ({ jsonrpc: "2.0" as const, id, error: { code: -1, message: "no" } }))
)

describe("parseBody", () => {
  it.prop("parses a message", [message], ([message]) => {
    const expected: Body = { isBatch: false, messages: [message] }
    expect(parseBody(bytes(JSON.stringify(message)))).toEqual(Either.right(expected))
  })

  it.prop("keeps the order of a batch", [FastCheck.array(message, { minLength: 1 })], ([messages]) => {
    expect(parseBody(bytes(JSON.stringify(messages)))).toEqual(Either.right({ isBatch: true, messages }))
  })

  it("accepts up to 256 messages in a batch", () => {
    const batch = (length: number) => bytes(JSON.stringify(Array.from({ length }, (_, id) => call(id))))
    expect(Either.isRight(parseBody(batch(256)))).toBe(true)
    expect(parseBody(batch(257))).toEqual(Either.left(new BadRequest({ reason: "BatchTooLarge" })))
  })

  it.each([
    ["an empty body", ""],
    ["a truncated message", '{"jsonrpc":"2.0"'],
    ["a bare word", "initialize"],
    ["two messages in a row", '{"jsonrpc":"2.0","method":"a"}{"jsonrpc":"2.0","method":"b"}']
  ])("rejects %s as not JSON", (_, text) => {
    expect(parseBody(bytes(text))).toEqual(notJson)
  })

  it("rejects bytes that are not UTF-8", () => {
    expect(parseBody(Buffer.from([0x22, 0xff, 0x22]))).toEqual(notJson)
    expect(parseBody(Buffer.from('"é"', "latin1"))).toEqual(notJson)
  })

  it.each([
    ["null", null],
    ["a number", 1],
    ["a bare word", "initialize"],
    ["an empty object", {}],
    ["an empty batch", []],
    ["a batch in a batch", [[call(1)]]],
    ["a batch with an invalid message", [call(1), {}]],
    ["another version", { jsonrpc: "1.0", id: 1, method: "a" }],
    ["no version", { id: 1, method: "a" }],
    ["a method that is not a string", { jsonrpc: "2.0", id: 1, method: 1 }],
    ["a request whose id is null", { jsonrpc: "2.0", id: null, method: "a" }],
    ["a request whose id is an object", { jsonrpc: "2.0", id: {}, method: "a" }],
    ["a request whose id is a boolean", { jsonrpc: "2.0", id: true, method: "a" }],
    ["a result without an id", { jsonrpc: "2.0", result: {} }],
    ["a result whose id is null", { jsonrpc: "2.0", id: null, result: {} }],
    ["an id alone", { jsonrpc: "2.0", id: 1 }]
  ])("rejects %s as not JSON-RPC", (_, json) => {
    expect(parseBody(bytes(JSON.stringify(json)))).toEqual(notJsonRpc)
  })

  it("accepts an error response with the id null", () => {
    const error = { jsonrpc: "2.0", id: null, error: { code: -32700, message: "?" } }
    expect(Either.isRight(parseBody(bytes(JSON.stringify(error))))).toBe(true)
  })

  it("accepts an error response without an id (2025-11-25, JSONRPCErrorResponse)", () => {
    const error = { jsonrpc: "2.0", error: { code: -32700, message: "?" } }
    expect(Either.isRight(parseBody(bytes(JSON.stringify(error))))).toBe(true)
  })

  it.prop("rejects garbage without an exception", [FastCheck.uint8Array()], ([garbage]) => {
    expect(Either.isLeft(parseBody(garbage))).toBe(true)
    expect(parseMessages(garbage)).toEqual([])
  })

  it.prop("accepts any JSON or rejects it as not JSON-RPC", [FastCheck.json()], ([json]) => {
    const result = parseBody(bytes(json))
    if (Either.isLeft(result)) expect(result).toEqual(notJsonRpc)
  })

  it.prop(
    "reads only its part of a larger buffer",
    [message, FastCheck.uint8Array(), FastCheck.uint8Array()],
    ([message, before, after]) => {
      const text = JSON.stringify(message)
      const json = bytes(text)
      const part = new Uint8Array([...before, ...json, ...after]).subarray(
        before.length,
        before.length + json.length
      )
      // JSON has no negative zero, so what was written need not be what went in.
      expect(parseBody(part)).toEqual(Either.right({ isBatch: false, messages: [JSON.parse(text)] }))
    }
  )
})

describe("requestIds", () => {
  it.prop("keeps the type of an id", [id], ([id]) => {
    expect(requestIds(bodyOf(call(id)))).toEqual([id])
  })

  it("returns the ids of requests, not of notifications or responses", () => {
    const body = bodyOf([notification("a"), responseTo(1), call("2"), call(2), call(0), call("")])
    expect(requestIds(body)).toEqual(["2", 2, 0, ""])
    expect(requestId(body)).toBe("2")
    expect(requestId(bodyOf(responseTo(1)))).toBeUndefined()
    expect(requestId(undefined)).toBeUndefined()
  })
})
