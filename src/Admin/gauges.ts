/** What there is at present, and each bound beside it, read when the metrics are asked for. */
import { Gauge, type Registry } from "prom-client"
import type { HttpFront } from "../HttpFront.js"
import type { Session } from "../Sessions/Session.js"
import type { Sessions } from "../Sessions.js"

/** Adds the gauges of a running proxy. */
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
  const bounded = (name: string, help: string, limit: number | undefined, read: () => number): void => {
    gauge(name, help, read)
    if (limit !== undefined) gauge(`${name}_limit`, `The bound of shadowcat_${name}`, () => limit)
  }

  bounded("sessions", "Live sessions, with those being opened", limits.maxSessions, () => health().sessions)
  bounded(
    "client_sessions_max",
    "Live sessions of the client address that has most",
    limits.maxPerClient,
    () => most(sessions.list())
  )
  bounded(
    "session_exchanges_max",
    "Exchanges in flight of the session that has most",
    limits.maxExchanges,
    () => Math.max(0, ...sessions.list().map(({ load }) => load.exchanges))
  )
  bounded(
    "stateless_exchanges",
    "Exchanges in flight that belong to no session",
    limits.maxStateless,
    () => health().stateless
  )
  bounded("connections", "Open connections of clients", limits.maxConnections, () => health().connections)
  if (limits.maxChildren !== undefined) {
    bounded("children", "Child processes", limits.maxChildren, () => health().children ?? 0)
  }
  bounded(
    "buffered_bytes",
    "Bytes of request bodies that are held",
    limits.maxBuffered,
    () => health().bufferedBytes
  )
  gauge("events", "Events of streams that are kept", () => health().events)
  gauge(
    "session_events_limit",
    "The bound of the events that are kept of one session",
    () => limits.maxEvents
  )
  gauge("session_event_bytes_limit", "The bound of their bytes", () => limits.maxEventBytes)
  bounded(
    "event_bytes",
    "Bytes of events that are kept",
    limits.maxTotalEventBytes,
    () => health().eventBytes
  )
  gauge("body_bytes_limit", "The bound of one request's body", () => limits.maxBody)
  gauge("streams", "Streams that clients hold open", () => health().streams)
  gauge("uptime_seconds", "How long the proxy has been running", () => health().uptimeSeconds)
}

const most = (sessions: ReadonlyArray<Session>): number => {
  const counts = new Map<string, number>()
  for (const { client } of sessions) counts.set(client, (counts.get(client) ?? 0) + 1)
  return Math.max(0, ...counts.values())
}
