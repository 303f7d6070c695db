/** Notifies a client that another upstream session has replaced the lost one. */
import { frame } from "../Protocol/SseFrames.js"
import {
  cancelledNotification,
  type Message,
  sessionRestartedNotification,
  toolsChangedNotification
} from "../Protocol.js"
import type { Streams } from "../Streams.js"
import type { SessionChange } from "../UpstreamSession.js"
import type { Negotiated } from "../UpstreamSession/Negotiated.js"

/** Cancels the server's open requests, warns that the server's state is gone, and announces changed tools. */
export const notifyOfFailover = (
  streams: Streams,
  negotiated: Negotiated,
  { hasOtherTools, serverRequests }: SessionChange
): void => {
  const send = (message: Message, isUrgent: boolean) => streams.send(frame(JSON.stringify(message)), isUrgent)
  for (const id of serverRequests) send(cancelledNotification(id, "The server that asked is gone"), true)
  if (negotiated.declares("logging") && negotiated.wantsWarnings) send(sessionRestartedNotification, false)
  if (hasOtherTools) send(toolsChangedNotification, true)
}
