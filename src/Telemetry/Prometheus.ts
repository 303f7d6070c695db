/** Prometheus metrics of the proxy's events. Names and units follow the Prometheus conventions. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Counter, Histogram, Registry } from "prom-client"
import { type TelemetryListener, Telemetry } from "../Telemetry.js"

export class Metrics extends Context.Tag("shadowcat/Metrics")<
  Metrics,
  {
    /** The registry of all metrics. Other metrics may be added to it. */
    readonly registry: Registry
  }
>() {}

/** The buckets of the duration of an exchange, in seconds: from a fast local call to a long-running one. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]

const listener = (registry: Registry): TelemetryListener => {
  const registers = [registry]
  const counter = <Label extends string = never>(
    name: string,
    help: string,
    ...labelNames: ReadonlyArray<Label>
  ) => new Counter<Label>({ name: `shadowcat_${name}`, help, labelNames: [...labelNames], registers })

  const sessionsOpened = counter("sessions_opened_total", "Sessions opened")
  const sessionsRestored = counter(
    "sessions_restored_total",
    "Sessions restored after a restart of the proxy"
  )
  const sessionsClosed = counter("sessions_closed_total", "Sessions closed, by reason", "reason")
  const errors = counter(
    "errors_total",
    "Requests answered with an error of the proxy, by limit or reason",
    "reason"
  )
  const exchanges = counter("exchanges_total", "Exchanges ended, by method and outcome", "method", "outcome")
  const duration = new Histogram({
    name: "shadowcat_exchange_duration_seconds",
    help: "Duration of exchanges, from the arrival of the request to the end of the response",
    labelNames: ["method"],
    buckets,
    registers
  })
  const bytesReceived = counter("received_bytes_total", "Bytes of request bodies from clients")
  const bytesSent = counter("sent_bytes_total", "Bytes of response bodies to clients")
  const eventsReplayed = counter("events_replayed_total", "Missed events that resuming clients got")
  const duplicatesDropped = counter(
    "duplicate_events_dropped_total",
    "Events dropped because the upstream had sent them before"
  )
  const eventsEvicted = counter("events_evicted_total", "Events evicted at a limit")
  const streamsResumed = counter("streams_resumed_total", "Broken streams resumed at the upstream")
  const failovers = counter(
    "failovers_total",
    "Failovers of sessions that the upstream lost, by outcome",
    "outcome"
  )
  return {
    sessionOpened: () => sessionsOpened.inc(),
    sessionRestored: () => sessionsRestored.inc(),
    sessionClosed: (reason) => sessionsClosed.inc({ reason }),
    errorReturned: (reason) => errors.inc({ reason }),
    exchangeEnded: (method, outcome, millis) => {
      exchanges.inc({ method, outcome })
      duration.observe({ method }, millis / 1000)
    },
    bytesReceived: (bytes) => bytesReceived.inc(bytes),
    bytesSent: (bytes) => bytesSent.inc(bytes),
    eventsReplayed: (events) => eventsReplayed.inc(events),
    duplicateDropped: () => duplicatesDropped.inc(),
    eventsEvicted: (events) => eventsEvicted.inc(events),
    streamResumed: () => streamsResumed.inc(),
    failoverEnded: (outcome) => failovers.inc({ outcome })
  }
}

/** Provides `Telemetry` that counts in the registry of `Metrics`. */
export const layer: Layer.Layer<Metrics | Telemetry> = Layer.effectContext(
  Effect.sync(() => {
    const registry = new Registry()
    return Context.make(Metrics, { registry }).pipe(Context.add(Telemetry, listener(registry)))
  })
)
