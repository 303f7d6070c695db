/** Sessions and the events of their streams in one SQLite file, so that they outlive the process. */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EventTracker from "./EventTracker.js"
import type { StoreError } from "./ProxyError.js"
import type { SessionStore } from "./SessionStore.js"
import * as SqliteEvents from "./Sqlite/EventStorage.js"
import * as SqliteFile from "./Sqlite/File.js"
import type { SqliteFileOptions } from "./Sqlite/options.js"
import * as SqliteSessions from "./Sqlite/SessionStore.js"

export interface SqliteOptions extends SqliteFileOptions, Partial<EventTracker.EventTrackerOptions> {}

/**
 * Provides both stores over one file, which only this process can use until the scope of the layer closes. Fails with a
 * `StoreError` if another process uses the file, a newer version of shadowcat wrote it, or it is damaged or not usable.
 */
export const layer = ({
  path,
  sync,
  ...events
}: SqliteOptions): Layer.Layer<EventTracker.EventTracker | SessionStore, StoreError> =>
  Layer.merge(SqliteSessions.layer, Layer.provide(EventTracker.layer(events), SqliteEvents.layer)).pipe(
    Layer.provide(SqliteFile.layer({ path, sync }))
  )

/** Provides `layer` with options from a `Config`. */
export const layerConfig = (
  options: Config.Config.Wrap<SqliteOptions>
): Layer.Layer<EventTracker.EventTracker | SessionStore, ConfigError | StoreError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
