import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { vi } from "vitest"
import { accepted } from "../../../src/Protocol/Accept.js"
import type { Message, RequestId } from "../../../src/Protocol.js"
import { UpstreamError } from "../../../src/ProxyError.js"
import type { Abort } from "../../../src/Upstream.js"
import { MessageRouter } from "../../../src/Upstream/Stdio/MessageRouter.js"
import { FlowGate } from "../../../src/Upstream/Stdio/FlowGate.js"
import { bodyOf, call, notification, response } from "../../fixtures/requests.js"
import { Told } from "../../fixtures/Told.js"

const gone = new UpstreamError({ reason: "Ended", upstream: "server" })

/** A child that says what a test makes it say, and those who listen. */
const setting = () => {
  const source = { pause: vi.fn(), unpause: vi.fn() }
  const refused: Array<RequestId> = []
  const conversation = new MessageRouter(new FlowGate(source), (id) => refused.push(id))
  return {
    source,
    refused,
    conversation,
    says: (message: Message) => conversation.route(message, Buffer.from(JSON.stringify(message))),
    asks: (json: unknown, accept?: string) => {
      const told = new Told()
      const abort = conversation.addRequests(bodyOf(json), { accepted: accepted(accept) }, told)
      return { told, abort }
    },
    listens: () => {
      const told = new Told()
      const abort = conversation.openStream(told)
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

describe("a response", () => {
  it("answers its request in JSON, as the child wrote it", () => {
    const { asks, conversation } = setting()
    const { told } = asks(call(7))
    const line = Buffer.from('{"jsonrpc":"2.0","result":{"n":1.0},"id":7}')
    conversation.route(response(7, { n: 1 }), line)
    expect(told).toMatchObject({ status: 200, text: line.toString(), ending: "end" })
    expect(told.headers).toMatchObject({
      "content-type": "application/json",
      "content-length": String(line.length)
    })
  })

  it("is told apart by the type of its id", () => {
    const { asks, says } = setting()
    const [number, string] = [asks(call(1)), asks(call("1"))]
    says(response("1", "string"))
    expect(number.told.ending).toBeUndefined()
    says(response(1, "number"))
    expect(string.told.messages).toEqual([response("1", "string")])
    expect(number.told.messages).toEqual([response(1, "number")])
  })

  it("to no request, or a second one, is dropped", () => {
    const { asks, says } = setting()
    const { told } = asks(call(1))
    expect(says(response(2))).toBe(false)
    expect(says(response(1))).toBe(true)
    expect(says(response(1))).toBe(false)
    expect(told.messages).toEqual([response(1)])
    expect(told.violations).toEqual([])
  })

  it("of each request of a batch makes one answer", () => {
    const { asks, says } = setting()
    const { told } = asks([call(1), call(2), notification("notifications/progress")])
    says(response(2))
    expect(told.status).toBe(0)
    says(response(1))
    expect(JSON.parse(told.text)).toEqual([response(2), response(1)])
  })

  it("in a stream is an event, and the last one ends it", () => {
    const { asks, says } = setting()
    const { told } = asks([call(1), call(2)])
    says(response(1))
    says(log)
    says(response(2))
    expect(told).toMatchObject({ isStream: true, ending: "end" })
    expect(told.messages).toEqual([response(1), log, response(2)])
  })
})

describe("an answer", () => {
  it("becomes a stream after a second, and not before", () => {
    vi.useFakeTimers()
    try {
      const { asks, says } = setting()
      const { told } = asks(call(1))
      vi.advanceTimersByTime(999)
      expect(told.status).toBe(0)
      vi.advanceTimersByTime(1)
      expect(told).toMatchObject({ status: 200, isStream: true, text: "" })
      says(response(1))
      expect(told).toMatchObject({ messages: [response(1)], ending: "end" })
    } finally {
      vi.useRealTimers()
    }
  })

  it("stays JSON for a client that takes nothing else, and what comes meanwhile goes elsewhere", () => {
    vi.useFakeTimers()
    try {
      const { asks, listens, says } = setting()
      const { told } = asks(call(1), "application/json")
      says(log)
      const stream = listens()
      vi.advanceTimersByTime(5_000)
      says(response(1))
      expect(told.isStream).toBe(false)
      expect(told.messages).toEqual([response(1)])
      expect(stream.told.messages).toEqual([log])
    } finally {
      vi.useRealTimers()
    }
  })

  it("is a stream at once for a client that takes nothing else", () => {
    const { asks } = setting()
    expect(asks(call(1), "text/event-stream").told).toMatchObject({ status: 200, isStream: true })
  })

  it("that nobody waits for any more frees its ids", () => {
    const { asks, conversation, says } = setting()
    const { abort, told } = asks(call(1))
    expect(conversation.hasIdConflict(bodyOf(call(1)))).toBe(true)
    abort()
    expect(conversation.hasIdConflict(bodyOf(call(1)))).toBe(false)
    expect(says(response(1))).toBe(false)
    expect(told.status).toBe(0)
  })

  it("cannot be told from one with the same id, in flight or in one batch", () => {
    const { asks, conversation } = setting()
    asks(call(1))
    expect(conversation.hasIdConflict(bodyOf(call("1")))).toBe(false)
    expect(conversation.hasIdConflict(bodyOf([call(2), call(2)]))).toBe(true)
  })
})

describe("what belongs to no response", () => {
  it("goes to the request whose progress it reports", () => {
    const { asks, listens, says } = setting()
    const stream = listens()
    const [first, second] = [asks(withToken(1, "a")), asks(withToken(2, "b"))]
    says(progress("b"))
    expect(second.told.messages).toEqual([progress("b")])
    expect(first.told.status).toBe(0)
    expect(stream.told.messages).toEqual([])
  })

  it("goes to the stream when its request is answered: a task goes on", () => {
    const { asks, listens, says } = setting()
    const stream = listens()
    asks(withToken(1, "a"))
    says(response(1))
    says(progress("a"))
    expect(stream.told.messages).toEqual([progress("a")])
  })

  it("goes to the only request in flight, else to the newest stream", () => {
    const { asks, listens, says } = setting()
    const [older, newer] = [listens(), listens()]
    const first = asks(call(1))
    says(log)
    asks(call(2))
    says(log)
    expect(first.told.messages).toEqual([log])
    expect(newer.told.messages).toEqual([log])
    expect(older.told.messages).toEqual([])
    newer.abort()
    says(log)
    expect(older.told.messages).toEqual([log])
  })

  it("waits for a stream, unless it is a request and there is an answer to carry it", () => {
    const { asks, listens, says } = setting()
    const [first, second] = [asks(call(1)), asks(call(2))]
    says(log)
    says(sampling(0))
    expect(first.told.messages).toEqual([sampling(0)])
    expect(second.told.status).toBe(0)
    expect(listens().told.messages).toEqual([log])
  })

  it("goes with the next call when it is a request that came while there was none", () => {
    const { asks, listens, says } = setting()
    says(log)
    says(sampling(0))
    expect(asks(call(1)).told.messages).toEqual([sampling(0)])
    expect(listens().told.messages).toEqual([log])
  })

  it("waits within bounds: the oldest notifications go, and requests are refused", () => {
    const { listens, refused, says } = setting()
    for (let index = 0; index < 1_500; index++) says(sampling(index))
    expect(refused).toEqual(Array.from({ length: 500 }, (_, index) => 1_000 + index))
    const first = listens()
    expect(first.told.messages).toHaveLength(1_000)
    first.abort()
    for (let index = 0; index < 1_500; index++) says(progress(index))
    says(sampling("late"))
    const { messages } = listens().told
    expect(messages).toHaveLength(1_000)
    expect(messages[0]).toEqual(progress(501))
    expect(messages.at(-1)).toEqual(sampling("late"))
    expect(refused).toHaveLength(500)
  })

  it("waits within a bound of bytes too", () => {
    const { listens, refused, says } = setting()
    const large = { ...sampling("large"), params: "x".repeat(1024 * 1024) }
    says(large)
    says(log)
    expect(refused).toEqual(["large"])
    expect(listens().told.messages).toEqual([log])
  })
})

describe("back-pressure", () => {
  it("stops the child while any of the listeners does not read, and no longer", () => {
    const { asks, listens, source, says } = setting()
    const stream = listens()
    const { told } = asks(call(1))
    says(log)
    stream.told.flow?.pause()
    told.flow?.pause()
    stream.told.flow?.unpause()
    expect(source.unpause).not.toHaveBeenCalled()
    says(response(1))
    expect(source.unpause).toHaveBeenCalledTimes(1)
  })

  it("ends with the listener", () => {
    const { listens, source } = setting()
    const { abort, told } = listens()
    told.flow?.pause()
    abort()
    told.flow?.unpause()
    told.flow?.pause()
    expect(source.pause).toHaveBeenCalledTimes(1)
    expect(source.unpause).toHaveBeenCalledTimes(1)
  })
})

describe("whatever is asked, said and given up", () => {
  const id = FastCheck.constantFrom<RequestId>(1, 2, 3, "1", "2")
  const step = FastCheck.oneof(
    FastCheck.record({ type: FastCheck.constant("ask" as const), id }),
    FastCheck.record({ type: FastCheck.constant("respond" as const), id }),
    FastCheck.record({ type: FastCheck.constant("listen" as const) }),
    FastCheck.record({ type: FastCheck.constant("say" as const), isRequest: FastCheck.boolean() }),
    FastCheck.record({ type: FastCheck.constant("pause" as const), listener: FastCheck.nat({ max: 5 }) }),
    FastCheck.record({ type: FastCheck.constant("abort" as const), listener: FastCheck.nat({ max: 5 }) })
  )

  it.prop(
    "each message reaches exactly one listener, and nobody is held in the end",
    [FastCheck.array(step, { maxLength: 60 })],
    ([steps]) => {
      const { asks, conversation, listens, refused, says, source } = setting()
      const listeners: Array<{ readonly told: Told; readonly abort: Abort }> = []
      const said: Array<Message> = []
      const asked: Array<RequestId> = []
      let isAborted = false
      for (const [index, step] of steps.entries()) {
        const listener = "listener" in step ? listeners[step.listener % listeners.length] : undefined
        if (step.type === "ask" && !conversation.hasIdConflict(bodyOf(call(step.id)))) {
          asked.push(step.id)
          listeners.push(asks(call(step.id)))
        } else if (step.type === "respond") {
          const message = response(step.id, index)
          if (says(message)) said.push(message)
        } else if (step.type === "listen") listeners.push(listens())
        else if (step.type === "say") {
          const message = step.isRequest
            ? sampling(`s${index}`)
            : notification("notifications/message", { index })
          says(message)
          said.push(message)
        } else if (step.type === "pause") listener?.told.flow?.pause()
        else if (step.type === "abort" && listener?.told.ending === undefined) {
          isAborted ||= listener !== undefined
          listener?.abort()
        }
      }
      if (!isAborted) {
        listeners.push(listens())
        const heard = listeners.flatMap(({ told }) => told.messages)
        expect(heard.map((message) => JSON.stringify(message)).toSorted()).toEqual(
          said.map((message) => JSON.stringify(message)).toSorted()
        )
      }
      conversation.fail(gone)
      expect(listeners.flatMap(({ told }) => told.violations)).toEqual([])
      expect(source.unpause.mock.calls.length > 0 || source.pause.mock.calls.length === 0).toBe(true)
      expect(asked.some((id) => conversation.hasIdConflict(bodyOf(call(id))))).toBe(false)
      expect(refused).toEqual([])
    }
  )
})

describe("a child that is gone", () => {
  it("fails what waits for an answer, and ends the streams", () => {
    const { asks, conversation, listens } = setting()
    const [silent, streamed, stream] = [asks(call(1)), asks(call(2), "text/event-stream"), listens()]
    conversation.fail(gone)
    expect([silent.told.ending, streamed.told.ending, stream.told.ending]).toEqual([gone, gone, "end"])
  })
})
