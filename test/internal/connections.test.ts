import { describe, expect, it } from "@effect/vitest"
import { createServer } from "node:http"
import { Socket } from "node:net"
import { Connections } from "../../src/internal/connections.js"

describe("connections", () => {
  it("those past the bound are surplus, until others have closed", () => {
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

  it("the server itself refuses what is far past the bound", () => {
    const server = createServer()
    new Connections(100).watch(server)
    expect(server.maxConnections).toBeGreaterThan(100)
    expect(server.maxConnections).toBeLessThan(200)
  })
})
