import { describe, expect, it } from "@effect/vitest"
import * as JSONSchema from "effect/JSONSchema"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import { withOptions } from "../../scripts/documentation/readme.js"
import { ClientOptions, clientTable, ForwardOptions, forwardTable } from "../../src/commands/options.js"
import { listOptions } from "../../src/commands/options/rows.js"
import { wrongOption } from "../../src/commands/usageErrors.js"
import * as EventTracker from "../../src/EventTracker.js"
import * as HttpFront from "../../src/HttpFront.js"
import * as Sessions from "../../src/Sessions.js"
import * as StdioFront from "../../src/StdioFront.js"
import * as Http from "../../src/Upstream/Http.js"
import * as Stdio from "../../src/Upstream/Stdio.js"

const all = [...listOptions(forwardTable), ...listOptions(clientTable)]

/** The options as a configuration file may hold them. */
const decode = (given: Readonly<Record<string, unknown>>) =>
  Schema.decodeUnknownSync(ForwardOptions)({
    ...Object.fromEntries(Object.keys(forwardTable).map((section) => [section, {}])),
    ...given
  })

describe("the options table", () => {
  it("has each name once", () => {
    const names = all.map(({ info }) => info.name)
    expect(names).toEqual(Array.from(new Set(names)))
  })

  it("is the table in README: run scripts/options after a change", () => {
    const readme = readFileSync("README.md", "utf8")
    expect(readme).toBe(withOptions(readme))
  })

  it("decodes to the defaults of the services if nothing is given", () => {
    const { events, front, sessions, upstream } = decode({})
    expect(HttpFront.defaults).toEqual(front)
    expect({ ...Http.defaults, ...Stdio.defaults }).toMatchObject(upstream)
    expect(EventTracker.defaults).toMatchObject(events)
    const { multiSession, recoverStdio, ...rest } = sessions
    expect(Sessions.defaults).toMatchObject(rest)
    expect({ multiSession, recoverStdio }).toEqual({ multiSession: false, recoverStdio: false })
  })

  it("has one default for both fronts", () => {
    const { maxBody, shutdownTimeout } = decode({}).front
    expect(StdioFront.defaults).toMatchObject({ maxBody, shutdownTimeout })
  })

  it.each(
    listOptions(forwardTable).flatMap(({ info, key, section }) =>
      info.kind === "repeated" || info.default === undefined || (info.kind === "single" && info.isProgramWide)
        ? []
        : [[info.name, section, key, info.default] as const]
    )
  )("--%s documents its default in the form that the option takes", (_, section, key, text) => {
    expect(decode({ [section]: { [key]: text } })).toEqual(decode({}))
  })

  it("takes numbers and booleans, which a configuration file may contain", () => {
    const { front, sessions } = decode({
      front: { maxBody: 1024, stallTimeout: 30, port: 0 },
      sessions: { maxSessions: 5, multiSession: true }
    })
    expect(front).toMatchObject({ maxBody: 1024, port: 0 })
    expect(front.stallTimeout).toEqual(decode({ front: { stallTimeout: "30s" } }).front.stallTimeout)
    expect(sessions).toMatchObject({ maxSessions: 5, multiSession: true })
  })

  it("has a JSON Schema", () => {
    expect(JSONSchema.make(ForwardOptions)).toMatchObject({ type: "object" })
    expect(JSONSchema.make(ClientOptions)).toMatchObject({ type: "object" })
  })
})

describe("the check for unknown options", () => {
  it.each(all.map(({ info }) => [info.name, info.kind] as const))("knows --%s", (name, kind) => {
    expect(wrongOption([`--${name}`])).toBe(kind === "switch" ? undefined : `--${name} needs a value`)
    expect(wrongOption([`--${name}s`])).toBe(`There is no option --${name}s`)
  })
})
