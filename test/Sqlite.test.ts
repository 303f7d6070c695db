import { expect, it } from "@effect/vitest"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { EventTracker } from "../src/EventTracker.js"
import { SessionStore } from "../src/SessionStore.js"
import * as Sqlite from "../src/Sqlite.js"
import { bundle } from "./fixtures/bundle.js"
import { spawnNode } from "./fixtures/Child.js"
import { repetitions } from "./fixtures/repetitions.js"
import { makeMemoryFolder } from "./fixtures/sqlite.js"

const writer = fileURLToPath(new URL("fixtures/sqliteWriter.ts", import.meta.url))

const processes = repetitions(40, 300)

/** The number of lines after which each process is killed. */
const lineCounts = FastCheck.sample(FastCheck.integer({ min: 2, max: 150 }), { numRuns: processes, seed: 1 })

it.scopedLive(
  `${processes} processes that are killed while they write lose no record that was stored, and issue no event id twice`,
  () =>
    Effect.gen(function* () {
      const folder = yield* makeMemoryFolder
      const trial = { path: join(folder, "trial.db"), expected: [], removed: [], times: 3 }
      const script = yield* bundle(writer, `${JSON.stringify(trial)}\n`)
      const path = join(folder, "sessions.db")
      const allCreated = new Set<string>()
      const allRemoved = new Set<string>()
      const issued: Array<string> = []

      // Two processes start while another writes.
      const starting = [yield* spawnNode(script), yield* spawnNode(script)]
      let [expected, removed]: [Array<string>, Array<string>] = [[], []]
      for (const lines of lineCounts) {
        starting.push(yield* spawnNode(script))
        const child = starting.shift()
        if (child === undefined) break
        yield* child.write(`${JSON.stringify({ path, expected, removed })}\n`)
        yield* child.until(() => child.stdout().length >= lines || child.exited() !== undefined)
        yield* child.signal("SIGKILL")
        const { signal } = yield* child.exit
        expect({ signal, stderr: child.stderr() }).toEqual({ signal: "SIGKILL", stderr: [] })

        const printed = child.stdout().filter((line) => line.endsWith("."))
        const all = (kind: string) =>
          printed.filter((line) => line.startsWith(`${kind} `)).map((line) => line.slice(kind.length + 1, -1))
        expect(all("lost")).toEqual([])
        expect(all("restored")).toEqual([])
        expect(all("opened").length).toBe(1)
        // A process may be killed after it removed a record and before it printed that.
        expected = all("created").filter((id) => !id.startsWith("0"))
        removed = all("removed")
        for (const id of expected) allCreated.add(id)
        for (const id of removed) allRemoved.add(id)
        issued.push(...all("issued"))
      }

      const records = yield* Effect.provide(
        Effect.flatMap(SessionStore, ({ list }) => list),
        Sqlite.layer({ path })
      )
      const ids = new Set(records.map(({ id }) => id))
      expect(Array.from(allCreated).filter((id) => !ids.has(id))).toEqual([])
      expect(Array.from(allRemoved).filter((id) => ids.has(id))).toEqual([])
      expect(allCreated.size).toBeGreaterThan(1_000)
      expect(allRemoved.size).toBeGreaterThan(50)
      expect(new Set(issued).size).toBe(issued.length)
    }),
  repetitions(180_000, 900_000)
)

it.scoped("layerConfig reads its options from a Config", () =>
  Effect.gen(function* () {
    const path = join(yield* makeMemoryFolder, "configured.db")
    const layer = Sqlite.layerConfig({ path: Config.string("FILE"), maxEvents: Config.integer("EVENTS") })
    const opened = (values: Readonly<Record<string, string>>) =>
      Effect.all([EventTracker, SessionStore]).pipe(
        Effect.map(([{ options }, { isDurable }]) => [options.maxEvents, isDurable]),
        Effect.provide(layer),
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(values))))
      )
    expect(yield* opened({ FILE: path, EVENTS: "5" })).toEqual([5, true])
    expect(existsSync(path)).toBe(true)
    expect(yield* Effect.flip(opened({ EVENTS: "5" }))).toMatchObject({ _op: "MissingData" })
  })
)
