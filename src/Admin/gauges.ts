/** Gauges of the proxy's current values and their limits. They are read when the metrics are requested. */
import { Gauge, type Registry } from "prom-client"
import type { HttpFront } from "../HttpFront.js"
import type { Session } from "../Sessions/Session.js"
import type { Sessions } from "../Sessions.js"

/** Adds the gauges of a running proxy to a registry. */
export const register = (
  registry: Registry,
  { health }: HttpFront["Type"],
  sessions: Sessions["Type"]
): void => {
  const { limits } = health()
  const gauge = (name: string, help: string, read: () => number): void => {
    registry.registerMetric(
      new Gauge({
        name: `shadowcat_${name}`,
        help,
        registers: [],
        collect() {
          this.set(read())
        }
      })
    )
  }
  const limited = (name: string, help: string, limit: number | undefined, read: () => number): void => {
    gauge(name, help, read)
    if (limit !== undefined) gauge(`${name}_limit`, `Limit of shadowcat_${name}`, () => limit)
  }

  limited("sessions", "Live and opening sessions", limits.maxSessions, () => health().sessions)
  limited(
    "client_sessions_max",
    "Live sessions of the client address that has the most",
    limits.maxPerClient,
    () => maxPerClient(sessions.list())
  )
  limited(
    "session_exchanges_max",
    "Exchanges in flight of the session that has the most",
    limits.maxExchanges,
    () => Math.max(0, ...sessions.list().map(({ load }) => load.exchanges))
  )
  limited(
    "stateless_exchanges",
    "Exchanges in flight without a session",
    limits.maxStateless,
    () => health().stateless
  )
  limited("connections", "Open client connections", limits.maxConnections, () => health().connections)
  if (limits.maxChildren !== undefined) {
    limited("children", "Child processes", limits.maxChildren, () => health().children ?? 0)
  }
  limited(
    "buffered_bytes",
    "Bytes of request bodies in memory",
    limits.maxBuffered,
    () => health().bufferedBytes
  )
  gauge("events", "Stored events of streams", () => health().events)
  gauge("session_events_limit", "Limit of the stored events of one session", () => limits.maxEvents)
  gauge(
    "session_event_bytes_limit",
    "Limit of the bytes of stored events of one session",
    () => limits.maxEventBytes
  )
  limited("event_bytes", "Bytes of stored events", limits.maxTotalEventBytes, () => health().eventBytes)
  gauge("body_bytes_limit", "Limit of the body of one request", () => limits.maxBody)
  gauge("streams", "Open client streams", () => health().streams)
  gauge("uptime_seconds", "Uptime of the proxy", () => health().uptimeSeconds)
}

const maxPerClient = (sessions: ReadonlyArray<Session>): number => {
  const counts = new Map<string, number>()
  for (const { client } of sessions) counts.set(client, (counts.get(client) ?? 0) + 1)
  return Math.max(0, ...counts.values())
}
