import { expect, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"

/** The modules of `src/`, from the highest layer to the lowest. A module imports only modules of lower layers. */
const layers: ReadonlyArray<ReadonlyArray<string>> = [
  ["main"],
  ["commands"],
  ["index", "testing"],
  ["ForwardProxy"],
  ["Admin"],
  ["HttpFront", "StdioFront"],
  ["Sessions"],
  ["Exchange"],
  ["Streams"],
  ["UpstreamSession"],
  ["ClientResponse"],
  ["Interceptor"],
  ["UpstreamPool"],
  ["Upstream"],
  ["Sqlite"],
  ["SessionStore", "EventTracker"],
  ["Telemetry"],
  ["Protocol"],
  ["ProxyError"],
  ["internal"]
]

/** Returns the modules of the highest layers, down to the layer of `module`. */
const downTo = (module: string) =>
  layers.slice(0, layers.findIndex((layer) => layer.includes(module)) + 1).flat()

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), "utf8")

it("every file and folder of src belongs to a layer", () => {
  const entries = readdirSync(new URL("../src", import.meta.url)).filter((name) => !/\.(md|json)$/.test(name))
  expect([...new Set(entries.map((name) => name.replace(/\.ts$/, "")))].toSorted()).toEqual(
    layers.flat().toSorted()
  )
})

it("lint denies imports of the same layer and of higher ones, and denies unlisted modules the sessions and above", () => {
  const regex = (denied: ReadonlyArray<string>) =>
    String.raw`^((effect|@effect/(platform|platform-node|cli))$|\.{1,2}/(.*/)?(${["scripts", "test", ...denied].join("|")})(/|\.js$))`
  const { overrides } = JSON.parse(read(".oxlintrc.json").replace(/^\s*\/\/.*$/gm, "")) as {
    readonly overrides: ReadonlyArray<{
      readonly files: ReadonlyArray<string>
      readonly rules: {
        readonly "no-restricted-imports": [string, { patterns: ReadonlyArray<{ regex: string }> }]
      }
    }>
  }
  expect(
    overrides.map(({ files, rules }) => [
      ...files,
      ...rules["no-restricted-imports"][1].patterns.map((one) => one.regex)
    ])
  ).toEqual([
    ["src/**/*.ts", regex(downTo("Sessions"))],
    ...layers
      .flat()
      .map((module) => [
        `src/${module}{.ts,/**/*.ts}`,
        regex(downTo(module).filter((name) => name !== module))
      ])
  ])
})

it("the table of src/README.md names every module, in the order of the layers", () => {
  const names = [...read("src/README.md").matchAll(/^\| (`.*?) \|/gm)].flatMap(([, cell = ""]) =>
    [...cell.matchAll(/`(\w+)(\.ts|\/)`/g)].map(([, name]) => name)
  )
  expect([...new Set(names)]).toEqual(layers.flat())
})
