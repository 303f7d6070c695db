import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import {
  intercept,
  type Interceptor,
  type InterceptorContext,
  layer,
  Interceptors,
  MessageDecorator
} from "../src/Interceptor.js"
import type { Message } from "../src/Protocol.js"
import { noFlow, nothingToAbort, respond, type Upstream } from "../src/Upstream.js"
import { eventOf } from "./fixtures/events.js"
import { settleSteps } from "./fixtures/ManualClock.js"
import { makeScriptedProxy } from "./fixtures/ScriptedProxy.js"
import { call, initializeResult, modernCall, notification, responseTo } from "./fixtures/requests.js"

/** Everything that passed one interceptor. */
class Log {
  readonly contexts: Array<InterceptorContext> = []
  readonly sent: Array<string> = []
  readonly received: Array<string> = []

  readonly interceptor: Interceptor = (next, context) => {
    this.contexts.push(context)
    return {
      name: next.name,
      exchange: (request, sink) => {
        this.sent.push(request.body?.messages[0].method ?? request.method)
        return next.exchange(request, new Received(sink, this.received))
      }
    }
  }
}

class Received extends MessageDecorator {
  constructor(
    next: ConstructorParameters<typeof MessageDecorator>[0],
    private readonly log: Array<string>
  ) {
    super(next)
  }

  protected override message({ id, method }: Message): void {
    this.log.push(method ?? `response ${JSON.stringify(id)}`)
  }
}

const makeIntercepted = (log: Log, options: Parameters<typeof makeScriptedProxy>[0] = {}) =>
  Effect.provide(makeScriptedProxy(options, {}), layer(log.interceptor))

describe("an interceptor", () => {
  it.scoped("wraps each session when it opens, and knows the session", () =>
    Effect.gen(function* () {
      const log = new Log()
      const proxy = yield* makeIntercepted(log)
      const { session } = yield* proxy.open()
      yield* proxy.open()
      expect(log.contexts).toHaveLength(2)
      expect(log.contexts[0]).toMatchObject({
        session: session.handle,
        client: "client",
        upstream: proxy.pool.name,
        era: "legacy"
      })
      expect(log.contexts[0]?.revision()).toBe(initializeResult.protocolVersion)
    })
  )

  it.scoped("wraps each request without a session", () =>
    Effect.gen(function* () {
      const log = new Log()
      const proxy = yield* makeIntercepted(log)
      proxy.stateless(modernCall(1)).exchange.perform("json")
      expect(log.contexts).toMatchObject([{ session: undefined, client: "client", era: "modern" }])
      expect([log.sent, log.received]).toEqual([["tools/call"], ["response 1"]])
    })
  )

  it.scoped("sees each message of the client once, though it is sent again to another upstream session", () =>
    Effect.gen(function* () {
      const log = new Log()
      const proxy = yield* makeIntercepted(log, { recover: true })
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      exchange.perform("not found")
      yield* settleSteps
      proxy.pool.openExchanges[0]?.perform("json")
      expect(response.messages).toMatchObject([{ id: 1, result: {} }])
      // The ping, the initialize and the notifications/initialized of the proxy do not pass.
      expect(log.sent).toEqual(["initialize", "tools/call"])
      expect(log.received).toEqual(["response 0", "response 1"])
    })
  )

  it.scoped("sees each message of the server once, though the upstream repeats it on a resumed stream", () =>
    Effect.gen(function* () {
      const log = new Log()
      const proxy = yield* makeIntercepted(log)
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      exchange.perform("event with id, then failure")
      yield* proxy.clock.advance("1 second")
      const resumed = proxy.pool.openExchanges[0]
      for (const action of ["open stream", "repeated event", "response with id", "end"] as const)
        resumed?.perform(action)
      yield* settleSteps
      expect(response).toMatchObject({ ending: "end", violations: [] })
      expect(log.sent).toEqual(["initialize", "tools/call"])
      expect(log.received).toEqual(["response 0", "notifications/message", "response 1"])
    })
  )

  it.scoped("decides what is logged: a dropped event is in no replay", () =>
    Effect.gen(function* () {
      const proxy = yield* Effect.provide(
        makeScriptedProxy({}, {}),
        layer((next) => ({
          name: next.name,
          exchange: (request, sink) =>
            next.exchange(request, {
              head: (status, headers, flow) => sink.head(status, headers, flow),
              data: (chunk, part) => String(Buffer.from(chunk)).includes("secret") || sink.data(chunk, part),
              end: () => sink.end(),
              error: (error) => sink.error(error)
            })
        }))
      )
      const { session } = yield* proxy.open()
      const { response, disconnect, exchange } = proxy.request(session)
      exchange.perform("open stream")
      exchange.frame(JSON.stringify(notification("notifications/first")))
      exchange.frame(JSON.stringify(notification("notifications/secret")))
      response.disconnect()
      disconnect()
      exchange.frame(JSON.stringify(notification("notifications/secret")))
      exchange.frame(JSON.stringify(notification("notifications/last")))
      const again = proxy.resume(session, response.eventIds.at(-1) ?? "none")
      expect(response.messages).toMatchObject([{ method: "notifications/first" }])
      expect(again.response.messages).toMatchObject([{ method: "notifications/last" }])
    })
  )

  it.scoped("can answer a request, which then never reaches the upstream", () =>
    Effect.gen(function* () {
      const proxy = yield* Effect.provide(
        makeScriptedProxy({}, {}),
        layer((next) => ({
          name: next.name,
          exchange: (request, sink) => {
            const message = request.body?.messages[0]
            if (message?.method !== "tools/call" || message.id == null) return next.exchange(request, sink)
            respond(sink, 200, JSON.stringify(responseTo(message.id, { answered: "here" })))
            return nothingToAbort
          }
        }))
      )
      const { session } = yield* proxy.open()
      const before = proxy.pool.exchanges.length
      const { response } = proxy.request(session, call(7))
      expect(response.messages).toEqual([responseTo(7, { answered: "here" })])
      expect(response).toMatchObject({ status: 200, ending: "end", violations: [] })
      expect(proxy.pool.exchanges).toHaveLength(before)
      expect(session.load.exchanges).toBe(0)
    })
  )

  it.scoped.each([
    [
      "that it writes itself",
      (next: Upstream): Upstream => ({
        name: next.name,
        exchange: (request, sink) => {
          if (request.body?.messages[0].method !== "tools/call") return next.exchange(request, sink)
          sink.head(200, { "content-type": "text/event-stream" }, noFlow)
          for (const half of [eventOf(responseTo(7)).slice(0, 9), eventOf(responseTo(7)).slice(9)])
            sink.data(Buffer.from(half))
          sink.end()
          return nothingToAbort
        }
      })
    ],
    [
      "of the upstream that it passes on as bytes",
      (next: Upstream): Upstream => ({
        name: next.name,
        exchange: (request, sink) =>
          next.exchange(request, {
            head: (status, headers, flow) => sink.head(status, headers, flow),
            data: (chunk) => sink.data(chunk),
            end: () => sink.end(),
            error: (error) => sink.error(error)
          })
      })
    ]
  ] as const)("has the events of a stream logged %s", ([, interceptor]) =>
    Effect.gen(function* () {
      const proxy = yield* Effect.provide(makeScriptedProxy({}, {}), layer(interceptor))
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(7))
      exchange.perform("response")
      exchange.perform("end")
      expect(response.messages).toEqual([responseTo(7)])
      // A priming event, and the event itself.
      expect(response.eventIds).toHaveLength(2)
      expect(response).toMatchObject({ ending: "end", violations: [] })
    })
  )

  it.scoped("sees the events of a standalone stream that was resumed", () =>
    Effect.gen(function* () {
      const log = new Log()
      const proxy = yield* makeIntercepted(log)
      const { session } = yield* proxy.open()
      const { exchange } = proxy.request(session)
      exchange.perform("event with id")
      exchange.perform("event with id, then failure")
      yield* proxy.clock.advance("1 second")
      proxy.pool.openExchanges[0]?.perform("event with id")
      expect(log.received.filter((line) => line === "notifications/message")).toHaveLength(3)
    })
  )
})

describe("several interceptors", () => {
  it.scoped("are wrapped in the order of their layers, the outermost first", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const named =
        (name: string): Interceptor =>
        (next) => ({
          name: next.name,
          exchange: (request, sink) => {
            order.push(name)
            return next.exchange(request, sink)
          }
        })
      const proxy = yield* makeScriptedProxy({}, {}).pipe(
        Effect.provide(layer(named("inner"))),
        Effect.provide(layer(named("outer"), named("second")))
      )
      yield* proxy.open()
      expect(order).toEqual(["outer", "second", "inner"])
    })
  )
})

describe("no interceptor", () => {
  it.effect("leaves the upstream as it is", () =>
    Effect.gen(function* () {
      const upstream = { name: "upstream", exchange: () => nothingToAbort }
      const context = { session: undefined, client: "c", upstream: "upstream", revision: () => undefined }
      const interceptors = yield* Interceptors
      expect(interceptors).toEqual([])
      expect(intercept(interceptors, upstream, { ...context, era: "modern" })).toBe(upstream)
    })
  )
})

describe("the messages of an answer", () => {
  /** Sends an answer through a decorator, and returns the methods and ids that it saw. */
  const messagesIn = (contentType: string, ...chunks: ReadonlyArray<string>) => {
    const seen: Array<string> = []
    const passed: Array<string> = []
    const decorator = new Received(
      {
        head: () => {},
        data: (chunk) => passed.push(String(Buffer.from(chunk))),
        end: () => passed.push("end"),
        error: () => {}
      },
      seen
    )
    decorator.head(200, { "content-type": contentType }, { pause: () => {}, unpause: () => {} })
    for (const chunk of chunks) decorator.data(Buffer.from(chunk))
    decorator.end()
    expect(passed).toEqual([...chunks, "end"])
    return seen
  }

  it("are decoded from JSON, from a batch and from split events, and the bytes pass unchanged", () => {
    const [one, two] = [JSON.stringify(responseTo(1)), JSON.stringify(notification("x"))]
    expect(messagesIn("application/json", one.slice(0, 5), one.slice(5))).toEqual(["response 1"])
    expect(messagesIn("application/json", `[${one},${two}]`)).toEqual(["response 1", "x"])
    expect(messagesIn("text/event-stream", `data: ${two}\n\ndata: `, `${one}\n\n`)).toEqual([
      "x",
      "response 1"
    ])
  })

  it("are not decoded from a JSON answer above the limit, which passes all the same", () => {
    const large = JSON.stringify(responseTo(1, { text: "x".repeat(5 * 1024 * 1024) }))
    expect(messagesIn("application/json", large.slice(0, 1_000), large.slice(1_000))).toEqual([])
  })
})
