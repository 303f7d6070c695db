import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { createServer } from "node:http"
import { Socket } from "node:net"
import { Connections } from "../../src/HttpFront/Connections.js"
import { connect } from "../fixtures/RawSocket.js"

describe("Connections", () => {
  it("connections over the limit are surplus until others close", () => {
    const server = createServer()
    const connections = new Connections(2)
    connections.watch(server)
    const connect = () => {
      const socket = new Socket()
      server.emit("connection", socket)
      return socket
    }
    const [first, second, third] = [connect(), connect(), connect()]
    expect([first, second, third].map((socket) => connections.isSurplus(socket))).toEqual([
      false,
      false,
      true
    ])
    expect(connections.size).toBe(3)
    first.emit("close")
    third.emit("close")
    expect(connections.size).toBe(1)
    expect(connections.isSurplus(connect())).toBe(false)
    expect(connections.isSurplus(connect())).toBe(true)
  })

  it("the server closes connections far over the limit itself", () => {
    const server = createServer()
    new Connections(100).watch(server)
    expect(server.maxConnections).toBeGreaterThan(100)
    expect(server.maxConnections).toBeLessThan(200)
  })

  it.scopedLive("closes connections without data, not those with a started request", () =>
    Effect.gen(function* () {
      const server = createServer()
      const connections = new Connections(10)
      connections.watch(server)
      const accepted: Array<Socket> = []
      server.on("connection", (socket) => accepted.push(socket))
      const port = yield* Effect.acquireRelease(
        Effect.async<number>((resume) => {
          server.listen(0, "127.0.0.1", () => {
            const address = server.address()
            resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0))
          })
        }),
        () => Effect.sync(() => server.close().closeAllConnections())
      )
      const [unused, begun] = yield* Effect.all([connect(port), connect(port)])
      yield* begun.write("GET /health HTTP/1.1\r\n")
      const until = (holds: () => boolean) =>
        Effect.repeat(Effect.delay(Effect.sync(holds), 2), { until: (has) => has })
      yield* until(() => accepted.length === 2 && accepted.some(({ bytesRead }) => bytesRead > 0))
      connections.closeUnused()
      yield* unused.closed()
      yield* until(() => connections.size === 1)
      expect(begun.isClosed()).toBe(false)
    })
  )
})
