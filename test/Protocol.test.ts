import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import {
  type Body,
  cancelledNotification,
  cancelledRequestId,
  isInitialize,
  isInitializeResult,
  isModern,
  legacyRevisions,
  parseBody,
  parseMessages,
  PROTOCOL_VERSION_META,
  requestId,
  requestIds
} from "../src/Protocol.js"
import { BadRequest } from "../src/ProxyError.js"
import {
  bodyOf,
  call,
  cancellation,
  initialize,
  modernCall,
  notification,
  response
} from "./fixtures/requests.js"

const bytes = (text: string) => Buffer.from(text)
const notJson = Either.left(new BadRequest({ reason: "NotJson" }))
const notJsonRpc = Either.left(new BadRequest({ reason: "NotJsonRpc" }))

const id = FastCheck.oneof(FastCheck.string(), FastCheck.integer())
const message = FastCheck.oneof(
  FastCheck.record({ id, method: FastCheck.string() }).map(({ id, method }) => call(id, method)),
  FastCheck.string().map((method) => notification(method)),
  FastCheck.record({ id, result: FastCheck.jsonValue() }).map(({ id, result }) => response(id, result)),
  FastCheck.option(id).map((id) => ({ jsonrpc: "2.0" as const, id, error: { code: -1, message: "no" } }))
)

describe("the body of a POST", () => {
  it.prop("a message is read as it is", [message], ([message]) => {
    const expected: Body = { isBatch: false, messages: [message] }
    expect(parseBody(bytes(JSON.stringify(message)))).toEqual(Either.right(expected))
  })

  it.prop("a batch keeps its order", [FastCheck.array(message, { minLength: 1 })], ([messages]) => {
    expect(parseBody(bytes(JSON.stringify(messages)))).toEqual(Either.right({ isBatch: true, messages }))
  })

  it("a batch holds 256 messages at most, for each costs more than its bytes", () => {
    const batch = (length: number) => bytes(JSON.stringify(Array.from({ length }, (_, id) => call(id))))
    expect(Either.isRight(parseBody(batch(256)))).toBe(true)
    expect(parseBody(batch(257))).toEqual(Either.left(new BadRequest({ reason: "BatchTooLarge" })))
  })

  it.each([
    ["an empty body", ""],
    ["a half message", '{"jsonrpc":"2.0"'],
    ["a text", "initialize"],
    ["two messages in a row", '{"jsonrpc":"2.0","method":"a"}{"jsonrpc":"2.0","method":"b"}']
  ])("%s is not JSON", (_, text) => {
    expect(parseBody(bytes(text))).toEqual(notJson)
  })

  it("what is not UTF-8 is not JSON", () => {
    expect(parseBody(Buffer.from([0x22, 0xff, 0x22]))).toEqual(notJson)
    expect(parseBody(Buffer.from('"é"', "latin1"))).toEqual(notJson)
  })

  it.each([
    ["null", null],
    ["a number", 1],
    ["a text", "initialize"],
    ["an empty object", {}],
    ["an empty batch", []],
    ["a batch in a batch", [[call(1)]]],
    ["a batch with one that is no message", [call(1), {}]],
    ["another version", { jsonrpc: "1.0", id: 1, method: "a" }],
    ["no version", { id: 1, method: "a" }],
    ["a method that is no text", { jsonrpc: "2.0", id: 1, method: 1 }],
    ["a request whose id is null", { jsonrpc: "2.0", id: null, method: "a" }],
    ["a request whose id is an object", { jsonrpc: "2.0", id: {}, method: "a" }],
    ["a request whose id is a boolean", { jsonrpc: "2.0", id: true, method: "a" }],
    ["a result without an id", { jsonrpc: "2.0", result: {} }],
    ["a result whose id is null", { jsonrpc: "2.0", id: null, result: {} }],
    ["an id alone", { jsonrpc: "2.0", id: 1 }]
  ])("%s is JSON, but not JSON-RPC", (_, json) => {
    expect(parseBody(bytes(JSON.stringify(json)))).toEqual(notJsonRpc)
  })

  it("an error that belongs to no request has the id null", () => {
    const error = { jsonrpc: "2.0", id: null, error: { code: -32700, message: "?" } }
    expect(Either.isRight(parseBody(bytes(JSON.stringify(error))))).toBe(true)
  })

  it("an error that belongs to no request may leave the id out (2025-11-25, JSONRPCErrorResponse)", () => {
    const error = { jsonrpc: "2.0", error: { code: -32700, message: "?" } }
    expect(Either.isRight(parseBody(bytes(JSON.stringify(error))))).toBe(true)
  })

  it.prop("garbage is refused and never throws", [FastCheck.uint8Array()], ([garbage]) => {
    expect(Either.isLeft(parseBody(garbage))).toBe(true)
    expect(parseMessages(garbage)).toEqual([])
  })

  it.prop("any JSON is read or refused", [FastCheck.json()], ([json]) => {
    const result = parseBody(bytes(json))
    if (Either.isLeft(result)) expect(result).toEqual(notJsonRpc)
  })

  it.prop(
    "a part of a larger buffer is read without what is around it",
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

describe("ids", () => {
  it.prop("keep their type", [id], ([id]) => {
    expect(requestIds(bodyOf(call(id)))).toEqual([id])
    expect(cancelledRequestId(cancellation(id))).toBe(id)
  })

  it("are those of requests: notifications and responses have none that could be answered", () => {
    const body = bodyOf([notification("a"), response(1), call("2"), call(2), call(0), call("")])
    expect(requestIds(body)).toEqual(["2", 2, 0, ""])
    expect(requestId(body)).toBe("2")
    expect(requestId(bodyOf(response(1)))).toBeUndefined()
    expect(requestId(undefined)).toBeUndefined()
  })
})

describe("initialize", () => {
  it("is a request, alone", () => {
    expect(isInitialize(bodyOf(initialize()))).toBe(true)
    expect(isInitialize(bodyOf(initialize("")))).toBe(true)
    expect(isInitialize(bodyOf([initialize()]))).toBe(false)
    expect(isInitialize(bodyOf(notification("initialize")))).toBe(false)
    expect(isInitialize(bodyOf(notification("notifications/initialized")))).toBe(false)
    expect(isInitialize(bodyOf(call(1, "ping")))).toBe(false)
  })

  it.prop("has a result that names a revision", [FastCheck.anything()], ([anything]) => {
    expect(isInitializeResult({ protocolVersion: "2025-11-25", more: anything })).toBe(true)
    expect(isInitializeResult({ protocolVersion: 20251125 })).toBe(false)
    expect(isInitializeResult(anything)).toBe(false)
  })
})

describe("cancelling", () => {
  it.prop("what the proxy sends is what it reads", [id, FastCheck.string()], ([id, reason]) => {
    expect(cancelledRequestId(cancelledNotification(id, reason))).toBe(id)
    expect(Either.isRight(parseBody(bytes(JSON.stringify(cancelledNotification(id, reason)))))).toBe(true)
  })

  it.prop("nothing else names a cancelled request", [FastCheck.anything()], ([params]) => {
    expect(cancelledRequestId({ jsonrpc: "2.0", method: "notifications/progress", params })).toBeUndefined()
    expect(
      cancelledRequestId({ jsonrpc: "2.0", method: "notifications/cancelled", params: { params } })
    ).toBeUndefined()
  })
})

describe("the two eras", () => {
  const withMeta = modernCall(1)
  const plain = call(1)

  it.each(["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])(
    "a header that names %s is legacy",
    (revision) => {
      expect(legacyRevisions).toContain(revision)
      expect(isModern(revision, bodyOf(plain))).toBe(false)
      expect(isModern(revision, undefined)).toBe(false)
    }
  )

  it.each(["2026-07-28", "2027-01-01", "2025-11-26", "1.0", "draft"])(
    "a header that names %s is none of a legacy revision",
    (revision) => {
      expect(isModern(revision, bodyOf(plain))).toBe(true)
      expect(isModern(revision, undefined)).toBe(true)
    }
  )

  it("without a header the body tells", () => {
    expect(isModern(undefined, undefined)).toBe(false)
    expect(isModern(undefined, bodyOf(plain))).toBe(false)
    expect(isModern(undefined, bodyOf(withMeta))).toBe(true)
  })

  it("the key in _meta beats a legacy header and the method initialize", () => {
    expect(isModern("2025-06-18", bodyOf(withMeta))).toBe(true)
    expect(isModern(undefined, bodyOf(modernCall(1, "initialize")))).toBe(true)
    expect(isModern(undefined, bodyOf(initialize()))).toBe(false)
  })

  it("a header of 2026-07-28 beats the method initialize", () => {
    expect(isModern("2026-07-28", bodyOf(initialize()))).toBe(true)
  })

  it.prop("only that key counts, whatever else is in params", [FastCheck.jsonValue()], ([value]) => {
    expect(isModern(undefined, bodyOf({ ...plain, params: value }))).toBe(false)
    expect(isModern(undefined, bodyOf({ ...plain, params: { _meta: value } }))).toBe(false)
    expect(isModern(undefined, bodyOf({ ...plain, params: { [PROTOCOL_VERSION_META]: value } }))).toBe(false)
    expect(
      isModern(undefined, bodyOf({ ...plain, params: { _meta: { [PROTOCOL_VERSION_META]: value } } }))
    ).toBe(true)
  })
})
