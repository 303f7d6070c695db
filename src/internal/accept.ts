/** Whether a client takes what MCP answers with. */
import Negotiator from "negotiator"
import { EVENT_STREAM } from "./sse.js"

const offered = ["application/json", EVENT_STREAM]

/** What all clients of one kind send, and the verdict on it: most requests repeat the one before. */
let latest: { readonly accept: string | undefined; readonly isAccepted: boolean } = {
  accept: undefined,
  isAccepted: true
}

/** Whether an `Accept` leaves JSON or server-sent events open; without one, everything is. */
export const accepts = (accept: string | undefined): boolean => {
  if (accept !== latest.accept) {
    // Some clients repeat a charset here, which narrows nothing.
    const ranges = accept?.replaceAll(/;(?!\s*q=)[^;,]*/gi, "")
    latest = {
      accept,
      isAccepted: new Negotiator({ headers: { accept: ranges } }).mediaType(offered) !== undefined
    }
  }
  return latest.isAccepted
}
