/** What is kept of the streams of one session. Every `EventTracker` gives logs of this kind. */
import type { RequestId } from "../Protocol.js"

/** A place in a stream that a client has read up to. */
export interface Place {
  /** `undefined` for a stream that has ended and of which nothing is left to deliver. */
  readonly stream: StreamLog | undefined
  readonly sequence: number
}

export interface SessionLog {
  /** Begins the log of a stream that answers these requests, or of a standalone one. */
  readonly stream: (requests: ReadonlyArray<RequestId>) => StreamLog
  /** The place that an event id names; `undefined` for one that was never issued in this session. */
  readonly find: (eventId: string) => Place | undefined
  /** Notes an id of the upstream's. False when it is one of the last thousand already: the event is a repetition. */
  readonly isNew: (upstreamId: string) => boolean
  /** The upstream has begun a new session, with ids of its own. */
  readonly renew: () => void
  /** The session has ended: nothing of it is kept. */
  readonly close: () => void
}

/** An event as it goes out, with its id. */
export interface KeptEvent {
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
  readonly last: number
  /** The place before everything that is still kept. */
  readonly beforeOldest: number
  readonly hasEnded: boolean
  /** The event id of a place. */
  readonly idAt: (place: number) => string
  /** Adds an event. One that is too large to be kept is passed on all the same, and what was before it is let go. */
  readonly append: (frame: Buffer, upstreamId: string | undefined) => KeptEvent
  /** An event has passed that nobody can be told again. */
  readonly skip: () => void
  /** The event behind a place; `undefined` when there is none, or it is no longer kept. */
  readonly after: (place: number) => KeptEvent | undefined
  /** How many bytes of events are kept behind a place, with what each costs beside them. */
  readonly bytesAfter: (place: number) => number
  /** Whether an event behind a place is no longer kept. */
  readonly misses: (place: number) => boolean
  /** Nothing more is to come. */
  readonly end: () => void
  /** Its end has reached a client that was there. */
  readonly delivered: () => void
  /** That client turns out to have gone before, or another reads it again. */
  readonly undelivered: () => void
  /** Lets go of all events. */
  readonly clear: () => void
  /** Lets go of all events; nobody will ask for the stream any more. */
  readonly forget: () => void
}
