/** Counts and limits the connections of a server. */
import type { Server } from "node:http"
import type { Socket } from "node:net"

/** The number of connections over the limit that get an error response. More are closed without one. */
const SURPLUS = 64

export class Connections {
  private readonly open = new Set<Socket>()
  private readonly surplus = new WeakSet<Socket>()

  constructor(readonly limit: number) {}

  get size(): number {
    return this.open.size
  }

  watch(server: Server): void {
    server.maxConnections = this.limit + SURPLUS
    server.on("connection", (socket: Socket) => {
      this.open.add(socket)
      if (this.open.size > this.limit) this.surplus.add(socket)
      socket.once("close", () => this.open.delete(socket))
    })
  }

  /** Closes the connections on which no data has arrived. Node does not count these as idle. */
  closeUnused(): void {
    for (const socket of this.open) if (socket.bytesRead === 0) socket.destroy()
  }

  /** True if the connection is over the limit and its request must be rejected. */
  isSurplus(socket: Socket): boolean {
    return this.surplus.has(socket)
  }
}
