import { afterEach, beforeEach, describe, expect, it } from "@effect/vitest"
import { vi } from "vitest"
import { UpstreamError } from "../../../src/ProxyError.js"
import { FlowGate } from "../../../src/Upstream/Stdio/FlowGate.js"
import { PendingAnswer, type PendingAnswerOptions } from "../../../src/Upstream/Stdio/PendingAnswer.js"
import { responseTo } from "../../fixtures/requests.js"
import { RecordedSink } from "../../fixtures/RecordedSink.js"

const notStarted = new UpstreamError({ reason: "StartTimeout", upstream: "server" })
const childExited = new UpstreamError({ reason: "Ended", upstream: "server" })

const line = Buffer.from(JSON.stringify(responseTo(1)))

const start = (options: Partial<PendingAnswerOptions> = {}) => {
  const sink = new RecordedSink()
  const onDone = vi.fn()
  const gate = new FlowGate({ pause: () => {}, unpause: () => {} })
  const pending = new PendingAnswer(
    { ids: [1], isBatch: false, accepted: { json: true, stream: true }, ...options },
    sink,
    gate,
    onDone
  )
  pending.start()
  return { sink, onDone, pending }
}

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

describe("a pending answer", () => {
  it("fails after its timeout, and does not become a stream before", () => {
    const { onDone, sink } = start({ timeout: { millis: 5_000, error: notStarted } })
    vi.advanceTimersByTime(4_999)
    expect(sink.status).toBe(0)
    vi.advanceTimersByTime(1)
    expect(sink.ending).toBe(notStarted)
    expect(onDone).toHaveBeenCalledTimes(1)
  })

  it("keeps its timeout when a message makes it a stream", () => {
    const { pending, sink } = start({ timeout: { millis: 5_000, error: notStarted } })
    pending.addMessage(Buffer.from('{"jsonrpc":"2.0","method":"notifications/message"}'))
    expect(sink).toMatchObject({ isEventStream: true, ending: undefined })
    vi.advanceTimersByTime(5_000)
    expect(sink.ending).toBe(notStarted)
  })

  it("has no timers after it has ended", () => {
    const { onDone, pending, sink } = start({ timeout: { millis: 5_000, error: notStarted } })
    pending.addResponse(1, line)
    expect(vi.getTimerCount()).toBe(0)
    pending.fail(childExited)
    pending.abort()
    expect(sink).toMatchObject({ ending: "end", violations: [] })
    expect(onDone).toHaveBeenCalledTimes(1)
  })

  it("does not call its sink after it was aborted", () => {
    const { onDone, pending, sink } = start()
    pending.abort()
    vi.advanceTimersByTime(5_000)
    pending.addMessage(line)
    pending.fail(childExited)
    expect(sink).toMatchObject({ status: 0, ending: undefined })
    expect(onDone).toHaveBeenCalledTimes(1)
  })

  it("is streamable if it is a stream or the client accepts one, until it has ended", () => {
    const { pending } = start()
    expect(pending.isStreamable).toBe(true)
    expect(start({ accepted: { json: true, stream: false } }).pending.isStreamable).toBe(false)
    pending.abort()
    expect(pending.isStreamable).toBe(false)
  })
})
