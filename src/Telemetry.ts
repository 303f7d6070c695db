/** The events of the proxy for metrics. */
import * as Context from "effect/Context"

/**
 * The outcome of an exchange.
 *
 * - `answered`: the whole response was passed on.
 * - `rejected`: the whole response was passed on, with a status of 400 or above.
 * - `failed`: an error of the proxy replaced or truncated the response.
 * - `cancelled`: the client cancelled the request.
 * - `disconnected`: the client disconnected.
 * - `refused`: the request was not sent because of a limit.
 */
export type Outcome = "answered" | "rejected" | "failed" | "cancelled" | "disconnected" | "refused"

/** The listener of the proxy's events. The default does nothing. */
export class Telemetry extends Context.Reference<Telemetry>()("shadowcat/Telemetry", {
  defaultValue: (): TelemetryListener => silent
}) {}

/** Listens to events. Its members are synchronous, because every exchange calls them. Labels have few values. */
export interface TelemetryListener {
  /** A session opened. */
  readonly sessionOpened: () => void
  /** A session of an earlier process was restored. */
  readonly sessionRestored: () => void
  /** A session closed. `reason` is a `CloseReason`. */
  readonly sessionClosed: (reason: string) => void
  /** The proxy returned an error for a request. `reason` is the result of `errorLabel`. */
  readonly errorReturned: (reason: string) => void
  /** An exchange ended. `method` is the result of `Protocol.methodLabel`. */
  readonly exchangeEnded: (method: string, outcome: Outcome, millis: number) => void
  /** Bytes of a request body arrived from a client. */
  readonly bytesReceived: (bytes: number) => void
  /** Bytes of a response body were written to a client. */
  readonly bytesSent: (bytes: number) => void
  /** Missed events were written to a client that resumed a stream. */
  readonly eventsReplayed: (events: number) => void
  /** An event that the upstream sent again was dropped. */
  readonly duplicateDropped: () => void
  /** Events were evicted at a limit. */
  readonly eventsEvicted: (events: number) => void
  /** A broken stream was resumed at the upstream. */
  readonly streamResumed: () => void
  /** The failover of a lost upstream session ended. */
  readonly failoverEnded: (outcome: "succeeded" | "failed") => void
}

/** Ignores all events. */
export const silent: TelemetryListener = {
  sessionOpened: () => {},
  sessionRestored: () => {},
  sessionClosed: () => {},
  errorReturned: () => {},
  exchangeEnded: () => {},
  bytesReceived: () => {},
  bytesSent: () => {},
  eventsReplayed: () => {},
  duplicateDropped: () => {},
  eventsEvicted: () => {},
  streamResumed: () => {},
  failoverEnded: () => {}
}
