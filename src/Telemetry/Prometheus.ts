/** Counts what happens in the way of Prometheus: names, units and the text format are those of its conventions. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Counter, Histogram, Registry } from "prom-client"
import { type TelemetryListener, Telemetry } from "../Telemetry.js"

export class Metrics extends Context.Tag("shadowcat/Metrics")<
  Metrics,
  {
    /** Everything that is measured; further metrics may be added to it. */
    readonly registry: Registry
  }
>() {}

/** From a call that a local server answers at once to one that has to be waited for, in seconds. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]

const listener = (registry: Registry): TelemetryListener => {
  const registers = [registry]
  const counter = (name: string, help: string) => new Counter({ name, help, registers })
  const opened = counter("shadowcat_sessions_opened_total", "Sessions opened")
  const revived = counter(
    "shadowcat_sessions_restored_total",
    "Sessions that an earlier process had left and that go on"
  )
  const closed = new Counter({
    name: "shadowcat_sessions_closed_total",
    help: "Sessions closed, by reason",
    labelNames: ["reason"],
    registers
  })
  const refused = new Counter({
    name: "shadowcat_errors_total",
    help: "Requests answered with an error of the proxy's own, by the bound or what was wrong",
    labelNames: ["reason"],
    registers
  })
  const exchanges = new Counter({
    name: "shadowcat_exchanges_total",
    help: "Exchanges that are over, by method and outcome",
    labelNames: ["method", "outcome"],
    registers
  })
  const duration = new Histogram({
    name: "shadowcat_exchange_duration_seconds",
    help: "How long exchanges took, from the request's arrival to the answer's end",
    labelNames: ["method"],
    buckets,
    registers
  })
  const received = counter("shadowcat_received_bytes_total", "Bytes of request bodies from clients")
  const sent = counter("shadowcat_sent_bytes_total", "Bytes of answers' bodies to clients")
  const replayed = counter(
    "shadowcat_events_replayed_total",
    "Events that clients had missed and got when they came back"
  )
  const repeated = counter(
    "shadowcat_duplicate_events_dropped_total",
    "Events that an upstream sent twice and that were dropped"
  )
  const evicted = counter(
    "shadowcat_events_evicted_total",
    "Events that were let go of at a bound, for newer ones"
  )
  const resumed = counter(
    "shadowcat_streams_resumed_total",
    "Streams that had broken at the upstream and go on"
  )
  const recovered = new Counter({
    name: "shadowcat_failovers_total",
    help: "Sessions that the upstream had lost, by whether another was opened in their place",
    labelNames: ["outcome"],
    registers
  })
  return {
    sessionOpened: () => opened.inc(),
    sessionRestored: () => revived.inc(),
    sessionClosed: (reason) => closed.inc({ reason }),
    errorReturned: (reason) => refused.inc({ reason }),
    exchangeEnded: (method, outcome, millis) => {
      exchanges.inc({ method, outcome })
      duration.observe({ method }, millis / 1000)
    },
    bytesReceived: (bytes) => received.inc(bytes),
    bytesSent: (bytes) => sent.inc(bytes),
    eventsReplayed: (events) => replayed.inc(events),
    duplicateDropped: () => repeated.inc(),
    eventsEvicted: (events) => evicted.inc(events),
    streamResumed: () => resumed.inc(),
    failoverEnded: (outcome) => recovered.inc({ outcome })
  }
}

/** Hears the telemetry of every service that this layer is provided to. */
export const layer: Layer.Layer<Metrics | Telemetry> = Layer.effectContext(
  Effect.sync(() => {
    const registry = new Registry()
    return Context.make(Metrics, { registry }).pipe(Context.add(Telemetry, listener(registry)))
  })
)
