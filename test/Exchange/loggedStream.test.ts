import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { SessionNotFound } from "../../src/ProxyError.js"
import { noFlow } from "../../src/Upstream.js"
import { eventOf } from "../fixtures/events.js"
import { settle } from "../fixtures/ManualClock.js"
import { call, getRequest, notification, post, responseTo } from "../fixtures/requests.js"
import { FOREIGN_ID } from "../fixtures/ScriptedExchange.js"
import { StartedExchange } from "../fixtures/StartedExchange.js"

describe("a logged stream", () => {
  const progress = notification("notifications/progress")

  it("has event ids of the proxy, with or without ids of the upstream", () => {
    const { response, upstream } = new StartedExchange(post(call(1)), "tracked")
    upstream.head(200, "text/event-stream")
    upstream.data(eventOf(progress, "theirs"))
    upstream.data(`retry: 1\n${eventOf(responseTo(1))}`)
    upstream.finish()
    expect(response.headers).toMatchObject({
      "mcp-session-id": "the-proxy's-id",
      "cache-control": "no-cache, no-transform"
    })
    expect(new Set(response.eventIds).size).toBe(2)
    expect(response.text).not.toMatch(/theirs|retry/)
    expect(response.messages).toEqual([progress, responseTo(1)])
    expect(response).toMatchObject({ ending: "end", violations: [] })
  })

  it("is passed through if it is compressed", () => {
    const { response, exchange } = new StartedExchange(post(call(1)), "tracked")
    exchange.head(200, { "content-type": "text/event-stream", "content-encoding": "gzip" }, noFlow)
    exchange.data(Buffer.from("half"))
    expect(response.text).toBe("half")
  })

  it("continues while its client is disconnected, and after the client resumes it", () => {
    const started = new StartedExchange(post(call(1)), "tracked")
    started.upstream.perform("event")
    started.disconnect()
    expect(started.upstream.isAborted).toBe(false)
    started.upstream.perform("event with id")
    const { response } = started.resume()
    started.upstream.perform("response")
    started.upstream.finish()
    expect(started.response.messages.length).toBe(1)
    expect(response.messages).toMatchObject([{ method: "notifications/message" }, { id: 1, result: {} }])
    expect(response).toMatchObject({ status: 200, ending: "end", violations: [] })
    expect(started.isSettled).toBe(true)
  })

  it("keeps a response that arrives while the client is disconnected", () => {
    const started = new StartedExchange(post(call(1)), "tracked")
    started.upstream.perform("event")
    started.disconnect()
    started.upstream.perform("response")
    started.upstream.finish()
    expect(started.isSettled).toBe(true)
    expect(started.resume().response).toMatchObject({ ending: "end", violations: [] })
    expect(started.responses.at(-1)?.countResponses(1)).toBe(1)
  })

  it.each(["before the disconnect", "after the disconnect", "before a second disconnect"] as const)(
    "ends when the response has arrived and the client is disconnected (%s)",
    (when) => {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event")
      if (when === "before the disconnect") started.upstream.perform("response")
      started.disconnect()
      if (when === "after the disconnect") started.upstream.perform("response")
      if (when === "before a second disconnect") {
        const resumed = started.resume()
        started.upstream.perform("response")
        expect(started.isSettled).toBe(false)
        resumed.disconnect()
      }
      expect(started.isSettled).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
      expect(started.response.violations).toEqual([])
    }
  )

  it("is aborted if it is a standalone stream without a head and its client disconnects", () => {
    const started = new StartedExchange(getRequest, "tracked")
    started.disconnect()
    expect(started.upstream.isAborted).toBe(true)
    expect(started.isSettled).toBe(true)
  })

  it.effect.each([
    ["disconnects", (started: StartedExchange) => started.disconnect()],
    [
      "resumes and disconnects again",
      (started: StartedExchange) => {
        started.disconnect()
        started.resume().disconnect()
      }
    ],
    [
      "resumes before the disconnect is noticed, and disconnects",
      (started: StartedExchange) => started.resume().disconnect()
    ],
    [
      "resumes, reads slowly and disconnects",
      (started: StartedExchange) => {
        const { response, disconnect } = started.resume()
        response.flow?.pause()
        for (let count = 0; count < 600; count++) started.upstream.perform("event")
        expect(started.upstream.isPaused).toBe(true)
        disconnect()
        expect(started.upstream.isPaused).toBe(false)
      }
    ]
  ] as const)("ends after the session timeout if its client %s", ([, act]) =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event")
      yield* started.advance(1_000)
      act(started)
      yield* started.advance(1_799)
      expect(started.isSettled).toBe(false)
      yield* started.advance(1)
      expect(started.isSettled).toBe(true)
      expect(started.upstream.isAborted).toBe(true)
    })
  )

  it.effect("has no time limit while its client is connected", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event")
      started.disconnect()
      started.resume()
      for (let hours = 0; hours < 5; hours++) yield* started.advance(3_600)
      expect(started.isSettled).toBe(false)
    })
  )

  it.each(["finish", "fail"] as const)(
    "ends with an error without a resume request if the upstream gives no event ids (%s)",
    (how) => {
      const started = new StartedExchange(post([call(1), call(2)]), "tracked")
      started.upstream.perform("event")
      started.upstream.data(eventOf(responseTo(1)))
      if (how === "finish") started.upstream.finish()
      else started.upstream.fail("Closed")
      expect(started.context.resumptions.size).toBe(0)
      expect(started.response.messages.slice(1)).toMatchObject([
        { id: 1 },
        { id: 2, error: { code: -32000 } }
      ])
      expect(started.response).toMatchObject({ ending: "end", violations: [] })
      expect(started.context.outcomes).toEqual(["failed"])
    }
  )

  it.effect.each(["finish", "fail"] as const)(
    "is resumed at the upstream, and the client receives each event once (%s)",
    (how) =>
      Effect.gen(function* () {
        const started = new StartedExchange(post(call(1)), "tracked")
        started.upstream.head(200, "text/event-stream")
        started.upstream.data(eventOf(progress, "a"))
        started.upstream.data(eventOf(progress, "b") + "data: half")
        if (how === "finish") started.upstream.finish()
        else started.upstream.fail("Closed")
        const resumed = yield* started.resumeRequest
        expect(resumed.request.headers).toEqual({ "last-event-id": "b" })
        expect(started.response.hasEnded).toBe(false)
        resumed.head(200, "text/event-stream")
        resumed.data(eventOf(progress, "b"))
        resumed.data(eventOf(responseTo(1), "c"))
        yield* settle
        expect(started.response.messages).toEqual([progress, progress, responseTo(1)])
        expect(started.response).toMatchObject({ ending: "end", violations: [] })
        expect(started.context.outcomes).toEqual(["answered"])
      })
  )

  it.effect("ends with an error for each pending request if the upstream does not resume it", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post([call(1), call(2)]), "tracked")
      started.upstream.head(200, "text/event-stream")
      started.upstream.data(eventOf(responseTo(2), "a"))
      started.upstream.fail("Closed")
      const resumed = yield* started.resumeRequest
      resumed.perform("not found")
      yield* settle
      expect(started.response.messages).toMatchObject([
        { id: 2, result: {} },
        { id: 1, error: { code: -32000 } }
      ])
      expect(started.response).toMatchObject({ ending: "end", violations: [] })
    })
  )

  it.effect("drops responses to requests of other streams after it is resumed", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event with id")
      started.upstream.fail("Closed")
      const resumed = yield* started.resumeRequest
      resumed.head(200, "text/event-stream")
      resumed.data(eventOf(responseTo(FOREIGN_ID), "b") + "id: c\ndata: {}\n\n")
      resumed.data(eventOf(call(FOREIGN_ID, "sampling/createMessage"), "d"))
      resumed.data(eventOf(responseTo(1), "e"))
      yield* settle
      expect(started.response.messages.slice(1)).toEqual([
        call(FOREIGN_ID, "sampling/createMessage"),
        responseTo(1)
      ])
    })
  )

  it.effect("pauses the resumed upstream connection for a slow client", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event with id")
      started.response.flow?.pause()
      for (let count = 0; count < 600; count++) started.upstream.perform("event")
      expect(started.upstream.isPaused).toBe(true)
      started.upstream.fail("Closed")
      const resumed = yield* started.resumeRequest
      resumed.head(200, "text/event-stream")
      expect(resumed.isPaused).toBe(true)
      started.response.flow?.unpause()
      expect(resumed.isPaused).toBe(false)
    })
  )

  it("is not resumed if the response has arrived", () => {
    const started = new StartedExchange(post(call(1)), "tracked")
    started.upstream.perform("event with id")
    started.upstream.perform("response, then failure")
    expect(started.context.resumptions.size).toBe(0)
    expect(started.response).toMatchObject({ ending: "end", violations: [] })
  })

  it.effect("ends after the grace period if its call is cancelled while it is resumed", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event with id")
      started.upstream.fail("Closed")
      started.exchange.cancel(1)
      yield* started.advance(5)
      yield* settle
      expect(started.context.resumptions.size).toBe(0)
      expect(started.response.messages.length).toBe(1)
      expect(started.response).toMatchObject({ ending: "end", violations: [] })
      expect(started.context.outcomes).toEqual(["cancelled"])
    })
  )

  it.effect("ends with the reason if it is cut while it is resumed", () =>
    Effect.gen(function* () {
      const started = new StartedExchange(post(call(1)), "tracked")
      started.upstream.perform("event with id")
      started.upstream.fail("Closed")
      started.exchange.cut(new SessionNotFound())
      yield* settle
      expect(started.context.resumptions.size).toBe(0)
      expect(started.response.messages.at(-1)).toMatchObject({ id: 1, error: { code: -32001 } })
      expect(started.response).toMatchObject({ ending: "end", violations: [] })
    })
  )
})
