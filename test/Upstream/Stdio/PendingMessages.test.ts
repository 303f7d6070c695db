import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import type { RequestId } from "../../../src/Protocol.js"
import { PendingMessages } from "../../../src/Upstream/Stdio/PendingMessages.js"
import { call, notification } from "../../fixtures/requests.js"

const maxBytes = 1024 * 1024

describe("PendingMessages", () => {
  it("returns only requests, or all messages, in the order of their arrival", () => {
    const pending = new PendingMessages(() => {})
    pending.add(notification("one"), Buffer.from("one"))
    pending.add(call(2, "two"), Buffer.from("two"))
    pending.add(notification("three"), Buffer.from("three"))
    expect(pending.takeRequests().map(String)).toEqual(["two"])
    expect(pending.takeAll().map(String)).toEqual(["one", "three"])
    expect(pending.takeAll()).toEqual([])
  })

  it.prop(
    "stays within its size, and keeps or rejects each request",
    [
      FastCheck.array(
        FastCheck.record({ isRequest: FastCheck.boolean(), bytes: FastCheck.nat({ max: 2 * maxBytes }) })
      )
    ],
    ([messages]) => {
      const line = Buffer.alloc(2 * maxBytes)
      const rejected: Array<RequestId> = []
      const pending = new PendingMessages((id) => rejected.push(id))
      for (const [id, { bytes, isRequest }] of messages.entries()) {
        pending.add(isRequest ? call(id, "request") : notification("notification"), line.subarray(0, bytes))
      }
      const requests = pending.takeRequests()
      const notifications = pending.takeAll()
      const bytes = [...requests, ...notifications].reduce((sum, { length }) => sum + length, 0)
      expect(bytes).toBeLessThanOrEqual(maxBytes)
      expect(requests.length + rejected.length).toBe(messages.filter(({ isRequest }) => isRequest).length)
    }
  )
})
