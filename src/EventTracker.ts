/** The events of streams, kept for clients that lost their connection. */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Ledger from "./EventTracker/Retention.js"
import { MemoryLog } from "./EventTracker/MemoryLog.js"
import type { SessionLog } from "./EventTracker/SessionLog.js"
import type { StoreError } from "./ProxyError.js"

export type { StreamEvent, StreamPosition, SessionLog, StreamLog } from "./EventTracker/SessionLog.js"

export interface EventTrackerOptions extends Ledger.RetentionLimits {
  /** How long the events of a stream are kept that has ended and was delivered whole. Default: 60 s. */
  readonly retention: Duration.DurationInput
  /**
   * How long clients of 2025-11-25 and later are told to wait before they come back. Default: 3 s. With less, the
   * official clients give up, after two attempts, on an outage of a second and a half.
   */
  readonly retry: Duration.DurationInput
}

export const defaults: EventTrackerOptions = {
  maxEvents: 1_000,
  maxEventBytes: 1024 * 1024,
  maxTotalEventBytes: 256 * 1024 * 1024,
  retention: Duration.seconds(60),
  retry: Duration.seconds(3)
}

/**
 * Keeps the events of streams, in order, under ids of the proxy's own (2025-11-25, Transports, "Resumability and
 * Redelivery"). All of it is synchronous, for every event passes here; durable layers write behind.
 */
export class EventTracker extends Context.Tag("shadowcat/EventTracker")<
  EventTracker,
  {
    readonly options: EventTrackerOptions

    /**
     * The log of a session, until it is closed or suspended, with what an earlier process has left there; `undefined`
     * where nothing is kept (`maxEvents` 0), and streams are relayed as they are. A session has one at a time.
     */
    readonly open: (session: string) => Effect.Effect<SessionLog | undefined, StoreError>

    /** How much is kept at present. */
    readonly size: () => Ledger.EventTotals
  }
>() {}

/** A tracker in this process's memory. */
export const makeMemory = (
  options: EventTrackerOptions
): Effect.Effect<EventTracker["Type"], never, Scope.Scope> =>
  Effect.map(Ledger.make(options, Duration.toMillis(options.retention)), (ledger) =>
    EventTracker.of({
      options,
      open: () => Effect.sync(() => (options.maxEvents === 0 ? undefined : new MemoryLog(ledger))),
      size: () => ledger.sums
    })
  )

/** Events end with the process. */
export const layerMemory = (options?: Partial<EventTrackerOptions>): Layer.Layer<EventTracker> =>
  Layer.scoped(EventTracker, makeMemory({ ...defaults, ...options }))

/** The same, with its options read from a `Config`. */
export const layerMemoryConfig = (
  options: Config.Config.Wrap<Partial<EventTrackerOptions>>
): Layer.Layer<EventTracker, ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerMemory))
