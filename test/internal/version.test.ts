import { expect, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { version } from "../../src/internal/version.js"

it("version equals that of package.json", () => {
  const json: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"))
  expect(json).toMatchObject({ version })
})
