/** The port through which `EventTracker` keeps events outside of this process. Each storage backend implements it. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { StoreError } from "../ProxyError.js"

export interface StoredEvent {
  /** The number of the event in its stream. The first event has 1. */
  readonly sequence: number
  /** The event as clients receive it, with its event id. */
  readonly frame: Buffer
  /** The id that the upstream gave to the event. */
  readonly upstreamId: string | undefined
}

/** The state of a stream. `requests` and `ends` are JSON that only the tracker reads. */
export interface StoredStream {
  /** The number of the stream in its log. The first stream has 1. */
  readonly number: number
  readonly requests: string
  readonly ends: string
  /** The upstream's id of the last event. */
  readonly cursor: string | undefined
  readonly lastSequence: number
  readonly hasEnded: boolean
  /** Ordered by sequence. */
  readonly events: ReadonlyArray<StoredEvent>
}

/** The log of a session. */
export interface StoredLog {
  /** Distinguishes this log from every other, including earlier logs of the same session id. */
  readonly secret: string
  /** The number of times that the log was opened again. */
  readonly generation: number
  /** The number of streams that the log has had. */
  readonly streamCount: number
  /** Ordered by number. */
  readonly streams: ReadonlyArray<StoredStream>
}

/** Stores the state of a stream, creates the stream if the log does not have it, and adds events. */
export interface StreamChange extends StoredStream {
  /** The last event to remove, with all events before it; `undefined` to remove none. */
  readonly evictUpTo: number | undefined
}

/** A change of one log. */
export interface LogChange {
  readonly session: string
  readonly secret: string
  readonly generation: number
  /**
   * `create` creates the log in this generation, `open` begins this generation of a log that has the generation before
   * it, and `update` changes a log that has this generation already.
   */
  readonly kind: "create" | "open" | "update"
  readonly streamCount: number
  readonly streams: ReadonlyArray<StreamChange>
  /** The numbers of streams to remove, with their events. Some of them may not be stored. */
  readonly removedStreams: ReadonlyArray<number>
}

/** A change that was not applied. */
export interface RejectedChange {
  readonly session: string
  /**
   * `missing` if the session has no log. The tracker then creates the log again, with all streams and events that it
   * retains. `superseded` if the stored log has another secret or generation, because another process has opened it. The
   * tracker then stops writing it.
   */
  readonly reason: "missing" | "superseded"
}

/**
 * Stores the logs of sessions. The tracker keeps every open log in memory: it reads a log once, when it opens it, and
 * writes changes in batches.
 *
 * A log lives as long as the record of its session. A backend removes both together. If its keys expire, its
 * `SessionStore` extends the log with the record: in `create`, in `update`, and when it writes what `touch` has
 * reported. `write` does not extend a log, because an active session may have no stream events for a long time. A log is
 * created before its record, so `write` gives a new log a time to live that lasts until the record is created.
 */
export class EventStorage extends Context.Tag("shadowcat/EventStorage")<
  EventStorage,
  {
    /** Names the storage in errors, without secrets. */
    readonly name: string

    /** Loads the log of a session. */
    readonly load: (session: string) => Effect.Effect<Option.Option<StoredLog>, StoreError>

    /**
     * Applies changes in order, each of them completely or not at all. Rejects a change if the stored log does not
     * exist, or has another secret or generation than the change expects. If two processes open a log, one of them is
     * rejected. Returns the rejected changes.
     *
     * The tracker repeats a batch that fails, so a change may be applied twice. An event that is already stored is not
     * changed, and `create` changes a log that has the same secret and generation.
     */
    readonly write: (
      changes: ReadonlyArray<LogChange>
    ) => Effect.Effect<ReadonlyArray<RejectedChange>, StoreError>

    /** Removes the logs of sessions. Some of them may not exist. */
    readonly remove: (sessions: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
  }
>() {}
