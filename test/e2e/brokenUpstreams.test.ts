import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { eventOf, openStream, toolResult } from "../fixtures/events.js"
import { eventually } from "../fixtures/eventually.js"
import { startEverything } from "../fixtures/Everything.js"
import { makeFaults } from "../fixtures/Faults.js"
import { startFront } from "../fixtures/Front.js"
import { type Call, makePlainServer, type Script } from "../fixtures/PlainServer.js"
import { startProxy } from "../fixtures/Proxy.js"
import type { RecordedResponse } from "../fixtures/RawServer.js"
import { type Headers, initialize, initialized, post, request, stream } from "../fixtures/RawClient.js"
import { usage, withUsage } from "../fixtures/Usage.js"

// What clients see of upstreams that go on with a stream in ways of their own, or not at all.

const call = (url: string, session: Headers, body: object) =>
  stream(url, { method: "POST", headers: session, body })

const note = (n: number) => ({ jsonrpc: "2.0", method: "notifications/message", params: { data: n } })

const lastEventId = ({ request }: Call) => request.headers["last-event-id"]

/** A server whose streams break after the event `e1`; how it goes on with them is told by the attempt. */
const breaking = (resumed: (attempt: number, call: Call) => void): Script => {
  let attempts = 0
  return {
    "test/call": ({ response }) => {
      openStream(response)
      response.write(eventOf(note(1), "e1"), () => response.destroy())
    },
    GET: (call) =>
      lastEventId(call) === undefined ? call.answer(405, { allow: "POST" }) : resumed(++attempts, call)
  }
}

const tail = eventOf(note(2), "e2") + eventOf(toolResult(1, "done"), "e3")

describe("an upstream that", () => {
  it.scopedLive("takes the broken connection for open at first is asked again", () =>
    Effect.gen(function* () {
      const script = breaking((attempt, { answer, response }) => {
        if (attempt <= 2) return answer(409, {}, "Conflict")
        openStream(response)
        response.end(tail)
      })
      const server = yield* makePlainServer(script)
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const answer = yield* call(front.url, session, request(1, "test/call"))
      expect(yield* answer.end).toBe("ended")
      expect(answer.messages()).toMatchObject([note(1), note(2), { id: 1 }])
      expect([server.count("test/call"), server.count("GET")]).toEqual([1, 3])
    })
  )

  it.scopedLive("repeats what it has said is heard once", () =>
    Effect.gen(function* () {
      const script = breaking((attempt, { response }) => {
        openStream(response)
        const all = eventOf(note(1), "e1") + tail
        if (attempt === 1) response.write(eventOf(note(1), "e1"), () => response.destroy())
        else response.end(`id: e0\ndata: {}\n\n${eventOf(toolResult(7, "of another"), "e9")}${all}`)
      })
      const server = yield* makePlainServer(script)
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const answer = yield* call(front.url, session, request(1, "test/call"))
      expect(yield* answer.end).toBe("ended")
      expect(answer.messages()).toMatchObject([note(1), note(2), { id: 1 }])
    })
  )

  it.scopedLive.each([400, 404, 405])("will not go on with a call, by %d, is not asked again", (status) =>
    Effect.gen(function* () {
      const server = yield* makePlainServer(breaking((_, { answer }) => answer(status, {}, "no")))
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const answer = yield* call(front.url, session, request(1, "test/call"))
      expect(yield* answer.end).toBe("ended")
      expect(answer.messages()).toMatchObject([
        note(1),
        { id: 1, error: { code: -32000, message: expect.stringContaining("closed the connection") } }
      ])
      expect([server.count("test/call"), server.count("GET")]).toEqual([1, 1])
      expect((yield* post(front.url, request(2, "ping"), session)).status).toBe(200)
    })
  )

  it.scopedLive("gives ids in any script is asked with their UTF-8", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const server = yield* makePlainServer({
        "test/call": ({ response }) => {
          openStream(response)
          response.end(eventOf(note(1), "事件-é1"))
        },
        GET: (call) => {
          asked.push(Buffer.from(String(lastEventId(call)), "latin1").toString())
          openStream(call.response)
          call.response.end(tail)
        }
      })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const answer = yield* call(front.url, session, request(1, "test/call"))
      expect(yield* answer.end).toBe("ended")
      expect(answer.messages()).toMatchObject([note(1), note(2), { id: 1 }])
      expect(asked).toEqual(["事件-é1"])
    })
  )

  it.scopedLive("waits before it says more is not given up, and is left alone as long as it wants", () =>
    Effect.gen(function* () {
      const times: Array<number> = []
      const script: Script = {
        "test/call": ({ response }) => {
          openStream(response)
          response.end("id: e0\nretry: 300\ndata: \n\n")
          times.push(performance.now())
        },
        GET: ({ response }) => {
          openStream(response)
          response.end(times.length === 4 ? tail : `id: p${times.length}\ndata: \n\n`)
          times.push(performance.now())
        }
      }
      const server = yield* makePlainServer(script)
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const answer = yield* call(front.url, session, request(1, "test/call"))
      expect(yield* answer.end).toBe("ended")
      expect(answer.messages()).toMatchObject([note(2), { id: 1 }])
      expect(server.requests.flatMap(({ headers }) => headers["last-event-id"] ?? [])).toEqual([
        "e0",
        "p1",
        "p2",
        "p3"
      ])
      const waits = times.slice(1).map((time, index) => time - (times[index] ?? 0))
      // Timers may be early by a millisecond.
      for (const wait of waits) expect(wait).toBeGreaterThan(298)
    })
  )
})

describe("a stream of messages", () => {
  it.scopedLive("is asked for anew where the upstream gives no ids", () =>
    Effect.gen(function* () {
      let opened = 0
      const script: Script = {
        GET: ({ response }) => {
          openStream(response)
          response.write(eventOf(note(++opened)), () => opened < 4 && response.destroy())
        }
      }
      const server = yield* makePlainServer(script)
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const listening = yield* stream(front.url, { headers: session })
      yield* listening.until(() => listening.messages().length === 4)
      expect(listening.messages()).toMatchObject([note(1), note(2), note(3), note(4)])
      expect(server.count("GET")).toBe(4)
    })
  )

  it.scopedLive("that the upstream has ended is asked for again when its client comes back", () =>
    Effect.gen(function* () {
      let has = true
      let opened = 0
      const script: Script = {
        GET: ({ answer, response }) => {
          if (!has) return answer(405, { allow: "POST" })
          openStream(response)
          opened++
          if (opened > 1) return response.write(eventOf(note(opened), `e${opened}`))
          has = false
          return response.end(eventOf(note(opened), `e${opened}`))
        }
      }
      const server = yield* makePlainServer(script)
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const listening = yield* stream(front.url, { headers: session })
      expect(yield* listening.end).toBe("ended")
      expect(listening.messages()).toMatchObject([note(1)])
      const back = { ...session, "last-event-id": listening.events.at(-1)?.id }
      const refused = yield* stream(front.url, { headers: back })
      expect(refused.status).toBe(405)
      has = true
      const again = yield* stream(front.url, { headers: back })
      expect(again.status).toBe(200)
      yield* again.until(() => again.messages().length > 0)
      expect(again.messages()).toMatchObject([note(2)])
      expect(server.requests.flatMap(({ headers }) => headers["last-event-id"] ?? [])).toEqual([
        "e1",
        "e1",
        "e1"
      ])
    })
  )
})

describe("the official demo server, which repeats what was on other streams", () => {
  it.scopedLive("is heard once", () =>
    Effect.gen(function* () {
      const everything = yield* startEverything()
      const behind = yield* makeFaults(everything)
      const front = yield* startFront(behind)
      const { session } = yield* initialize(front.url)
      yield* post(front.url, initialized, session)
      const begin = (id: number) =>
        call(
          front.url,
          session,
          request(id, "tools/call", {
            name: "trigger-long-running-operation",
            arguments: { duration: 1, steps: 4 },
            _meta: { progressToken: id }
          })
        )
      const answers = [yield* begin(1), yield* begin(2)]
      for (const answer of answers) yield* answer.until(() => answer.messages().length > 0)
      yield* behind.swallow
      yield* behind.until(() => [1, 2].every((id) => behind.swallowed().includes(`"id":${id}}`)))
      yield* behind.cut
      for (const answer of answers) expect(yield* answer.end).toBe("ended")
      const [one, two] = answers.map((answer) => answer.messages())
      expect(one?.at(-1)).toMatchObject({ id: 1, result: {} })
      expect(two?.at(-1)).toMatchObject({ id: 2, result: {} })
      const progress = answers.flatMap((answer) => answer.messages().slice(0, -1))
      // One of the streams may bring what the other missed.
      for (const progressToken of [1, 2]) {
        for (const step of [1, 2, 3, 4]) {
          const params = { progress: step, total: 4, progressToken }
          const told = { jsonrpc: "2.0", method: "notifications/progress", params }
          expect(progress).toContainEqual(told)
        }
      }
      expect(progress).toHaveLength(8)
    })
  )
})

const events = 5_000
const padding = "x".repeat(4_000)

describe("a client that does not read", () => {
  it.scopedLive("gets all of a long stream in the end, and meanwhile little of it is held", () =>
    Effect.gen(function* () {
      const responses: Array<RecordedResponse> = []
      const server = yield* makePlainServer({
        "test/many": ({ response }) => {
          openStream(response)
          response.write(eventOf(note(0)))
          responses.push(response)
        }
      })
      const proxy = yield* startProxy(server, ["--multi-session"], withUsage)
      const faults = yield* makeFaults(proxy)
      const { session } = yield* initialize(proxy.url)
      const answer = yield* call(faults.url, session, request(1, "test/many"))
      yield* answer.until(() => answer.messages().length === 1)
      const before = yield* usage(proxy)
      yield* faults.stall
      const [response] = responses
      if (response === undefined) throw new Error("not asked")
      let written = 1
      const write = () => {
        while (written < events) {
          if (!response.write(eventOf({ ...note(written++), padding }))) return response.once("drain", write)
        }
        return response.end(eventOf(toolResult(1, "done")))
      }
      write()
      // Until nothing more is taken from the server.
      const during = yield* eventually(
        Effect.gen(function* () {
          const before = written
          const used = yield* usage(proxy)
          return { ...used, written, isStill: before === written }
        }),
        ({ isStill }) => isStill
      )
      expect(during.written).toBeLessThan(events)
      expect(during.heap - before.heap).toBeLessThan(6_000_000)
      yield* faults.flow
      expect(yield* answer.endWithin(20_000)).toBe("ended")
      expect(answer.messages()).toMatchObject([
        ...Array.from({ length: events }, (_, n) => note(n)),
        { id: 1 }
      ])
      expect(new Set(answer.events.map(({ id }) => id)).size).toBe(events + 2)
    })
  )
})
