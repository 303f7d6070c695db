import { describe, expect, it, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { eventOf, openStream, toolResult } from "../fixtures/events.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import {
  type Call,
  initializeResult,
  makePlainServer,
  type PlainServer,
  type Script
} from "../fixtures/PlainServer.js"
import { type Proxy, startProxy } from "../fixtures/Proxy.js"
import {
  callTool,
  type Headers,
  initialize,
  initialized,
  messages,
  post,
  request,
  stream
} from "../fixtures/RawClient.js"
import type { ObservedResponse } from "../fixtures/RawServer.js"

class Plain extends Context.Tag("test/Plain")<
  Plain,
  { readonly server: PlainServer; readonly proxy: Proxy; readonly session: Headers }
>() {}

/** JSON that no serializer writes, so that a proxy which serializes a body again changes it. */
const batch = `[ {"method":"test/batch","jsonrpc":"2.0","id":1.0, "params":{"é":"\\u00e9","n":1e2,"n":100}},\r\n
  {"jsonrpc":"2.0","method":"notifications/x"} ,{"id":"1","method":"test/other","jsonrpc":"2.0"}]\n`
const batchAnswer = `[ {"result":{"\\u00e9":1.0},"jsonrpc":"2.0","id":"1"},\n{"id":1.0,"jsonrpc":"2.0","result":{}} ] `

/** Events that use all of the SSE format. */
const events = [
  ": comment\n\n",
  'event: message\r\nid:\r\ndata: {"jsonrpc":"2.0",\r\ndata: "method":"notifications/é🐱"}\r\n\r\n',
  "unknown: field\nretry: 5000\n\n\n",
  `data: {"jsonrpc":"2.0","method":"notifications/long","params":{"text":"${"ä".repeat(700_000)}"}}\n\n`,
  'data:{ "result" : {}, "id":7, "jsonrpc":"2.0" }\n\n'
].join("")

/** Writes bytes in pieces that end at arbitrary places. */
const writeInPieces = (response: ObservedResponse, bytes: Buffer): void => {
  const size = bytes.length > 2000 ? 1 + (bytes.length % 13) : bytes.length
  response.write(bytes.subarray(0, bytes.length > 100_000 ? 99_991 : size))
  const rest = bytes.subarray(bytes.length > 100_000 ? 99_991 : size)
  if (rest.length > 0) setImmediate(writeInPieces, response, rest)
  else response.end()
}

const script: Script = {
  initialize: ({ params, result }) =>
    result({ ...initializeResult, protocolVersion: params["protocolVersion"] }, { "mcp-session-id": "up" }),
  // A batch has no method.
  "": ({ answer, request, response }) => {
    if (request.headers["x-answer"] === "json") {
      return answer(200, { "content-type": "application/json" }, batchAnswer)
    }
    if (request.headers["x-answer"] !== "events") return answer(202)
    openStream(response)
    return response.end(eventOf(JSON.parse(batchAnswer)))
  },
  "test/events": ({ response }) => {
    openStream(response)
    writeInPieces(response, Buffer.from(events))
  }
}

layer(
  Layer.scoped(
    Plain,
    Effect.gen(function* () {
      const server = yield* makePlainServer(script)
      const proxy = yield* startProxy(server, ["--multi-session", "--max-events", "0"])
      const { session } = yield* initialize(proxy.url, { protocolVersion: "2025-03-26" })
      yield* post(proxy.url, initialized, session)
      return { server, proxy, session }
    })
  ),
  { excludeTestServices: true }
)("the proxy forwards byte for byte", (it) => {
  it.scoped("batches of 2025-03-26 and their responses", () =>
    Effect.gen(function* () {
      const { proxy, server, session } = yield* Plain
      const asJson = yield* post(proxy.url, batch, { ...session, "x-answer": "json" })
      expect(asJson).toMatchObject({ status: 200, text: batchAnswer })
      const asEvents = yield* post(proxy.url, batch, { ...session, "x-answer": "events" })
      expect(asEvents).toMatchObject({ status: 200, text: eventOf(JSON.parse(batchAnswer)) })
      expect(server.requests.slice(-2).map(({ body }) => body)).toEqual([batch, batch])
    })
  )

  it.scoped("requests, notifications and responses with any method", () =>
    Effect.gen(function* () {
      const { proxy, server, session } = yield* Plain
      const bodies = [
        `{ "id":"ü\\u00fc", "jsonrpc":"2.0" , "method":"no/such" , "params":[1.0,{"a":1,"a":2}] }`,
        `{"method":"notifications/unknown","jsonrpc":"2.0"}\n`,
        ` {"jsonrpc":"2.0","id":0,"result":{"model":"m" ,"content":[]}}`,
        `{"jsonrpc":"2.0", "id":"0","error":{"code":-1,"message":"no","data":[1e3]}}`
      ]
      const answers = yield* Effect.forEach(bodies, (body) => post(proxy.url, body, session))
      expect(server.requests.slice(-4).map(({ body }) => body)).toEqual(bodies)
      expect(answers.map(({ status, text }) => [status, text])).toEqual([
        [200, `{"jsonrpc":"2.0","id":"üü","result":{}}`],
        [202, ""],
        [202, ""],
        [202, ""]
      ])
    })
  )

  it.scoped("the events of a stream that arrives in pieces", () =>
    Effect.gen(function* () {
      const { proxy, session } = yield* Plain
      const answer = yield* post(proxy.url, request(7, "test/events"), session)
      expect(answer.text === events).toBe(true)
    })
  )
})

describe("the events of a stored stream", () => {
  it.scopedLive("have the proxy's ids and the upstream's messages", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer(script)
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url, { protocolVersion: "2025-03-26" })
      const { headers, text } = yield* post(proxy.url, request(7, "test/events"), session)
      expect(messages({ headers, text })).toEqual(messages({ headers, text: events }))
      expect(new Set(text.match(/^id: \S+$/gm)).size).toBe(3)
      expect(text).not.toContain("retry")
    })
  )
})

describe("the response on a stream", () => {
  it.scopedLive("is sent once, even if a comment follows it", () =>
    Effect.gen(function* () {
      const calls: Array<Call> = []
      const server = yield* makePlainServer({
        "test/stream": (call) => {
          openStream(call.response)
          calls.push(call)
        }
      })
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      const options = { method: "POST", headers: session, body: request(1, "test/stream") }
      const reading = yield* stream(proxy.url, options)
      yield* server.until(() => calls.length === 1)
      const answer = eventOf(toolResult(1, "done"))
      calls[0]?.response.write(answer)
      yield* reading.event(0)
      calls[0]?.response.end(": bye\n\n")
      expect(yield* reading.end).toBe("ended")
      expect(reading.messages()).toEqual([toolResult(1, "done")])
    })
  )

  it.scopedLive("is sent for each request of a batch, in the order of the upstream", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url, { protocolVersion: "2025-03-26" })
      yield* post(proxy.url, initialized, session)
      const body = [callTool(1, "wait", { until: "one" }), callTool("1", "wait", { until: "two" })]
      const reading = yield* stream(proxy.url, { method: "POST", headers: session, body })
      yield* server.until(() => server.pending().length === 2)
      yield* server.release("two")
      yield* reading.event(0)
      yield* server.release("one")
      expect(yield* reading.end).toBe("ended")
      expect(reading.messages()).toMatchObject([
        { id: "1", result: { content: [{ text: "released two" }] } },
        { id: 1, result: { content: [{ text: "released one" }] } }
      ])
      expect(reading.messages()).toHaveLength(2)
    })
  )
})
