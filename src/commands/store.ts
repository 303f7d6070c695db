/** Where sessions are kept: in memory, or in a file that outlives the process. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EventTracker from "../EventTracker.js"
import type { StoreError } from "../ProxyError.js"
import * as SessionStore from "../SessionStore.js"
import { withDefault } from "./options.js"
import * as values from "./parsers.js"

export const storeOptions = {
  place: withDefault("store", "memory", {
    description: "Where sessions are kept: memory, or sqlite:PATH for them to outlive the process",
    value: "store",
    read: values.store
  }),
  sync: withDefault("store-sync", "normal", {
    description: "What a stored session survives: a kill of the process (normal), or a power cut too (full)",
    value: "level",
    read: values.oneOf({ normal: "normal", full: "full" } as const)
  })
}

interface Given {
  readonly place: values.Store
  readonly sync: "normal" | "full"
}

/** The stores that a command line names. SQLite is loaded when it is asked for. */
export const storesOf = (
  { place, sync }: Given,
  events: Partial<EventTracker.EventTrackerOptions>
): Layer.Layer<EventTracker.EventTracker | SessionStore.SessionStore, StoreError> =>
  place.type === "memory"
    ? Layer.merge(EventTracker.layerMemory(events), SessionStore.layerMemory)
    : Layer.unwrapEffect(
        Effect.map(
          Effect.promise(() => import("../Sqlite.js")),
          (Sqlite) => Sqlite.layer({ ...events, path: place.path, sync })
        )
      )
