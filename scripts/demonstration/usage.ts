/** What the demo's own process and the proxy use of the machine. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { subscribe, unsubscribe } from "node:diagnostics_channel"
import { readFileSync } from "node:fs"
import { Socket } from "node:net"

/** The TCP connections that this process has opened since the counting began. */
export interface SocketCounts {
  open: number
  peak: number
}

const channel = "net.client.socket"

/** Counts connections until the scope closes. Node reports each as it opens it, those of `fetch` too. */
export const countSockets: Effect.Effect<SocketCounts, never, Scope.Scope> = Effect.gen(function* () {
  const counts = { open: 0, peak: 0 }
  const count = (message: unknown) => {
    if (typeof message !== "object" || message === null) return
    const socket: unknown = Reflect.get(message, "socket")
    if (!(socket instanceof Socket)) return
    counts.peak = Math.max(counts.peak, ++counts.open)
    socket.once("close", () => counts.open--)
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => subscribe(channel, count)),
    () => Effect.sync(() => unsubscribe(channel, count))
  )
  return counts
})

/** The peak resident set of a process, in MB; `undefined` where the system has no /proc. */
export const peakMemory = (pid: number): Effect.Effect<number | undefined> =>
  Effect.try(() => /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]).pipe(
    Effect.map((kilobytes) => (kilobytes === undefined ? undefined : Number(kilobytes) / 1024)),
    Effect.orElseSucceed(() => undefined)
  )
