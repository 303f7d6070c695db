/** What there is at present, and each bound beside it, read when the metrics are asked for. */
import { Gauge, type Registry } from "prom-client"
import type { HttpFront } from "../HttpFront.js"
import type { Session } from "../Session.js"
import type { Sessions } from "../Sessions.js"

/** Adds the gauges of a running proxy. */
export const register = (
  registry: Registry,
  { health }: HttpFront["Type"],
  sessions: Sessions["Type"]
): void => {
  const gauge = (name: string, help: string, read: () => number | undefined): void => {
    registry.registerMetric(
      new Gauge({
        name: `shadowcat_${name}`,
        help,
        registers: [],
        collect() {
          // What has no bound has no gauge for it.
          const value = read()
          if (value === undefined) this.remove()
          else this.set(value)
        }
      })
    )
  }
  const bounded = (
    name: string,
    help: string,
    read: () => number,
    limit: (limits: ReturnType<typeof health>["limits"]) => number | undefined
  ): void => {
    gauge(name, help, read)
    gauge(`${name}_limit`, `The bound of shadowcat_${name}`, () => limit(health().limits))
  }

  bounded(
    "sessions",
    "Live sessions, with those being opened",
    () => health().sessions,
    (limits) => limits.maxSessions
  )
  bounded(
    "client_sessions_max",
    "Live sessions of the client address that has most",
    () => most(sessions.list()),
    (limits) => limits.maxPerClient
  )
  bounded(
    "session_exchanges_max",
    "Exchanges in flight of the session that has most",
    () => Math.max(0, ...sessions.list().map(({ load }) => load.exchanges)),
    (limits) => limits.maxExchanges
  )
  bounded(
    "stateless_exchanges",
    "Exchanges in flight that belong to no session",
    () => health().stateless,
    (limits) => limits.maxStateless
  )
  bounded(
    "connections",
    "Open connections of clients",
    () => health().connections,
    (limits) => limits.maxConnections
  )
  bounded(
    "buffered_bytes",
    "Bytes of request bodies that are held",
    () => health().bufferedBytes,
    (limits) => limits.maxBuffered
  )
  gauge("body_bytes_limit", "The bound of one request's body", () => health().limits.maxBody)
  gauge("streams", "Streams that clients hold open", () => sessions.size().streams)
  gauge("uptime_seconds", "How long the proxy has been running", () => health().uptimeSeconds)
}

const most = (sessions: ReadonlyArray<Session>): number => {
  const counts = new Map<string, number>()
  for (const { client } of sessions) counts.set(client, (counts.get(client) ?? 0) + 1)
  return Math.max(0, ...counts.values())
}
