/** Whether a client takes what MCP answers with. */
import Negotiator from "negotiator"
import { EVENT_STREAM } from "./SseFrames.js"

const JSON_TYPE = "application/json"

/** What a client takes as an answer. */
export interface AcceptedTypes {
  readonly json: boolean
  readonly stream: boolean
}

/** What all clients of one kind send, and the verdict on it: most requests repeat the one before. */
let latest: { readonly accept: string | undefined; readonly acceptedTypes: AcceptedTypes } = {
  accept: undefined,
  acceptedTypes: { json: true, stream: true }
}

/** Which of JSON and server-sent events an `Accept` leaves open; without one, both. */
export const acceptedTypes = (accept: string | undefined): AcceptedTypes => {
  if (accept !== latest.accept) {
    // Some clients repeat a charset here, which narrows nothing.
    const ranges = accept?.replaceAll(/;(?!\s*q=)[^;,]*/gi, "")
    const types = new Negotiator({ headers: { accept: ranges } }).mediaTypes([JSON_TYPE, EVENT_STREAM])
    latest = {
      accept,
      acceptedTypes: { json: types.includes(JSON_TYPE), stream: types.includes(EVENT_STREAM) }
    }
  }
  return latest.acceptedTypes
}

/** Whether an `Accept` leaves JSON or server-sent events open. */
export const isAcceptable = (accept: string | undefined): boolean => {
  const { json, stream } = acceptedTypes(accept)
  return json || stream
}
