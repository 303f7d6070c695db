import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { subscribe, unsubscribe } from "node:diagnostics_channel"
import { Socket } from "node:net"

/** The TCP connections that this process has made and not closed since the counting began. */
export interface Sockets {
  readonly open: () => number
  readonly peak: () => number
}

const channel = "net.client.socket"

/** Counts every connection where Node makes it, those of fetch included, idle ones too. */
export const countSockets: Effect.Effect<Sockets, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => {
      let open = 0
      let peak = 0
      const count = (message: unknown) => {
        if (typeof message !== "object" || message === null) return
        const socket: unknown = Reflect.get(message, "socket")
        if (!(socket instanceof Socket)) return
        peak = Math.max(peak, ++open)
        socket.once("close", () => open--)
      }
      subscribe(channel, count)
      return { count, sockets: { open: () => open, peak: () => peak } }
    }),
    ({ count }) => Effect.sync(() => unsubscribe(channel, count))
  ),
  ({ sockets }) => sockets
)
