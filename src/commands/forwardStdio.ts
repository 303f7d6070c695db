/** `shadowcat forward stdio`: serves the client that has started it, on standard input and output. */
import * as Command from "@effect/cli/Command"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as ForwardProxy from "../ForwardProxy.js"
import { StdioFront } from "../StdioFront.js"
import { UpstreamPool } from "../UpstreamPool.js"
import { logOptions, withLogging } from "./logging.js"
import { withDefault } from "./options.js"
import { recoveryOptions, recovers, upstreamOf, upstreamOptions } from "./upstream.js"
import * as values from "./parsers.js"

const options = {
  upstream: upstreamOptions,
  recovery: recoveryOptions,
  maxExchanges: withDefault("max-exchanges", "256", {
    description: "How many requests may be in flight",
    value: "count",
    read: values.count
  }),
  maxBody: withDefault("max-body", "4MiB", {
    description: "How large a message of the client may be",
    value: "size",
    read: values.size
  }),
  shutdownTimeout: withDefault("shutdown-timeout", "10s", {
    description: "How long the end waits for requests in flight when the client has closed its side",
    value: "duration",
    read: values.duration
  }),
  ...logOptions
}

class SessionLost extends Data.TaggedError("SessionLost")<{ readonly upstream: string }> {
  override get message() {
    return `The upstream ${this.upstream} has ended the session; start again (--log-level debug tells more)`
  }
}

/** Serves until a signal comes, the client has closed its side, or its session has ended. */
const serve = Effect.gen(function* () {
  const { ended } = yield* StdioFront
  const { name } = yield* UpstreamPool
  yield* Effect.logInfo(`serving one client on standard input and output, upstream ${name}`)
  const reason = yield* ended
  if (reason === "failed") return yield* new SessionLost({ upstream: name })
})

export const forwardStdio = Command.make("stdio", options, ({ recovery, upstream, ...options }) =>
  Effect.flatMap(upstreamOf(upstream), (upstream) => {
    const recover = recovers(upstream, recovery)
    const proxy = ForwardProxy.layerStdio({ ...options, ...upstream, recover })
    return serve.pipe(Effect.provide(proxy), withLogging(options))
  })
).pipe(Command.withDescription("Serve the client that has started this, on standard input and output"))
