/** Sessions and the events of their streams in one SQLite file, for them to outlive the process. */
import * as Layer from "effect/Layer"
import type { EventTracker, EventTrackerOptions as EventOptions } from "./EventTracker.js"
import * as SqliteEvents from "./Sqlite/EventTracker.js"
import type { StoreError } from "./ProxyError.js"
import type { SessionStore } from "./SessionStore.js"
import * as SqliteSessions from "./Sqlite/SessionStore.js"
import * as SqliteFile from "./Sqlite/File.js"

export interface SqliteOptions extends SqliteFile.Options, Partial<EventOptions> {}

/**
 * Both stores over one file, which this process has for itself until the layer's scope closes. Fails with a
 * `StoreError` when another process has it, a newer version of shadowcat has written it, it is damaged, or it cannot
 * be used at all.
 */
export const layer = ({
  path,
  sync,
  ...events
}: SqliteOptions): Layer.Layer<EventTracker | SessionStore, StoreError> =>
  Layer.merge(SqliteSessions.layer, SqliteEvents.layer(events)).pipe(
    Layer.provide(SqliteFile.layer({ path, sync }))
  )
