import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { request } from "undici"
import { DemoFailure, messageOf } from "./failure.js"

const Health = Schema.Struct({ sessions: Schema.Number })

/** How many sessions the proxy says that it has. */
export const liveSessions = (proxyUrl: string): Effect.Effect<number, DemoFailure> =>
  Effect.tryPromise({
    try: async (signal) => {
      const { body } = await request(new URL("/health", proxyUrl), { signal, reset: true })
      return Schema.decodeUnknownSync(Health)(await body.json()).sessions
    },
    catch: (cause) => new DemoFailure({ message: `the proxy does not tell its health: ${messageOf(cause)}` })
  })
