import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { eventOf, openStream, toolResult } from "../fixtures/events.js"
import { eventually } from "../fixtures/eventually.js"
import { startEverything } from "../fixtures/Everything.js"
import { makeFaults } from "../fixtures/Faults.js"
import { startFront } from "../fixtures/Front.js"
import { type Call, makePlainServer, type Script } from "../fixtures/PlainServer.js"
import { startProxy } from "../fixtures/Proxy.js"
import type { ObservedResponse } from "../fixtures/RawServer.js"
import { type Headers, initialize, initialized, post, request, stream } from "../fixtures/RawClient.js"
import { usage, withUsage } from "../fixtures/Usage.js"

// Upstreams whose streams break, and that resume them incorrectly or not at all.

const call = (url: string, session: Headers, body: object) =>
  stream(url, { method: "POST", headers: session, body })

const note = (n: number) => ({ jsonrpc: "2.0", method: "notifications/message", params: { data: n } })

const lastEventId = ({ request }: Call) => request.headers["last-event-id"]

/** A server whose streams break after the event `e1`. `onResume` gets the number of the attempt. */
const breakingServer = (onResume: (attempt: number, call: Call) => void): Script => {
  let attempts = 0
  return {
    "test/call": ({ response }) => {
      openStream(response)
      response.write(eventOf(note(1), "e1"), () => response.destroy())
    },
    GET: (call) =>
      lastEventId(call) === undefined ? call.answer(405, { allow: "POST" }) : onResume(++attempts, call)
  }
}

const tail = eventOf(note(2), "e2") + eventOf(toolResult(1, "done"), "e3")

describe("an upstream with broken streams", () => {
  it.scopedLive("is asked to resume again after 409", () =>
    Effect.gen(function* () {
      const script = breakingServer((attempt, { answer, response }) => {
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

  it.scopedLive("can repeat events, which are dropped", () =>
    Effect.gen(function* () {
      const script = breakingServer((attempt, { response }) => {
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

  it.scopedLive.each([400, 404, 405])("is not asked again after it has refused to resume with %d", (status) =>
    Effect.gen(function* () {
      const server = yield* makePlainServer(breakingServer((_, { answer }) => answer(status, {}, "no")))
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

  it.scopedLive("gets non-ASCII event ids back as UTF-8", () =>
    Effect.gen(function* () {
      const lastEventIds: Array<string> = []
      const server = yield* makePlainServer({
        "test/call": ({ response }) => {
          openStream(response)
          response.end(eventOf(note(1), "事件-é1"))
        },
        GET: (call) => {
          lastEventIds.push(Buffer.from(String(lastEventId(call)), "latin1").toString())
          openStream(call.response)
          call.response.end(tail)
        }
      })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const answer = yield* call(front.url, session, request(1, "test/call"))
      expect(yield* answer.end).toBe("ended")
      expect(answer.messages()).toMatchObject([note(1), note(2), { id: 1 }])
      expect(lastEventIds).toEqual(["事件-é1"])
    })
  )

  it.scopedLive("is polled at the interval of its `retry` field", () =>
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
      // Timers can fire one millisecond early.
      for (const wait of waits) expect(wait).toBeGreaterThan(298)
    })
  )
})

describe("a standalone stream", () => {
  it.scopedLive("is opened again if the upstream gives no event ids", () =>
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

  it.scopedLive("that the upstream has ended is opened again when the client resumes it", () =>
    Effect.gen(function* () {
      let hasGet = true
      let opened = 0
      const script: Script = {
        GET: ({ answer, response }) => {
          if (!hasGet) return answer(405, { allow: "POST" })
          openStream(response)
          opened++
          if (opened > 1) return response.write(eventOf(note(opened), `e${opened}`))
          hasGet = false
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
      hasGet = true
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

describe("the official demo server, which repeats events of other streams", () => {
  it.scopedLive("has each event delivered once", () =>
    Effect.gen(function* () {
      const everything = yield* startEverything()
      const faults = yield* makeFaults(everything)
      const front = yield* startFront(faults)
      const { session } = yield* initialize(front.url)
      yield* post(front.url, initialized, session)
      const begin = (id: number) =>
        call(
          front.url,
          session,
          request(id, "tools/call", {
            name: "trigger-long-running-operation",
            // Long enough that both operations are running when the connections are cut, also on a busy machine.
            arguments: { duration: 4, steps: 4 },
            _meta: { progressToken: id }
          })
        )
      const answers = yield* Effect.all([begin(1), begin(2)], { concurrency: "unbounded" })
      for (const answer of answers) yield* answer.until(() => answer.messages().length > 0)
      yield* faults.swallow
      yield* faults.until(() => [1, 2].every((id) => faults.swallowed().includes(`"id":${id}}`)))
      yield* faults.cut
      for (const answer of answers) expect(yield* answer.end).toBe("ended")
      const [one, two] = answers.map((answer) => answer.messages())
      expect(one?.at(-1)).toMatchObject({ id: 1, result: {} })
      expect(two?.at(-1)).toMatchObject({ id: 2, result: {} })
      const progress = answers.flatMap((answer) => answer.messages().slice(0, -1))
      // Either stream can deliver an event that the other one missed.
      for (const progressToken of [1, 2]) {
        for (const step of [1, 2, 3, 4]) {
          const params = { progress: step, total: 4, progressToken }
          const expected = { jsonrpc: "2.0", method: "notifications/progress", params }
          expect(progress).toContainEqual(expected)
        }
      }
      expect(progress).toHaveLength(8)
    })
  )
})

const events = 5_000
const padding = "x".repeat(4_000)

/** The stream has 20 MB, which takes long on a busy machine. */
const TIMEOUT = 60_000

describe("a client that does not read", () => {
  it.scopedLive(
    "gets all of a long stream later, and the proxy buffers little of it",
    () =>
      Effect.gen(function* () {
        const responses: Array<ObservedResponse> = []
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
        if (response === undefined) throw new Error("no request")
        let written = 1
        const write = () => {
          while (written < events) {
            if (!response.write(eventOf({ ...note(written++), padding })))
              return response.once("drain", write)
          }
          return response.end(eventOf(toolResult(1, "done")))
        }
        write()
        // Wait until the proxy reads no more from the server.
        const during = yield* eventually(
          Effect.gen(function* () {
            const before = written
            const used = yield* usage(proxy)
            return { ...used, written, isStill: before === written }
          }),
          ({ isStill }) => isStill,
          TIMEOUT
        )
        expect(during.written).toBeLessThan(events)
        expect(during.heap - before.heap).toBeLessThan(6_000_000)
        yield* faults.flow
        expect(yield* answer.endWithin(TIMEOUT)).toBe("ended")
        expect(answer.messages()).toMatchObject([
          ...Array.from({ length: events }, (_, n) => note(n)),
          { id: 1 }
        ])
        expect(new Set(answer.events.map(({ id }) => id)).size).toBe(events + 2)
      }),
    2 * TIMEOUT
  )
})
