import * as Effect from "effect/Effect"
import { Agent, request } from "undici"
import { DemoFailure, messageOf } from "./failure.js"

const ping = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "ping" })

/** Asks the upstream itself, past the proxy, how many of these sessions it still knows. */
export const knownSessions = (url: string, ids: ReadonlyArray<string>): Effect.Effect<number, DemoFailure> =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Agent({ connections: 4 })),
    (dispatcher) =>
      Effect.tryPromise({
        try: async () => {
          const known = await Promise.all(
            ids.map(async (id) => {
              const { body, statusCode } = await request(url, {
                dispatcher,
                method: "POST",
                headers: {
                  "content-type": "application/json",
                  accept: "application/json, text/event-stream",
                  "mcp-session-id": id
                },
                body: ping
              })
              await body.dump()
              // Its answer to an id that it does not know, where others say 404.
              return statusCode !== 400
            })
          )
          return known.filter((isKnown) => isKnown).length
        },
        catch: (cause) =>
          new DemoFailure({
            message: `the demo server could not be asked for its sessions: ${messageOf(cause)}`
          })
      }),
    (dispatcher) => Effect.promise(() => dispatcher.destroy())
  )
