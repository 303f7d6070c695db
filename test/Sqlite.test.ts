import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { SessionStore } from "../src/SessionStore.js"
import * as Sqlite from "../src/Sqlite.js"
import { bundle } from "./fixtures/bundle.js"
import { spawnNode } from "./fixtures/Child.js"
import { makeMemoryFolder } from "./fixtures/sqlite.js"

const writer = fileURLToPath(new URL("fixtures/sqliteWriter.ts", import.meta.url))

/** After how many lines each process is killed. */
const lives = FastCheck.sample(FastCheck.integer({ min: 2, max: 150 }), { numRuns: 100, seed: 1 })

it.scopedLive(
  "a hundred processes killed while they write lose nothing that they said they had stored, and give no event id twice",
  () =>
    Effect.gen(function* () {
      const folder = yield* makeMemoryFolder
      const trial = { path: join(folder, "trial.db"), expected: [], gone: [], times: 3 }
      const script = yield* bundle(writer, folder, `${JSON.stringify(trial)}\n`)
      const path = join(folder, "sessions.db")
      const created = new Set<string>()
      const removed = new Set<string>()
      const issued: Array<string> = []

      // Two start while one writes.
      const starting = [yield* spawnNode(script), yield* spawnNode(script)]
      let [expected, gone]: [Array<string>, Array<string>] = [[], []]
      for (const lines of lives) {
        starting.push(yield* spawnNode(script))
        const child = starting.shift()
        if (child === undefined) break
        yield* child.write(`${JSON.stringify({ path, expected, gone })}\n`)
        yield* child.until(() => child.stdout().length >= lines || child.exited() !== undefined)
        yield* child.signal("SIGKILL")
        const { signal } = yield* child.exit
        expect({ signal, stderr: child.stderr() }).toEqual({ signal: "SIGKILL", stderr: [] })

        const said = child.stdout().filter((line) => line.endsWith("."))
        const all = (kind: string) =>
          said.filter((line) => line.startsWith(`${kind} `)).map((line) => line.slice(kind.length + 1, -1))
        expect(all("lost")).toEqual([])
        expect(all("back")).toEqual([])
        expect(all("opened").length).toBe(1)
        // What it removes may be gone before it says so.
        expected = all("created").filter((id) => !id.startsWith("0"))
        gone = all("removed")
        for (const id of expected) created.add(id)
        for (const id of gone) removed.add(id)
        issued.push(...all("issued"))
      }

      const records = yield* Effect.provide(
        Effect.flatMap(SessionStore, ({ list }) => list),
        Sqlite.layer({ path })
      )
      const ids = new Set(records.map(({ id }) => id))
      expect(Array.from(created).filter((id) => !ids.has(id))).toEqual([])
      expect(Array.from(removed).filter((id) => ids.has(id))).toEqual([])
      expect(created.size).toBeGreaterThan(1_000)
      expect(removed.size).toBeGreaterThan(50)
      expect(new Set(issued).size).toBe(issued.length)
    }),
  180_000
)
