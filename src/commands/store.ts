/** The stores of sessions and events: in memory, or in a SQLite file. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EventTracker from "../EventTracker.js"
import type { StoreError } from "../ProxyError.js"
import * as SessionStore from "../SessionStore.js"
import type { ForwardOptions } from "./options.js"

/** Provides the stores that a command line names. SQLite is loaded on demand. */
export const storesOf = ({
  events,
  store: { location, sync }
}: ForwardOptions): Layer.Layer<EventTracker.EventTracker | SessionStore.SessionStore, StoreError> =>
  location.type === "memory"
    ? Layer.merge(EventTracker.layerMemory(events), SessionStore.layerMemory)
    : Layer.unwrapEffect(
        Effect.map(
          Effect.promise(() => import("../Sqlite.js")),
          (Sqlite) => Sqlite.layer({ ...events, path: location.path, sync })
        )
      )
