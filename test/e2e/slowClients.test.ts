import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Agent } from "node:http"
import { eventually } from "../fixtures/eventually.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { type Health, type Proxy, startProxy } from "../fixtures/Proxy.js"
import { initialize, request, type RequestFailed, send } from "../fixtures/RawClient.js"
import { connect, type RawSocket, requestBytes } from "../fixtures/RawSocket.js"

const slowClients = 500
const rounds = 7
const callsPerRound = 200

/** A request that is sent at one byte per second. */
interface Dribble {
  readonly socket: RawSocket
  /** Sends the rest of the request. */
  readonly finish: Effect.Effect<void>
}

/** Sends the beginning of a request at once, and the rest at one byte per second until the scope closes. */
const dribble = (
  port: number,
  bytes: string,
  beginning: number
): Effect.Effect<Dribble, never, Scope.Scope> =>
  Effect.gen(function* () {
    const socket = yield* connect(port)
    let sent = beginning
    const write = (end: number) =>
      Effect.suspend(() => {
        const start = sent
        sent = end
        return socket.write(bytes.slice(start, end))
      })
    yield* socket.write(bytes.slice(0, beginning))
    yield* Effect.suspend(() => write(sent + 1)).pipe(
      Effect.repeat(Schedule.spaced("1 second")),
      Effect.forkScoped
    )
    return { socket, finish: Effect.suspend(() => write(bytes.length)) }
  })

/** Opens a session and returns a call in it, which returns its duration in milliseconds. */
const makeCaller = ({
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

it.scopedLive("five hundred clients that send a byte per second do not slow down another client", () =>
  Effect.gen(function* () {
    const server = yield* makePlainServer()
    // Two equal proxies, called alternately, so that other load of the machine slows both of them.
    const idle = yield* startProxy(server)
    const loaded = yield* startProxy(server)
    const callIdle = yield* makeCaller(idle)
    const callLoaded = yield* makeCaller(loaded)
    const { session } = yield* initialize(loaded.url)
    const bytes = requestBytes("POST", session, request(2, "tools/call", { text: "x".repeat(100) }))
    const head = bytes.indexOf("\r\n\r\n") + 4

    // The call opens the connection of the caller again, which the proxy closes after a pause.
    const callAndCheck = Effect.zipRight(callLoaded, loaded.health)
    const untilHealth = (holds: (health: Health) => boolean) => eventually(callAndCheck, holds, 40_000)
    const before = yield* callAndCheck
    yield* Effect.scoped(
      Effect.gen(function* () {
        const dribbles = yield* Effect.forEach(
          Array.from({ length: slowClients }, (_, index) => index),
          (index) => dribble(loaded.port, bytes, index % 2 === 0 ? 20 : head + 1),
          { concurrency: 20 }
        )
        const connections = before.connections + slowClients
        yield* untilHealth((health) => health.connections === connections && health.bufferedBytes > 0)
        const { bufferedBytes } = yield* loaded.health

        const ratios: Array<number> = []
        for (let round = 0; round < rounds; round++) {
          const without: Array<number> = []
          const withThem: Array<number> = []
          for (let call = 0; call < callsPerRound; call++) {
            without.push(yield* callIdle)
            withThem.push(yield* callLoaded)
          }
          ratios.push(median(withThem) / median(without))
        }
        expect(median(ratios), `the ratios of the rounds were ${ratios.join(", ")}`).toBeLessThan(1.5)

        // All slow clients were connected until the end, and continued to send.
        expect(dribbles.filter(({ socket }) => socket.isClosed() || socket.received() > 0)).toHaveLength(0)
        const during = yield* untilHealth((health) => health.bufferedBytes > bufferedBytes)
        expect(during).toMatchObject({ connections, status: "ok" })
        const served = server.count("tools/call")
        for (const { finish, socket } of dribbles.slice(0, 2)) {
          yield* finish
          expect((yield* socket.answer(0)).status).toBe(200)
        }
        expect(server.count("tools/call")).toBe(served + 2)
      })
    )
    expect(yield* untilHealth((health) => health.connections === before.connections)).toMatchObject({
      sessions: before.sessions,
      bufferedBytes: 0
    })
    expect(yield* callLoaded).toBeGreaterThan(0)
  })
)
