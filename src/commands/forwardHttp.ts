/** `shadowcat forward http`: serves MCP over Streamable HTTP and relays it to one upstream. */
import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as ForwardProxy from "../ForwardProxy.js"
import { HttpFront } from "../HttpFront.js"
import { Sessions } from "../Sessions.js"
import { UpstreamPool } from "../UpstreamPool.js"
import { flags } from "./flags.js"
import { withLogging } from "./logging.js"
import { ForwardOptions, forwardTable } from "./options.js"
import { storesOf } from "./store.js"
import { targetOf } from "./upstream.js"

/** Adds the admin API. It is loaded on demand, because it takes longer to load than all other modules. */
const withAdmin = <E>(port: number, proxy: ReturnType<typeof ForwardProxy.layerHttpOver<E>>) =>
  Layer.unwrapEffect(
    Effect.promise(async () => {
      const [Admin, Prometheus] = await Promise.all([
        import("../Admin.js"),
        import("../Telemetry/Prometheus.js")
      ])
      return Admin.layer({ port }).pipe(Layer.provideMerge(proxy), Layer.provide(Prometheus.layer))
    })
  )

/** Serves until a signal arrives or, in single-session mode, until the session ends. */
const serve = Effect.gen(function* () {
  const { url } = yield* HttpFront
  const { upstreams } = yield* UpstreamPool
  const [{ name }] = upstreams
  const sessions = yield* Sessions
  const mode = sessions.options.multiSession ? "many sessions" : "one session"
  // This line is logged at every level, because a parent process reads the port from it.
  yield* Logger.withMinimumLogLevel(
    Effect.logInfo(`listening on ${url.href} for ${mode}, upstream ${name}`),
    LogLevel.All
  )
  yield* sessions.over
})

export const forwardHttp = Command.make(
  "http",
  { options: flags("forward http", forwardTable, ForwardOptions) },
  ({ options }) =>
    Effect.flatMap(targetOf(options), ({ recover, upstream }) => {
      const { recoverStdio: _, ...sessions } = options.sessions
      const proxy = ForwardProxy.layerHttpOver(storesOf(options), {
        upstream,
        front: options.front,
        sessions: { ...sessions, recover }
      })
      const { port } = options.admin
      return serve.pipe(
        Effect.provide(port === undefined ? proxy : withAdmin(port, proxy)),
        withLogging(options)
      )
    })
).pipe(
  Command.withDescription("Serve MCP over Streamable HTTP, each client with an upstream session of its own")
)
