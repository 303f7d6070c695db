import * as Effect from "effect/Effect"
import type { EventTracker } from "../EventTracker.js"
import type { SessionLog } from "../EventTracker/SessionLog.js"
import type { StreamLog } from "../EventTracker/StreamLog.js"
import { readEvents } from "../Protocol/SseEvents.js"

/** Makes the frame of an event. */
export const event = (text: string): Buffer => Buffer.from(`data: ${text}\n\n`)

/** The ids and texts of the retained events after a position. */
export const eventsAfter = (
  stream: StreamLog,
  sequence: number
): ReadonlyArray<readonly [id: string, text: string]> => {
  const events: Array<readonly [string, string]> = []
  for (let next = stream.after(sequence); next !== undefined; next = stream.after(next.sequence)) {
    const read = (frame: Buffer, id = "") =>
      events.push([id, /^data: (.*)$/m.exec(frame.toString())?.[1] ?? ""])
    readEvents(next.frame, { event: read, idOnly: (id) => events.push([id, ""]), retry: () => {} })
  }
  return events
}

/** The texts of the retained events after a position. */
export const textsAfter = (stream: StreamLog, sequence: number): ReadonlyArray<string> =>
  eventsAfter(stream, sequence).map(([, text]) => text)

/** Opens the log of a session. */
export const logOf = (tracker: EventTracker["Type"], session: string): Effect.Effect<SessionLog> =>
  tracker.open(session).pipe(
    Effect.flatMap((log) =>
      log === undefined ? Effect.dieMessage("the tracker opened no log") : Effect.succeed(log)
    ),
    Effect.orDie
  )
