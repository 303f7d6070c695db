/** The options of retained stream events. */
import * as Duration from "effect/Duration"
import * as EventTracker from "../../EventTracker.js"
import * as parsers from "../parsers.js"
import { httpOnly, withDefault } from "./rows.js"

export const events = {
  maxEvents: withDefault({
    name: "max-events",
    group: "Streams",
    schema: parsers.integer(0, 1_000_000),
    default: EventTracker.defaults.maxEvents,
    placeholder: "count",
    description:
      "Maximum number of stream events to keep for one session; 0 keeps none and relays streams unchanged",
    commands: httpOnly
  }),
  maxEventBytes: withDefault({
    name: "max-event-bytes",
    group: "Streams",
    schema: parsers.size,
    default: EventTracker.defaults.maxEventBytes,
    placeholder: "size",
    description: "Maximum size of the events to keep for one session",
    commands: httpOnly
  }),
  maxTotalEventBytes: withDefault({
    name: "max-total-event-bytes",
    group: "Streams",
    schema: parsers.size,
    default: EventTracker.defaults.maxTotalEventBytes,
    placeholder: "size",
    description:
      "Maximum size of the events of all sessions; up to half may be incomplete events of up to 16 MiB each",
    commands: httpOnly
  }),
  retry: withDefault({
    name: "retry",
    group: "Streams",
    schema: parsers.duration,
    default: Duration.decode(EventTracker.defaults.retry),
    placeholder: "duration",
    description:
      "Delay before a client reconnects to a broken stream; with less, the official clients give up too soon",
    commands: httpOnly
  })
}
