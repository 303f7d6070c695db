import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import {
  cancelledNotification,
  cancelledRequestId,
  isInitialize,
  isInitializeResult,
  parseBody
} from "../../src/Protocol.js"
import { bodyOf, call, cancellation, initialize, notification } from "../fixtures/requests.js"

const id = FastCheck.oneof(FastCheck.string(), FastCheck.integer())

describe("isInitialize", () => {
  it("accepts a single request only", () => {
    expect(isInitialize(bodyOf(initialize()))).toBe(true)
    expect(isInitialize(bodyOf(initialize("")))).toBe(true)
    expect(isInitialize(bodyOf([initialize()]))).toBe(false)
    expect(isInitialize(bodyOf(notification("initialize")))).toBe(false)
    expect(isInitialize(bodyOf(notification("notifications/initialized")))).toBe(false)
    expect(isInitialize(bodyOf(call(1, "ping")))).toBe(false)
  })

  it.prop(
    "isInitializeResult accepts an object with a protocolVersion",
    [FastCheck.anything()],
    ([anything]) => {
      expect(isInitializeResult({ protocolVersion: "2025-11-25", more: anything })).toBe(true)
      expect(isInitializeResult({ protocolVersion: 20251125 })).toBe(false)
      expect(isInitializeResult(anything)).toBe(false)
    }
  )
})

describe("cancelledRequestId", () => {
  it.prop("keeps the type of the id", [id], ([id]) => {
    expect(cancelledRequestId(cancellation(id))).toBe(id)
  })

  it.prop("reads the notification that the proxy sends", [id, FastCheck.string()], ([id, reason]) => {
    expect(cancelledRequestId(cancelledNotification(id, reason))).toBe(id)
    expect(Either.isRight(parseBody(Buffer.from(JSON.stringify(cancelledNotification(id, reason)))))).toBe(
      true
    )
  })

  it.prop("ignores other messages", [FastCheck.anything()], ([params]) => {
    expect(cancelledRequestId({ jsonrpc: "2.0", method: "notifications/progress", params })).toBeUndefined()
    expect(
      cancelledRequestId({ jsonrpc: "2.0", method: "notifications/cancelled", params: { params } })
    ).toBeUndefined()
  })
})
