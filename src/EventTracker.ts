/** Retains the events of streams for clients that reconnect. */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { DurableLogs } from "./EventTracker/DurableLogs.js"
import { EventStorage } from "./EventTracker/EventStorage.js"
import * as Retention from "./EventTracker/Retention.js"
import { SessionLog } from "./EventTracker/SessionLog.js"
import type { StoreError } from "./ProxyError.js"

export { EventStorage } from "./EventTracker/EventStorage.js"
export type {
  LogChange,
  RejectedChange,
  StoredEvent,
  StoredLog,
  StoredStream,
  StreamChange
} from "./EventTracker/EventStorage.js"
export type { SessionLog, StreamPosition } from "./EventTracker/SessionLog.js"
export type { StreamEvent, StreamLog } from "./EventTracker/StreamLog.js"

export interface EventTrackerOptions extends Retention.RetentionLimits {
  /** The time for which a stream is retained after its complete delivery. Default: 60 s. */
  readonly retention: Duration.DurationInput
  /**
   * The reconnection time that clients receive: at a shutdown, and since 2025-11-25 at the start of each stream.
   * Default: 3 s. The official clients stop after two attempts, so with a shorter time they do not survive an outage of
   * 1.5 s.
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
 * Retains the events of streams in order, under event ids of the proxy (2025-11-25, Transports, "Resumability and
 * Redelivery"). Logs are synchronous and in memory, because every event passes through them. With an `EventStorage`,
 * changes are written behind.
 */
export class EventTracker extends Context.Tag("shadowcat/EventTracker")<
  EventTracker,
  {
    readonly options: EventTrackerOptions

    /**
     * Opens the log of a session, with the streams that an earlier process stored. Returns `undefined` if `maxEvents`
     * is 0, because streams cannot be resumed then. A session has one open log; opening it again detaches the earlier
     * one.
     */
    readonly open: (session: string) => Effect.Effect<SessionLog | undefined, StoreError>

    /** Returns the number and the size of all retained events. */
    readonly size: () => Retention.EventTotals
  }
>() {}

/** Makes a tracker whose events end with the process. */
export const makeMemory = (
  options: EventTrackerOptions
): Effect.Effect<EventTracker["Type"], never, Scope.Scope> =>
  Effect.map(makeRetention(options), (retention) =>
    toService(options, retention, () => Effect.sync(() => new SessionLog(retention)))
  )

/** Makes a tracker whose events outlive the process, in an `EventStorage`. */
export const make = (
  options: EventTrackerOptions
): Effect.Effect<EventTracker["Type"], never, EventStorage | Scope.Scope> =>
  Effect.gen(function* () {
    const retention = yield* makeRetention(options)
    const logs = new DurableLogs(yield* EventStorage)
    yield* logs.start
    return toService(options, retention, (session) =>
      Effect.map(logs.open(session), ({ origin, writer }) => new SessionLog(retention, origin, writer))
    )
  })

/** Provides a tracker in memory. Omitted options have their defaults. */
export const layerMemory = (options?: Partial<EventTrackerOptions>): Layer.Layer<EventTracker> =>
  Layer.scoped(EventTracker, makeMemory({ ...defaults, ...options }))

/** Provides a tracker in memory, with options from a `Config`. */
export const layerMemoryConfig = (
  options: Config.Config.Wrap<Partial<EventTrackerOptions>>
): Layer.Layer<EventTracker, ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerMemory))

/** Provides a tracker over an `EventStorage`. Omitted options have their defaults. */
export const layer = (
  options?: Partial<EventTrackerOptions>
): Layer.Layer<EventTracker, never, EventStorage> =>
  Layer.scoped(EventTracker, make({ ...defaults, ...options }))

/** Provides a tracker over an `EventStorage`, with options from a `Config`. */
export const layerConfig = (
  options: Config.Config.Wrap<Partial<EventTrackerOptions>>
): Layer.Layer<EventTracker, ConfigError, EventStorage> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))

const makeRetention = (options: EventTrackerOptions) =>
  Retention.make(options, Duration.toMillis(options.retention))

const toService = (
  options: EventTrackerOptions,
  retention: Retention.Retention,
  open: (session: string) => Effect.Effect<SessionLog, StoreError>
): EventTracker["Type"] =>
  EventTracker.of({
    options,
    open: options.maxEvents === 0 ? () => Effect.succeed(undefined) : open,
    size: () => retention.totals
  })
