/** The state in which the log of a session is opened: empty, or the state that an earlier process stored. */
import * as Schema from "effect/Schema"
import { randomBytes } from "node:crypto"
import { RequestId } from "../Protocol.js"
import type { LogChange, StoredEvent, StoredLog } from "./EventStorage.js"

export interface LogOrigin {
  /** The first part of every event id of the log. A client cannot guess the ids of another session. */
  readonly secret: string
  /** The number of times that the log was opened again. It is part of every event id, so no id is issued twice. */
  readonly generation: number
  /** The number of streams that the log has had. */
  readonly streamCount: number
  /** Ordered by number, oldest first. */
  readonly streams: ReadonlyArray<RestoredStream>
}

/** A stream that an earlier process stored. */
export interface RestoredStream {
  readonly number: number
  /** The requests that the stream answers; empty for a standalone stream. */
  readonly requests: ReadonlyArray<RequestId>
  readonly cursor: string | undefined
  readonly lastSequence: number
  readonly hasEnded: boolean
  /** The last sequence of the stream at the end of each earlier generation. */
  readonly ends: ReadonlyMap<number, number>
  /** Ordered by sequence. */
  readonly events: ReadonlyArray<StoredEvent>
}

/** Returns the origin of a new log. */
export const newOrigin = (): LogOrigin => ({
  secret: randomBytes(9).toString("base64url"),
  generation: 0,
  streamCount: 0,
  streams: []
})

/** Returns the next generation of a stored log. Throws a `ParseError` if the log is damaged. */
export const nextOrigin = ({ generation, secret, streamCount, streams }: StoredLog): LogOrigin => ({
  secret,
  generation: generation + 1,
  streamCount,
  streams: streams.map(({ ends, requests, ...stream }) => ({
    ...stream,
    requests: decodeRequests(requests),
    ends: new Map([...decodeEnds(ends), [generation, stream.lastSequence] as const].slice(-MAX_ENDS))
  }))
})

/** Returns the change that stores the beginning of the generation. */
export const openingChange = (
  session: string,
  { generation, secret, streamCount, streams }: LogOrigin
): LogChange => ({
  session,
  secret,
  generation,
  kind: generation === 0 ? "create" : "open",
  streamCount,
  streams: streams.map((stream) => ({
    ...stream,
    requests: encodeRequests(stream.requests),
    ends: encodeEnds(stream.ends),
    events: [],
    evictUpTo: undefined
  })),
  removedStreams: []
})

export const encodeRequests = (requests: ReadonlyArray<RequestId>): string => JSON.stringify(requests)

export const encodeEnds = (ends: ReadonlyMap<number, number>): string =>
  ends.size === 0 ? "[]" : JSON.stringify(Array.from(ends))

const decodeRequests = Schema.decodeSync(Schema.parseJson(Schema.Array(RequestId)))
const decodeEnds = Schema.decodeSync(
  Schema.parseJson(Schema.Array(Schema.Tuple(Schema.Number, Schema.Number)))
)

/** The number of generations whose ends are stored. An event id of an older one counts as evicted. */
const MAX_ENDS = 64
