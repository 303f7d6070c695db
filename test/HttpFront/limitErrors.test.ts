import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { silent, Telemetry } from "../../src/Telemetry.js"
import { type Front, type FrontOptions, startFront } from "../fixtures/Front.js"
import { makePlainServer, type PlainServer } from "../fixtures/PlainServer.js"
import { del, get, initialize, initializeRequest, post, request } from "../fixtures/RawClient.js"
import { connect, requestBytes } from "../fixtures/RawSocket.js"

const pad = { pad: "x".repeat(1_000) }
const list = request(7, "tools/list")
const large = request(8, "tools/list", pad)
const modern = { "mcp-protocol-version": "2026-07-28" }

/** A call that stays in flight until the test answers it. */
const hanging = (front: Front, server: PlainServer, headers: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const before = server.held.length
    const fiber = yield* Effect.fork(post(front.url, request(1, "hang", pad), headers))
    yield* server.until(() => server.held.length > before)
    return Effect.sync(() => server.held[before]?.result()).pipe(Effect.zipRight(Fiber.join(fiber)))
  })

/** The statuses of a second session during and after the first. */
const secondSession = (url: string) =>
  Effect.gen(function* () {
    const { session } = yield* initialize(url)
    yield* post(url, list, session)
    const { status } = yield* post(url, initializeRequest())
    yield* del(url, session)
    return [status, (yield* post(url, initializeRequest())).status]
  })

interface LimitCase {
  readonly option: string
  readonly options: FrontOptions
  /** The label of the metric. */
  readonly reason: string
  /** The statuses at the limit and below it. */
  readonly statuses: readonly [number, number]
  readonly meet: (
    front: Front,
    server: PlainServer
  ) => Effect.Effect<ReadonlyArray<number>, unknown, Scope.Scope>
}

const limitCases: ReadonlyArray<LimitCase> = [
  {
    option: "--max-sessions",
    options: { sessions: { maxSessions: 1 } },
    reason: "max-sessions",
    statuses: [503, 200],
    meet: ({ url }) => secondSession(url)
  },
  {
    option: "--max-per-client",
    options: { sessions: { maxPerClient: 1 } },
    reason: "max-per-client",
    statuses: [429, 200],
    meet: ({ url }) => secondSession(url)
  },
  {
    option: "one session at a time",
    options: { sessions: { multiSession: false } },
    reason: "multi-session",
    statuses: [503, 200],
    meet: ({ url }) => secondSession(url)
  },
  {
    option: "--max-exchanges",
    options: { sessions: { maxExchanges: 1 } },
    reason: "max-exchanges",
    statuses: [429, 200],
    meet: (front, server) =>
      Effect.gen(function* () {
        const { session } = yield* initialize(front.url)
        const answered = yield* hanging(front, server, session)
        const { status } = yield* post(front.url, list, session)
        yield* answered
        return [status, (yield* post(front.url, list, session)).status]
      })
  },
  {
    option: "--max-stateless",
    options: { sessions: { maxStateless: 1 } },
    reason: "max-stateless",
    statuses: [503, 200],
    meet: (front, server) =>
      Effect.gen(function* () {
        const answered = yield* hanging(front, server, modern)
        const { status } = yield* post(front.url, list, modern)
        yield* answered
        return [status, (yield* post(front.url, list, modern)).status]
      })
  },
  {
    option: "--max-connections",
    options: { front: { maxConnections: 1 } },
    reason: "max-connections",
    statuses: [503, 200],
    meet: (front) =>
      Effect.gen(function* () {
        const socket = yield* connect(front.port)
        yield* socket.write(requestBytes("GET", {}, undefined, "/health"))
        yield* socket.answer(0)
        const health = get(new URL("/health", front.url).href)
        const { status } = yield* health
        yield* socket.destroy
        // The proxy settles the call shortly after the client has the response.
        return [status, (yield* Effect.repeat(health, { until: ({ status }) => status === 200 })).status]
      })
  },
  {
    option: "--max-body",
    options: { front: { maxBody: 1_000 } },
    reason: "TooLarge",
    statuses: [413, 200],
    meet: ({ url }) =>
      Effect.gen(function* () {
        const { session } = yield* initialize(url)
        return [(yield* post(url, large, session)).status, (yield* post(url, list, session)).status]
      })
  },
  {
    option: "--max-buffered",
    options: { front: { maxBuffered: 2_000, maxBody: 2_000 } },
    reason: "max-buffered",
    statuses: [503, 200],
    meet: (front, server) =>
      Effect.gen(function* () {
        const { session } = yield* initialize(front.url)
        const answered = yield* hanging(front, server, session)
        const { status } = yield* post(front.url, large, session)
        yield* answered
        yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes === 0)
        return [status, (yield* post(front.url, large, session)).status]
      })
  },
  {
    option: "--request-timeout",
    options: { upstream: { requestTimeout: "1 second" } },
    reason: "ResponseTimeout",
    statuses: [504, 200],
    meet: ({ url }) =>
      Effect.gen(function* () {
        const { session } = yield* initialize(url)
        const { status } = yield* post(url, request(1, "hang"), session)
        return [status, (yield* post(url, list, session)).status]
      })
  },
  {
    option: "--stall-timeout",
    options: { front: { stallTimeout: "1 second" } },
    reason: "BodyTimeout",
    statuses: [408, 200],
    meet: (front) =>
      Effect.gen(function* () {
        const socket = yield* connect(front.port)
        yield* socket.write(`${requestBytes("POST", { "content-length": "9" })}{`)
        const { status } = yield* socket.answer(0)
        return [status, (yield* post(front.url, initializeRequest())).status]
      })
  }
]

describe("every limit returns an error, counts it, and accepts requests again below the limit", () => {
  for (const { meet, option, options, reason, statuses } of limitCases) {
    it.scopedLive(option, () =>
      Effect.gen(function* () {
        const reasons: Array<string> = []
        const server = yield* makePlainServer()
        const front = yield* startFront(server, options).pipe(
          Effect.provideService(Telemetry, { ...silent, errorReturned: (reason) => reasons.push(reason) })
        )
        expect(yield* meet(front, server)).toEqual(statuses)
        expect(new Set(reasons)).toEqual(new Set([reason]))
      })
    )
  }

  it.scopedLive("--session-timeout closes idle sessions", () =>
    Effect.gen(function* () {
      const closed: Array<string> = []
      const server = yield* makePlainServer()
      const front = yield* startFront(server, {
        sessions: { sessionTimeout: "50 millis", cleanupInterval: "50 millis" }
      }).pipe(Effect.provideService(Telemetry, { ...silent, sessionClosed: (reason) => closed.push(reason) }))
      const { session } = yield* initialize(front.url)
      yield* front.untilHealth(({ sessions }) => sessions === 0)
      expect(closed).toEqual(["idle"])
      expect((yield* post(front.url, list, session)).status).toBe(404)
      expect((yield* initialize(front.url)).answer.status).toBe(200)
    })
  )
})
