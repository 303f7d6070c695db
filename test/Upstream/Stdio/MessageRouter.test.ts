import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { vi } from "vitest"
import { acceptedTypes } from "../../../src/Protocol/Accept.js"
import type { Message, RequestId } from "../../../src/Protocol.js"
import { UpstreamError } from "../../../src/ProxyError.js"
import type { Abort } from "../../../src/Upstream.js"
import { MessageRouter } from "../../../src/Upstream/Stdio/MessageRouter.js"
import { FlowGate } from "../../../src/Upstream/Stdio/FlowGate.js"
import { bodyOf, call, notification, responseTo } from "../../fixtures/requests.js"
import { RecordedSink } from "../../fixtures/RecordedSink.js"

const childExited = new UpstreamError({ reason: "Ended", upstream: "server" })

/** A router, with functions that play the child and the clients. */
const makeRouter = () => {
  const source = { pause: vi.fn(), unpause: vi.fn() }
  const rejected: Array<RequestId> = []
  const router = new MessageRouter(new FlowGate(source), (id) => rejected.push(id))
  return {
    source,
    rejected,
    router,
    receive: (message: Message) => router.route(message, Buffer.from(JSON.stringify(message))),
    post: (json: unknown, accept?: string) => {
      const told = new RecordedSink()
      const abort = router.addRequests(bodyOf(json), { accepted: acceptedTypes(accept) }, told)
      return { told, abort }
    },
    get: () => {
      const told = new RecordedSink()
      const abort = router.openStream(told)
      return { told, abort }
    }
  }
}

const withToken = (id: RequestId, progressToken: RequestId) =>
  call(id, "tools/call", { _meta: { progressToken } })
const progress = (progressToken: RequestId) =>
  notification("notifications/progress", { progressToken, progress: 1 })
const log = notification("notifications/message", { level: "info", data: "x" })
const sampling = (id: RequestId) => call(id, "sampling/createMessage")

describe("a response of the child", () => {
  it("becomes a JSON body with unchanged bytes", () => {
    const { post, router } = makeRouter()
    const { told } = post(call(7))
    const line = Buffer.from('{"jsonrpc":"2.0","result":{"n":1.0},"id":7}')
    router.route(responseTo(7, { n: 1 }), line)
    expect(told).toMatchObject({ status: 200, text: line.toString(), ending: "end" })
    expect(told.headers).toMatchObject({
      "content-type": "application/json",
      "content-length": String(line.length)
    })
  })

  it("is matched by the type of its id too", () => {
    const { post, receive } = makeRouter()
    const [number, string] = [post(call(1)), post(call("1"))]
    receive(responseTo("1", "string"))
    expect(number.told.ending).toBeUndefined()
    receive(responseTo(1, "number"))
    expect(string.told.messages).toEqual([responseTo("1", "string")])
    expect(number.told.messages).toEqual([responseTo(1, "number")])
  })

  it("is dropped if no request is in flight, or if it is the second one", () => {
    const { post, receive } = makeRouter()
    const { told } = post(call(1))
    expect(receive(responseTo(2))).toBe(false)
    expect(receive(responseTo(1))).toBe(true)
    expect(receive(responseTo(1))).toBe(false)
    expect(told.messages).toEqual([responseTo(1)])
    expect(told.violations).toEqual([])
  })

  it("waits for the other responses of a batch", () => {
    const { post, receive } = makeRouter()
    const { told } = post([call(1), call(2), notification("notifications/progress")])
    receive(responseTo(2))
    expect(told.status).toBe(0)
    receive(responseTo(1))
    expect(JSON.parse(told.text)).toEqual([responseTo(2), responseTo(1)])
  })

  it("is an event in a stream, and the last one ends the stream", () => {
    const { post, receive } = makeRouter()
    const { told } = post([call(1), call(2)])
    receive(responseTo(1))
    receive(log)
    receive(responseTo(2))
    expect(told).toMatchObject({ isEventStream: true, ending: "end" })
    expect(told.messages).toEqual([responseTo(1), log, responseTo(2)])
  })
})

describe("an HTTP response", () => {
  it("becomes a stream after one second, not earlier", () => {
    vi.useFakeTimers()
    try {
      const { post, receive } = makeRouter()
      const { told } = post(call(1))
      vi.advanceTimersByTime(999)
      expect(told.status).toBe(0)
      vi.advanceTimersByTime(1)
      expect(told).toMatchObject({ status: 200, isEventStream: true, text: "" })
      receive(responseTo(1))
      expect(told).toMatchObject({ messages: [responseTo(1)], ending: "end" })
    } finally {
      vi.useRealTimers()
    }
  })

  it("stays JSON if the client accepts only JSON, and carries no other messages", () => {
    vi.useFakeTimers()
    try {
      const { post, get, receive } = makeRouter()
      const { told } = post(call(1), "application/json")
      receive(log)
      const stream = get()
      vi.advanceTimersByTime(5_000)
      receive(responseTo(1))
      expect(told.isEventStream).toBe(false)
      expect(told.messages).toEqual([responseTo(1)])
      expect(stream.told.messages).toEqual([log])
    } finally {
      vi.useRealTimers()
    }
  })

  it("is a stream immediately if the client accepts only event streams", () => {
    const { post } = makeRouter()
    expect(post(call(1), "text/event-stream").told).toMatchObject({ status: 200, isEventStream: true })
  })

  it("frees its request ids when it is aborted", () => {
    const { post, router, receive } = makeRouter()
    const { abort, told } = post(call(1))
    expect(router.hasIdConflict(bodyOf(call(1)))).toBe(true)
    abort()
    expect(router.hasIdConflict(bodyOf(call(1)))).toBe(false)
    expect(receive(responseTo(1))).toBe(false)
    expect(told.status).toBe(0)
  })

  it("conflicts with another that has the same request id, in flight or in one batch", () => {
    const { post, router } = makeRouter()
    post(call(1))
    expect(router.hasIdConflict(bodyOf(call("1")))).toBe(false)
    expect(router.hasIdConflict(bodyOf([call(2), call(2)]))).toBe(true)
  })
})

describe("a request or notification of the child", () => {
  it("goes to the response with its progress token", () => {
    const { post, get, receive } = makeRouter()
    const stream = get()
    const [first, second] = [post(withToken(1, "a")), post(withToken(2, "b"))]
    receive(progress("b"))
    expect(second.told.messages).toEqual([progress("b")])
    expect(first.told.status).toBe(0)
    expect(stream.told.messages).toEqual([])
  })

  it("goes to the stream after the response with its progress token has ended", () => {
    const { post, get, receive } = makeRouter()
    const stream = get()
    post(withToken(1, "a"))
    receive(responseTo(1))
    receive(progress("a"))
    expect(stream.told.messages).toEqual([progress("a")])
  })

  it("goes to the only response in flight, else to the newest stream", () => {
    const { post, get, receive } = makeRouter()
    const [older, newer] = [get(), get()]
    const first = post(call(1))
    receive(log)
    post(call(2))
    receive(log)
    expect(first.told.messages).toEqual([log])
    expect(newer.told.messages).toEqual([log])
    expect(older.told.messages).toEqual([])
    newer.abort()
    receive(log)
    expect(older.told.messages).toEqual([log])
  })

  it("waits for a stream if it is a notification, and goes to the oldest response if it is a request", () => {
    const { post, get, receive } = makeRouter()
    const [first, second] = [post(call(1)), post(call(2))]
    receive(log)
    receive(sampling(0))
    expect(first.told.messages).toEqual([sampling(0)])
    expect(second.told.status).toBe(0)
    expect(get().told.messages).toEqual([log])
  })

  it("goes to the next response if it is a request that arrived before it", () => {
    const { post, get, receive } = makeRouter()
    receive(log)
    receive(sampling(0))
    expect(post(call(1)).told.messages).toEqual([sampling(0)])
    expect(get().told.messages).toEqual([log])
  })

  it("waits in a queue of 1000 messages: old notifications are evicted, and requests are rejected", () => {
    const { get, rejected, receive } = makeRouter()
    for (let index = 0; index < 1_500; index++) receive(sampling(index))
    expect(rejected).toEqual(Array.from({ length: 500 }, (_, index) => 1_000 + index))
    const first = get()
    expect(first.told.messages).toHaveLength(1_000)
    first.abort()
    for (let index = 0; index < 1_500; index++) receive(progress(index))
    receive(sampling("late"))
    const { messages } = get().told
    expect(messages).toHaveLength(1_000)
    expect(messages[0]).toEqual(progress(501))
    expect(messages.at(-1)).toEqual(sampling("late"))
    expect(rejected).toHaveLength(500)
  })

  it("is rejected if it is a request that exceeds the size of the queue", () => {
    const { get, rejected, receive } = makeRouter()
    const large = { ...sampling("large"), params: "x".repeat(1024 * 1024) }
    receive(large)
    receive(log)
    expect(rejected).toEqual(["large"])
    expect(get().told.messages).toEqual([log])
  })
})

describe("back-pressure", () => {
  it("pauses the child while any HTTP response is paused, and not longer", () => {
    const { post, get, source, receive } = makeRouter()
    const stream = get()
    const { told } = post(call(1))
    receive(log)
    stream.told.flow?.pause()
    told.flow?.pause()
    stream.told.flow?.unpause()
    expect(source.unpause).not.toHaveBeenCalled()
    receive(responseTo(1))
    expect(source.unpause).toHaveBeenCalledTimes(1)
  })

  it("ends with the HTTP response that caused it", () => {
    const { get, source } = makeRouter()
    const { abort, told } = get()
    told.flow?.pause()
    abort()
    told.flow?.unpause()
    told.flow?.pause()
    expect(source.pause).toHaveBeenCalledTimes(1)
    expect(source.unpause).toHaveBeenCalledTimes(1)
  })
})

describe("any sequence of requests, messages and aborts", () => {
  const id = FastCheck.constantFrom<RequestId>(1, 2, 3, "1", "2")
  const step = FastCheck.oneof(
    FastCheck.record({ type: FastCheck.constant("post" as const), id }),
    FastCheck.record({ type: FastCheck.constant("respond" as const), id }),
    FastCheck.record({ type: FastCheck.constant("get" as const) }),
    FastCheck.record({ type: FastCheck.constant("message" as const), isRequest: FastCheck.boolean() }),
    FastCheck.record({ type: FastCheck.constant("pause" as const), client: FastCheck.nat({ max: 5 }) }),
    FastCheck.record({ type: FastCheck.constant("abort" as const), client: FastCheck.nat({ max: 5 }) })
  )

  it.prop(
    "delivers each message exactly once, and leaves the child unpaused",
    [FastCheck.array(step, { maxLength: 60 })],
    ([steps]) => {
      const { get, post, receive, rejected, router, source } = makeRouter()
      const clients: Array<{ readonly told: RecordedSink; readonly abort: Abort }> = []
      const sent: Array<Message> = []
      const requested: Array<RequestId> = []
      let isAborted = false
      for (const [index, step] of steps.entries()) {
        const client = "client" in step ? clients[step.client % clients.length] : undefined
        if (step.type === "post" && !router.hasIdConflict(bodyOf(call(step.id)))) {
          requested.push(step.id)
          clients.push(post(call(step.id)))
        } else if (step.type === "respond") {
          const message = responseTo(step.id, index)
          if (receive(message)) sent.push(message)
        } else if (step.type === "get") clients.push(get())
        else if (step.type === "message") {
          const message = step.isRequest
            ? sampling(`s${index}`)
            : notification("notifications/message", { index })
          receive(message)
          sent.push(message)
        } else if (step.type === "pause") client?.told.flow?.pause()
        else if (step.type === "abort" && client?.told.ending === undefined) {
          isAborted ||= client !== undefined
          client?.abort()
        }
      }
      if (!isAborted) {
        clients.push(get())
        const received = clients.flatMap(({ told }) => told.messages)
        expect(received.map((message) => JSON.stringify(message)).toSorted()).toEqual(
          sent.map((message) => JSON.stringify(message)).toSorted()
        )
      }
      router.fail(childExited)
      expect(clients.flatMap(({ told }) => told.violations)).toEqual([])
      expect(source.unpause.mock.calls.length > 0 || source.pause.mock.calls.length === 0).toBe(true)
      expect(requested.some((id) => router.hasIdConflict(bodyOf(call(id))))).toBe(false)
      expect(rejected).toEqual([])
    }
  )
})

describe("the exit of the child", () => {
  it("fails the responses and ends the streams", () => {
    const { post, router, get } = makeRouter()
    const [silent, streamed, stream] = [post(call(1)), post(call(2), "text/event-stream"), get()]
    router.fail(childExited)
    expect([silent.told.ending, streamed.told.ending, stream.told.ending]).toEqual([
      childExited,
      childExited,
      "end"
    ])
  })
})
