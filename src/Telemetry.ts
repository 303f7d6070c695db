/** What the proxy does, told as it happens to whoever measures it. */
import * as Context from "effect/Context"

/**
 * How an exchange ended: the upstream's answer was passed on whole, or refused with a status of 400 and above; an
 * error of the proxy stands in its place or after a part of it; the client cancelled it, or went away; or it was
 * never sent, for a bound was reached.
 */
export type Outcome = "answered" | "rejected" | "failed" | "cancelled" | "disconnected" | "refused"

/**
 * Hears what happens. Synchronous, for every exchange tells it, and free where nobody listens: without another
 * layer, nobody does. Each label has a bounded number of values.
 */
export class Telemetry extends Context.Reference<Telemetry>()("shadowcat/Telemetry", {
  defaultValue: (): TelemetryListener => silent
}) {}

export interface TelemetryListener {
  readonly sessionOpened: () => void
  /** A session goes on that an earlier process had left. */
  readonly sessionRestored: () => void
  /** A session has ended, for this `CloseReason`. */
  readonly sessionClosed: (reason: string) => void
  /** A request got an error of the proxy's own: the name of a bound, or of what is wrong with it. */
  readonly errorReturned: (reason: string) => void
  /** An exchange is over. `method` is one of `Protocol.methodLabel`. */
  readonly exchangeEnded: (method: string, outcome: Outcome, millis: number) => void
  /** Bytes of request bodies came from a client. */
  readonly bytesReceived: (bytes: number) => void
  /** Bytes of answers' bodies went to a client. */
  readonly bytesSent: (bytes: number) => void
  /** A client that came back got so many events of a stream that it had missed. */
  readonly eventsReplayed: (events: number) => void
  /** An event that the upstream sent twice was dropped. */
  readonly duplicateDropped: () => void
  /** So many events were let go of at a bound, for newer ones. */
  readonly eventsEvicted: (events: number) => void
  /** The upstream's part of a stream that had broken goes on. */
  readonly streamResumed: () => void
  /** Another session was opened at an upstream that had lost one, or could not be. */
  readonly failoverEnded: (outcome: "succeeded" | "failed") => void
}

/** Hears nothing. */
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
