import { describe, expect, it } from "@effect/vitest"
import { call, post, responseTo } from "../fixtures/requests.js"
import { ManualClock } from "../fixtures/ManualClock.js"
import { RecordedSink } from "../fixtures/RecordedSink.js"
import { ScriptedExchange } from "../fixtures/ScriptedExchange.js"
import { Deadlines } from "../../src/internal/deadlines.js"
import type { Lease } from "../../src/Upstream.js"
import {
  type AttemptResult,
  RetryableRequest,
  type RetryContext
} from "../../src/UpstreamSession/RetryableRequest.js"

/** Sends one request to a scripted upstream. */
const sendRequest = ({ recovers = true, isBound = false, body = [call(1)] } = {}) => {
  const exchanges: Array<ScriptedExchange> = []
  const lease: Lease = {
    name: "upstream",
    sessionId: () => "session",
    exchange: (request, sink) => {
      const exchange = new ScriptedExchange(request, sink, undefined)
      exchanges.push(exchange)
      return () => exchange.abort()
    }
  }
  const results: Array<AttemptResult> = []
  const deadlines = new Deadlines(new ManualClock())
  const context: RetryContext = {
    name: "upstream",
    deadlines,
    recovers,
    attempted: (_request, _lease, result) => void results.push(result)
  }
  const sink = new RecordedSink()
  const request = new RetryableRequest(context, post(body), sink, lease, isBound)
  request.send(lease)
  const perform = (action: Parameters<ScriptedExchange["perform"]>[0]) => exchanges.at(-1)?.perform(action)
  return { deadlines, exchanges, lease, perform, request, results, sink }
}

describe("a sent request", () => {
  it("passes on an answer", () => {
    const { perform, results, sink } = sendRequest()
    perform("json")
    expect(results).toEqual(["answered"])
    expect(sink).toMatchObject({ status: 200, ending: "end", violations: [] })
  })

  it("waits if the upstream is unreachable, and is then sent again", () => {
    const { exchanges, lease, perform, request, results, sink } = sendRequest()
    perform("unreachable")
    expect(results).toEqual(["unreachable"])
    expect(sink.hasEnded).toBe(false)
    expect(request.proceed(lease)).toBe(true)
    perform("json")
    expect(exchanges).toHaveLength(2)
    expect(sink).toMatchObject({ status: 200, ending: "end", violations: [] })
  })

  it("fails if the upstream is unreachable and sessions are not recovered", () => {
    const { perform, results, sink } = sendRequest({ recovers: false })
    perform("unreachable")
    expect(results).toEqual([])
    expect(sink.failure).toMatchObject({ reason: "Unreachable" })
  })

  it("passes on a 404 before it reports the denial, if sessions are not recovered", () => {
    const { perform, results, sink } = sendRequest({ recovers: false })
    perform("not found")
    expect(sink).toMatchObject({ status: 404, ending: "end" })
    expect(results).toEqual(["denied"])
  })

  it("aborts its exchange", () => {
    const { exchanges, request, sink } = sendRequest()
    request.abort()
    expect(exchanges[0]?.isAborted).toBe(true)
    expect(sink.hasEnded).toBe(false)
  })
})

describe("a held denial", () => {
  it("is passed on if the upstream knows the session", () => {
    const { lease, perform, request, results, sink } = sendRequest()
    perform("not found")
    expect(results).toEqual(["denied"])
    expect(sink.status).toBe(0)
    expect(request.proceed(lease)).toBe(false)
    expect(sink).toMatchObject({ status: 404, text: "{}", ending: "end", violations: [] })
  })

  it("is dropped if the request is sent to another session", () => {
    const { deadlines, exchanges, lease, perform, request, sink } = sendRequest()
    perform("not found")
    expect(request.isUnexecuted(undefined)).toBe(true)
    request.sendAgain(lease)
    perform("json")
    expect(exchanges).toHaveLength(2)
    expect(sink).toMatchObject({ status: 200, ending: "end", violations: [] })
    expect(deadlines.size).toBe(0)
  })

  it("with status 400 counts as unexecuted only if it equals the denial of the session", () => {
    const { exchanges, request } = sendRequest()
    exchanges[0]?.head(400, "application/json")
    exchanges[0]?.data("{}")
    exchanges[0]?.finish()
    expect(request.isUnexecuted(JSON.stringify([400, undefined, undefined]))).toBe(true)
    expect(request.isUnexecuted(JSON.stringify([404, undefined, undefined]))).toBe(false)
  })

  it("of a bound request fails with SessionLost", () => {
    const { perform, request, sink } = sendRequest({ isBound: true })
    perform("not found")
    request.fail()
    expect(sink).toMatchObject({ status: 0, failure: { reason: "SessionLost" }, violations: [] })
  })

  it("is passed on at once if it exceeds 64 KB", () => {
    const { deadlines, exchanges, sink } = sendRequest()
    exchanges[0]?.head(404, "application/json")
    exchanges[0]?.data("x".repeat(64 * 1024))
    expect(sink.status).toBe(0)
    exchanges[0]?.data("x")
    expect(sink.text).toHaveLength(64 * 1024 + 1)
    expect(deadlines.size).toBe(0)
  })
})

describe("a request to another session", () => {
  it("leaves out messages that only the original session can use", () => {
    const { exchanges, lease, perform, request } = sendRequest({ body: [call(1), responseTo(2)] })
    perform("not found")
    request.sendAgain(lease)
    expect(exchanges[1]?.request.body?.messages).toEqual([call(1)])
  })

  it("is accepted without an exchange if no message is left", () => {
    const { exchanges, lease, perform, request, sink } = sendRequest({ body: [responseTo(2)] })
    perform("not found")
    request.sendAgain(lease)
    expect(exchanges).toHaveLength(1)
    expect(sink).toMatchObject({ status: 202, ending: "end", violations: [] })
  })
})
