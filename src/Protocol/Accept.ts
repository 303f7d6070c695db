/** The response types that a client accepts. */
import Negotiator from "negotiator"
import { EVENT_STREAM } from "./SseFrames.js"

const JSON_TYPE = "application/json"

/** The response types that an `Accept` header allows. */
export interface AcceptedTypes {
  readonly json: boolean
  readonly stream: boolean
}

/** The last header and its result. Most requests repeat the header of the request before. */
let latest: { readonly accept: string | undefined; readonly acceptedTypes: AcceptedTypes } = {
  accept: undefined,
  acceptedTypes: { json: true, stream: true }
}

/** Parses an `Accept` header. Without one, both types are accepted. */
export const acceptedTypes = (accept: string | undefined): AcceptedTypes => {
  if (accept !== latest.accept) {
    // Some clients send parameters such as a charset, which do not restrict the type.
    const ranges = accept?.replaceAll(/;(?!\s*q=)[^;,]*/gi, "")
    const types = new Negotiator({ headers: { accept: ranges } }).mediaTypes([JSON_TYPE, EVENT_STREAM])
    latest = {
      accept,
      acceptedTypes: { json: types.includes(JSON_TYPE), stream: types.includes(EVENT_STREAM) }
    }
  }
  return latest.acceptedTypes
}

/** True if an `Accept` header allows JSON or an event stream. */
export const isAcceptable = (accept: string | undefined): boolean => {
  const { json, stream } = acceptedTypes(accept)
  return json || stream
}
