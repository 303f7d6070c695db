/** What is kept of the streams of one session. Every `EventTracker` gives logs of this kind. */
import type { FrameBudget } from "../Protocol/SseFrames.js"
import type { RequestId } from "../Protocol.js"

/** A place in a stream that a client has read up to. */
export interface StreamPosition {
  /** `undefined` for a stream that has ended and of which nothing is left to deliver. */
  readonly stream: StreamLog | undefined
  readonly sequence: number
}

/** It has room, too, for events that are not whole yet. */
export interface SessionLog extends FrameBudget {
  /** Begins the log of a stream that answers these requests, or of a standalone one. */
  readonly createStream: (requests: ReadonlyArray<RequestId>) => StreamLog
  /** The place that an event id names; `undefined` for one that was never issued in this session. */
  readonly find: (eventId: string) => StreamPosition | undefined
  /** Notes an id of the upstream's. False when it is one of the last thousand already: the event is a repetition. */
  readonly addUpstreamId: (upstreamId: string) => boolean
  /** Whether the upstream has given one id in several streams: then each has repetitions of its own only. */
  hasPerStreamIds: boolean
  /** The upstream has begun a new session, with ids of its own. */
  readonly reset: () => void
  /** What an earlier process has begun and not ended, oldest first. */
  readonly unfinished: ReadonlyArray<StreamLog>
  /** This process ends, and the session does not: a durable log keeps what it has, and any other closes. */
  readonly suspend: () => void
  /** The session has ended: nothing of it is kept. */
  readonly close: () => void
}

/** An event as it goes out, with its id. */
export interface StreamEvent {
  /** Its number in its stream, from 1 on. */
  readonly sequence: number
  readonly frame: Buffer
  /** The id that the upstream gave it. */
  readonly upstreamId: string | undefined
}

/** The events of one stream, in order. A place in it is the number of the event there, or 0 before the first. */
export interface StreamLog {
  /** The requests that the stream answers; none for a standalone one. */
  readonly requests: ReadonlyArray<RequestId>
  /** The number of the newest event. */
  readonly lastSequence: number
  /** The place before everything that is still kept. */
  readonly evictedUpTo: number
  readonly hasEnded: boolean
  /** The upstream's id of what came last, behind which the stream goes on there. */
  readonly cursor: string | undefined
  /** The event id of a place. */
  readonly idAt: (place: number) => string
  /** Adds an event. One that is too large to be kept is passed on all the same, and what was before it is let go. */
  readonly append: (frame: Buffer, upstreamId: string | undefined) => StreamEvent
  /** The upstream has given an id to what is no event for the client, or taken back the last one. */
  readonly setCursor: (upstreamId: string | undefined) => void
  /** An event has passed that nobody can be told again. */
  readonly skip: () => void
  /** The event behind a place; `undefined` when there is none, or it is no longer kept. */
  readonly after: (place: number) => StreamEvent | undefined
  /** How many bytes of events are kept behind a place, with what each costs beside them. */
  readonly bytesAfter: (place: number) => number
  /** Whether an event behind a place is no longer kept. */
  readonly hasEvicted: (place: number) => boolean
  /** Nothing more is to come. */
  readonly end: () => void
  /** All of it has gone out to a client that was there. */
  readonly markDelivered: () => void
  /** How often a client has come back to it. */
  readonly replayCount: number
  /** Another client reads it again. */
  readonly beginReplay: () => void
  /** Lets go of all events. */
  readonly clear: () => void
  /** Lets go of all events; nobody will ask for the stream any more. */
  readonly remove: () => void
}

/** The events of a stream that are kept, oldest first. */
export const retainedEvents = function* (log: StreamLog): Iterable<StreamEvent> {
  for (let next = log.after(log.evictedUpTo); next !== undefined; next = log.after(next.sequence)) yield next
}
