import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Agent } from "node:http"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { type Proxy, startProxy } from "../fixtures/Proxy.js"
import { initialize, request, type RequestFailed, send } from "../fixtures/RawClient.js"
import { connect, type RawSocket, requestBytes } from "../fixtures/RawSocket.js"

const slowClients = 500
const rounds = 7
const callsARound = 200

/** A request whose bytes go out one a second. */
interface Dribble {
  readonly socket: RawSocket
  /** Sends all that has not gone out yet. */
  readonly finish: Effect.Effect<void>
}

/** Sends so much of a request at once, and the rest a byte a second until the scope closes. */
const dribble = (port: number, bytes: string, atOnce: number): Effect.Effect<Dribble, never, Scope.Scope> =>
  Effect.gen(function* () {
    const socket = yield* connect(port)
    let sent = atOnce
    const write = (end: number) =>
      Effect.suspend(() => {
        const start = sent
        sent = end
        return socket.write(bytes.slice(start, end))
      })
    yield* socket.write(bytes.slice(0, atOnce))
    yield* Effect.suspend(() => write(sent + 1)).pipe(
      Effect.repeat(Schedule.spaced("1 second")),
      Effect.forkScoped
    )
    return { socket, finish: Effect.suspend(() => write(bytes.length)) }
  })

/** A client that makes one call after the other, and tells how long each takes, in milliseconds. */
const caller = ({
  url
}: Proxy): Effect.Effect<Effect.Effect<number, RequestFailed>, RequestFailed, Scope.Scope> =>
  Effect.gen(function* () {
    const agent = yield* Effect.acquireRelease(
      Effect.sync(() => new Agent({ keepAlive: true })),
      (agent) => Effect.sync(() => agent.destroy())
    )
    const { session } = yield* initialize(url)
    return Effect.gen(function* () {
      const began = performance.now()
      const answer = yield* send(url, { method: "POST", headers: session, body: request(1, "ping"), agent })
      expect(answer.status).toBe(200)
      return performance.now() - began
    })
  })

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

it.scopedLive("five hundred clients that send a byte a second do not slow another one", () =>
  Effect.gen(function* () {
    const server = yield* makePlainServer()
    // Two alike, asked in turns, so that whatever else slows the machine slows both.
    const quiet = yield* startProxy(server)
    const beset = yield* startProxy(server)
    const callQuiet = yield* caller(quiet)
    const callBeset = yield* caller(beset)
    const { session } = yield* initialize(beset.url)
    const bytes = requestBytes("POST", session, request(2, "tools/call", { text: "x".repeat(100) }))
    const head = bytes.indexOf("\r\n\r\n") + 4

    yield* callBeset
    const before = yield* beset.health
    yield* Effect.scoped(
      Effect.gen(function* () {
        const dribbles = yield* Effect.forEach(
          Array.from({ length: slowClients }, (_, index) => index),
          (index) => dribble(beset.port, bytes, index % 2 === 0 ? 20 : head + 1),
          { concurrency: 20 }
        )
        const connections = before.connections + slowClients
        yield* beset.untilHealth((health) => health.connections === connections && health.bufferedBytes > 0)
        const { bufferedBytes } = yield* beset.health

        const ratios: Array<number> = []
        for (let round = 0; round < rounds; round++) {
          const without: Array<number> = []
          const withThem: Array<number> = []
          for (let call = 0; call < callsARound; call++) {
            without.push(yield* callQuiet)
            withThem.push(yield* callBeset)
          }
          ratios.push(median(withThem) / median(without))
        }
        expect(median(ratios), `the ratios of the rounds were ${ratios.join(", ")}`).toBeLessThan(1.5)

        // All of them were there until the end, and went on sending.
        expect(dribbles.filter(({ socket }) => socket.isClosed() || socket.received() > 0)).toHaveLength(0)
        const during = yield* beset.untilHealth((health) => health.bufferedBytes > bufferedBytes)
        expect(during).toMatchObject({ connections, status: "ok" })
        const served = server.count("tools/call")
        for (const { finish, socket } of dribbles.slice(0, 2)) {
          yield* finish
          expect((yield* socket.answer(0)).status).toBe(200)
        }
        expect(server.count("tools/call")).toBe(served + 2)
      })
    )
    expect(yield* beset.untilHealth((health) => health.connections === before.connections)).toMatchObject({
      sessions: before.sessions,
      bufferedBytes: 0
    })
    expect(yield* callBeset).toBeGreaterThan(0)
  })
)
