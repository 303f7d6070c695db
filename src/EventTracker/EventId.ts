/** The ids under which events go out: opaque to a client, and enough for the proxy to find its way by. */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { RequestId } from "../Protocol.js"

export interface EventId {
  readonly secret: string
  readonly generation: number
  /** The number of the stream. */
  readonly number: number
  /** The number of the event in it. */
  readonly sequence: number
  /**
   * What the stream answers, so that it can be answered even when nothing else is known of it; none for a standalone
   * stream, and none where that would be long.
   */
  readonly requests: ReadonlyArray<RequestId>
}

/** What all ids of a stream begin and end with. */
export interface Frame {
  readonly prefix: string
  readonly suffix: string
}

/** What all ids of a generation begin with. */
export const beginningOf = ({ generation, secret }: Pick<EventId, "generation" | "secret">): string =>
  `${secret}.${generation.toString(36)}.`

export const frameOf = (
  beginning: string,
  { number, requests }: Pick<EventId, "number" | "requests">
): Frame => ({
  prefix: `${beginning}${number.toString(36)}.`,
  suffix: requests.length === 0 ? "" : `.${keyOf(requests)}`
})

export const format = ({ prefix, suffix }: Frame, sequence: number): string =>
  `${prefix}${sequence.toString(36)}${suffix}`

export const idOf = (id: EventId): string => format(frameOf(beginningOf(id), id), id.sequence)

/** Reads an id; `undefined` for what none looks like. */
export const parse = (text: string): EventId | undefined => {
  const [, secret, generation, number, sequence, key = ""] = pattern.exec(text) ?? []
  if (secret === undefined || generation === undefined || number === undefined || sequence === undefined)
    return undefined
  return {
    secret,
    generation: parseInt(generation, 36),
    number: parseInt(number, 36),
    sequence: parseInt(sequence, 36),
    requests: requestsOf(key)
  }
}

/** The longest id, in characters. */
export const MAX_LENGTH = 128

const MAX_KEY = 64

/** In the place of a key that would be longer. */
const NO_KEY = "_"

/** The number of a single request is its own key, which is all that most streams need. */
const keyOf = (requests: ReadonlyArray<RequestId>): string => {
  const [first] = requests
  if (requests.length === 1 && typeof first === "number" && isKey.test(`${first}`)) return `${first}`
  const key = Buffer.from(JSON.stringify(requests)).toString("base64url")
  return key.length > MAX_KEY ? NO_KEY : key
}

const decode = Schema.decodeUnknownOption(Schema.parseJson(Schema.Array(RequestId)))

const requestsOf = (key: string): ReadonlyArray<RequestId> =>
  isKey.test(key)
    ? [Number(key)]
    : Option.getOrElse(decode(Buffer.from(key, "base64url").toString()), () => [])

/** No other key begins with a digit: it is an array as JSON, in Base64. */
const isKey = /^(?:0|[1-9]\d{0,14})$/

const pattern =
  /^([\w-]{12})\.(0|[1-9a-z][0-9a-z]{0,8})\.([1-9a-z][0-9a-z]{0,8})\.(0|[1-9a-z][0-9a-z]{0,8})(?:\.([\w-]{1,64}))?$/
