/** The event ids that clients receive. They are opaque to clients, and name a position in a stream to the proxy. */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { RequestId } from "../Protocol.js"

export interface EventId {
  /** The secret of the session's log. */
  readonly secret: string
  /** The generation of the log that issued the id. */
  readonly generation: number
  /** The number of the stream. */
  readonly number: number
  /** The sequence of the event in its stream. */
  readonly sequence: number
  /**
   * The requests that the stream answers, so that they get an error if the stream is lost. Empty for a standalone
   * stream, and if the requests do not fit into the id.
   */
  readonly requests: ReadonlyArray<RequestId>
}

/** The parts that all ids of a stream share. */
export interface IdAffixes {
  readonly prefix: string
  readonly suffix: string
}

/** Returns the part that all ids of a generation share. */
export const prefixOf = ({ generation, secret }: Pick<EventId, "generation" | "secret">): string =>
  `${secret}.${generation.toString(36)}.`

export const affixesOf = (
  prefix: string,
  { number, requests }: Pick<EventId, "number" | "requests">
): IdAffixes => ({
  prefix: `${prefix}${number.toString(36)}.`,
  suffix: requests.length === 0 ? "" : `.${encodeRequests(requests)}`
})

export const format = ({ prefix, suffix }: IdAffixes, sequence: number): string =>
  `${prefix}${sequence.toString(36)}${suffix}`

export const idOf = (id: EventId): string => format(affixesOf(prefixOf(id), id), id.sequence)

/** Parses an id. Returns `undefined` for a text that does not have the format of an id. */
export const parse = (text: string): EventId | undefined => {
  const [, secret, generation, number, sequence, requests = ""] = pattern.exec(text) ?? []
  if (secret === undefined || generation === undefined || number === undefined || sequence === undefined)
    return undefined
  return {
    secret,
    generation: parseInt(generation, 36),
    number: parseInt(number, 36),
    sequence: parseInt(sequence, 36),
    requests: decodeRequests(requests)
  }
}

/** The maximum length of an id, in characters. */
export const MAX_LENGTH = 128

const MAX_REQUESTS_LENGTH = 64

/** The placeholder for requests that do not fit into an id. */
const OMITTED = "_"

/** Encodes a single number as itself, and anything else as JSON in Base64, which does not begin with a digit. */
const encodeRequests = (requests: ReadonlyArray<RequestId>): string => {
  const [first] = requests
  if (requests.length === 1 && typeof first === "number" && plainNumber.test(`${first}`)) return `${first}`
  const encoded = Buffer.from(JSON.stringify(requests)).toString("base64url")
  return encoded.length > MAX_REQUESTS_LENGTH ? OMITTED : encoded
}

const decodeJson = Schema.decodeUnknownOption(Schema.parseJson(Schema.Array(RequestId)))

const decodeRequests = (text: string): ReadonlyArray<RequestId> =>
  plainNumber.test(text)
    ? [Number(text)]
    : Option.getOrElse(decodeJson(Buffer.from(text, "base64url").toString()), () => [])

const plainNumber = /^(?:0|[1-9]\d{0,14})$/

const pattern =
  /^([\w-]{12})\.(0|[1-9a-z][0-9a-z]{0,8})\.([1-9a-z][0-9a-z]{0,8})\.(0|[1-9a-z][0-9a-z]{0,8})(?:\.([\w-]{1,64}))?$/
