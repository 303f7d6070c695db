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
import { logOptions, withLogging } from "./logging.js"
import { storeOptions, storesOf } from "./store.js"
import { flag, optional, repeated, withDefault } from "./options.js"
import { recoveryOptions, recovers, upstreamOf, upstreamOptions } from "./upstream.js"
import * as values from "./parsers.js"

const options = {
  upstream: upstreamOptions,
  recovery: recoveryOptions,
  store: storeOptions,
  multiSession: flag(
    "multi-session",
    "Serve many sessions at once. Without it there is one at a time, and the process ends with it"
  ),
  host: withDefault("host", "127.0.0.1", {
    description: "The address to listen on",
    value: "address",
    read: values.address
  }),
  port: withDefault("port", "8080", {
    description: "The port to listen on, 0 for any free one",
    value: "port",
    read: values.port
  }),
  path: withDefault("path", "/mcp", {
    description: "The path of the MCP endpoint",
    value: "path",
    read: values.path
  }),
  allowHosts: repeated("allow-host", ",", {
    description: "A further host that clients may use, * for all; repeatable",
    value: "host",
    read: values.host
  }),
  allowOrigins: repeated("allow-origin", ",", {
    description: "A further origin that web pages may have, * for all; repeatable",
    value: "origin",
    read: values.origin
  }),
  maxSessions: withDefault("max-sessions", "1000", {
    description: "How many sessions there may be at once",
    value: "count",
    read: values.count
  }),
  maxPerClient: optional("max-per-client", {
    description: "How many of them one client address may have; without it, all of them",
    value: "count",
    read: values.count
  }),
  maxExchanges: withDefault("max-exchanges", "256", {
    description: "How many requests of one session may be in flight",
    value: "count",
    read: values.count
  }),
  maxStateless: withDefault("max-stateless", "1000", {
    description: "How many requests without a session (MCP 2026-07-28) may be in flight",
    value: "count",
    read: values.count
  }),
  maxChildren: withDefault("max-children", "100", {
    description: "How many child processes there may be, where the upstream is a command",
    value: "count",
    read: values.count
  }),
  maxConnections: withDefault("max-connections", "10000", {
    description: "How many connections clients may have open",
    value: "count",
    read: values.count
  }),
  maxBody: withDefault("max-body", "4MiB", {
    description: "How large the body of a request may be",
    value: "size",
    read: values.size
  }),
  maxBuffered: withDefault("max-buffered", "256MiB", {
    description: "How much of all bodies may be held at once",
    value: "size",
    read: values.size
  }),
  maxEvents: withDefault("max-events", "1000", {
    description: "How many events of streams are kept for a session to come back to, 0 for none",
    value: "count",
    read: values.integer(0, 1_000_000)
  }),
  maxEventBytes: withDefault("max-event-bytes", "1MiB", {
    description: "How much of them is kept for one session",
    value: "size",
    read: values.size
  }),
  maxTotalEventBytes: withDefault("max-total-event-bytes", "256MiB", {
    description: "How much of them is kept for all sessions",
    value: "size",
    read: values.size
  }),
  retry: withDefault("retry", "3s", {
    description: "How long clients wait before they come back to a stream that has broken",
    value: "duration",
    read: values.duration
  }),
  keepAlive: withDefault("keep-alive", "15s", {
    description: "How long a stream may be silent before a comment is sent",
    value: "duration",
    read: values.positiveDuration
  }),
  sessionTimeout: withDefault("session-timeout", "30m", {
    description: "How long a session may be idle before it is closed",
    value: "duration",
    read: values.positiveDuration
  }),
  cleanupInterval: withDefault("cleanup-interval", "60s", {
    description: "How often idle sessions are looked for",
    value: "duration",
    read: values.positiveDuration
  }),
  stallTimeout: withDefault("stall-timeout", "60s", {
    description: "How long a client may stop sending a request or reading an answer",
    value: "duration",
    read: values.positiveDuration
  }),
  shutdownTimeout: withDefault("shutdown-timeout", "10s", {
    description: "How long a shutdown waits for requests in flight",
    value: "duration",
    read: values.duration
  }),
  adminPort: optional("admin-port", {
    description: "The port, on 127.0.0.1, of the admin API: metrics and sessions. Without it there is none",
    value: "port",
    read: values.port
  }),
  ...logOptions
}

/** The admin API takes longer to load than everything else. */
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

/** Serves until a signal comes or, in single-session mode, until the session has ended. */
const serve = Effect.gen(function* () {
  const { url } = yield* HttpFront
  const { name } = yield* UpstreamPool
  const sessions = yield* Sessions
  const mode = sessions.options.multiSession ? "many sessions" : "one session"
  // Whoever started this has to learn the port, however little else is to be logged.
  yield* Logger.withMinimumLogLevel(
    Effect.logInfo(`listening on ${url.href} for ${mode}, upstream ${name}`),
    LogLevel.All
  )
  yield* sessions.over
})

export const forwardHttp = Command.make(
  "http",
  options,
  ({ adminPort, recovery, store, upstream, ...options }) =>
    Effect.flatMap(upstreamOf(upstream), (upstream) => {
      const recover = recovers(upstream, recovery)
      const proxy = ForwardProxy.layerHttpOver(storesOf(store, options), { ...options, ...upstream, recover })
      return serve.pipe(
        Effect.provide(adminPort === undefined ? proxy : withAdmin(adminPort, proxy)),
        withLogging(options)
      )
    })
).pipe(
  Command.withDescription("Serve MCP over Streamable HTTP, each client with an upstream session of its own")
)
