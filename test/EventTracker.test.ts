import { describe, expect, it } from "@effect/vitest"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import {
  defaults,
  EventStorage,
  EventTracker,
  layerConfig,
  layerMemory,
  layerMemoryConfig
} from "../src/EventTracker.js"
import { eventTrackerContract } from "../src/testing.js"
import { MemoryEventStorage } from "./fixtures/MemoryEventStorage.js"

eventTrackerContract("EventTracker.layerMemory", layerMemory)

const options = { maxEvents: Config.integer("EVENTS"), retry: Config.duration("RETRY") }

const optionsOf = (layer: Layer.Layer<EventTracker, ConfigError>, values: Readonly<Record<string, string>>) =>
  Effect.map(EventTracker, ({ options }) => options).pipe(
    Effect.provide(layer),
    Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(values))))
  )

describe.each([
  ["layerMemoryConfig", layerMemoryConfig(options)],
  [
    "layerConfig",
    Layer.provide(
      layerConfig(options),
      Layer.sync(EventStorage, () => new MemoryEventStorage().service)
    )
  ]
])("EventTracker.%s", (_, layer) => {
  it.effect("reads its options from a Config, and has defaults for the others", () =>
    Effect.gen(function* () {
      expect(yield* optionsOf(layer, { EVENTS: "5", RETRY: "7 seconds" })).toEqual({
        ...defaults,
        maxEvents: 5,
        retry: Duration.seconds(7)
      })
      const error = yield* Effect.flip(optionsOf(layer, { EVENTS: "five", RETRY: "7 seconds" }))
      expect(error._op).toBe("InvalidData")
    })
  )
})
