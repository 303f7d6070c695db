/** The bound on a server's connections. */
import type { Server } from "node:http"
import type { Socket } from "node:net"

/** How many connections past the bound are told about it; more are closed without a word. */
const SURPLUS = 64

export class Connections {
  private open = 0
  private readonly surplus = new WeakSet<Socket>()

  constructor(readonly bound: number) {}

  get size(): number {
    return this.open
  }

  watch(server: Server): void {
    server.maxConnections = this.bound + SURPLUS
    server.on("connection", (socket: Socket) => {
      this.open++
      if (this.open > this.bound) this.surplus.add(socket)
      socket.once("close", () => this.open--)
    })
  }

  /** Whether this connection is one too many: its request is to be refused. */
  isSurplus(socket: Socket): boolean {
    return this.surplus.has(socket)
  }
}
