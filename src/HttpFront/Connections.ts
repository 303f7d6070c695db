/** A server's connections, and their bound. */
import type { Server } from "node:http"
import type { Socket } from "node:net"

/** How many connections past the bound are told about it; more are closed without a word. */
const SURPLUS = 64

export class Connections {
  private readonly open = new Set<Socket>()
  private readonly surplus = new WeakSet<Socket>()

  constructor(readonly bound: number) {}

  get size(): number {
    return this.open.size
  }

  watch(server: Server): void {
    server.maxConnections = this.bound + SURPLUS
    server.on("connection", (socket: Socket) => {
      this.open.add(socket)
      if (this.open.size > this.bound) this.surplus.add(socket)
      socket.once("close", () => this.open.delete(socket))
    })
  }

  /**
   * Closes the connections on which nothing has arrived yet, such as clients hold in reserve: Node does not count
   * them among the idle ones.
   */
  closeUnused(): void {
    for (const socket of this.open) if (socket.bytesRead === 0) socket.destroy()
  }

  /** Whether this connection is one too many: its request is to be refused. */
  isSurplus(socket: Socket): boolean {
    return this.surplus.has(socket)
  }
}
