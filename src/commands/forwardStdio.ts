/** `shadowcat forward stdio`: serves the client that started it, on standard input and output. */
import * as Command from "@effect/cli/Command"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as ForwardProxy from "../ForwardProxy.js"
import { StdioFront } from "../StdioFront.js"
import { UpstreamPool } from "../UpstreamPool.js"
import { flags } from "./flags.js"
import { withLogging } from "./logging.js"
import { ForwardOptions, forwardTable } from "./options.js"
import { targetOf } from "./upstream.js"

class SessionLost extends Data.TaggedError("SessionLost")<{ readonly upstream: string }> {
  override get message() {
    return `The upstream ${this.upstream} has ended the session: start again (--log-level debug logs the reason)`
  }
}

/** Serves until a signal arrives, the client closes its side, or its session ends. */
const serve = Effect.gen(function* () {
  const { ended } = yield* StdioFront
  const { upstreams } = yield* UpstreamPool
  const [{ name }] = upstreams
  yield* Effect.logInfo(`serving one client on standard input and output, upstream ${name}`)
  const reason = yield* ended
  if (reason === "failed") return yield* new SessionLost({ upstream: name })
})

export const forwardStdio = Command.make(
  "stdio",
  { options: flags("forward stdio", forwardTable, ForwardOptions) },
  ({ options }) =>
    Effect.flatMap(targetOf(options), ({ recover, upstream }) => {
      const { maxBody, shutdownTimeout } = options.front
      const proxy = ForwardProxy.layerStdio({
        upstream,
        front: { maxBody, shutdownTimeout },
        sessions: { maxExchanges: options.sessions.maxExchanges, recover }
      })
      return serve.pipe(Effect.provide(proxy), withLogging(options))
    })
).pipe(Command.withDescription("Serve the client that started this process, on standard input and output"))
