/** The options of client sessions. */
import * as Duration from "effect/Duration"
import { recoverByDefault } from "../../ForwardProxy.js"
import * as Sessions from "../../Sessions.js"
import * as parsers from "../parsers.js"
import { httpOnly, forwards, optional, toggle, withDefault } from "./rows.js"

export const sessions = {
  multiSession: toggle({
    name: "multi-session",
    group: "Sessions",
    default: false,
    description:
      "Serve any number of sessions; if not set, there is one session at a time and the process ends with it",
    commands: httpOnly
  }),
  sessionTimeout: withDefault({
    name: "session-timeout",
    group: "Sessions",
    schema: parsers.positiveDuration,
    default: Duration.decode(Sessions.defaults.sessionTimeout),
    placeholder: "duration",
    description:
      "Maximum idle time of a session, with no request in flight, no open stream and no message sent",
    commands: httpOnly
  }),
  cleanupInterval: withDefault({
    name: "cleanup-interval",
    group: "Sessions",
    schema: parsers.positiveDuration,
    default: Duration.decode(Sessions.defaults.cleanupInterval),
    placeholder: "duration",
    description: "Time between two searches for idle sessions",
    commands: httpOnly
  }),
  recover: toggle({
    name: "recover",
    group: "Sessions",
    default: recoverByDefault.url,
    description: "Open a new session at the upstream when the server has lost the old one",
    commands: forwards
  }),
  recoverStdio: toggle({
    name: "recover-stdio",
    group: "Sessions",
    default: recoverByDefault.command,
    description: "Start the command again when it has exited, and open a new session there",
    commands: forwards
  }),
  maxSessions: withDefault({
    name: "max-sessions",
    group: "Limits",
    schema: parsers.count,
    default: Sessions.defaults.maxSessions,
    placeholder: "count",
    description: "Maximum number of concurrent sessions",
    commands: httpOnly
  }),
  maxPerClient: optional({
    name: "max-per-client",
    group: "Limits",
    schema: parsers.count,
    placeholder: "count",
    description: "Maximum number of concurrent sessions of one client address; no separate limit if not set",
    commands: httpOnly
  }),
  maxExchanges: withDefault({
    name: "max-exchanges",
    group: "Limits",
    schema: parsers.count,
    default: Sessions.defaults.maxExchanges,
    placeholder: "count",
    description: "Maximum number of requests in flight in one session",
    commands: forwards
  }),
  maxStateless: withDefault({
    name: "max-stateless",
    group: "Limits",
    schema: parsers.count,
    default: Sessions.defaults.maxStateless,
    placeholder: "count",
    description: "Maximum number of requests in flight without a session (MCP 2026-07-28)",
    commands: httpOnly
  }),
  keepAlive: withDefault({
    name: "keep-alive",
    group: "Streams",
    schema: parsers.positiveDuration,
    default: Duration.decode(Sessions.defaults.keepAlive),
    placeholder: "duration",
    description: "Silence on a stream after which the proxy sends a comment",
    commands: httpOnly
  })
}
