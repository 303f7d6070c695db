import { describe, expect, it } from "@effect/vitest"
import * as Option from "effect/Option"
import {
  checkRevision,
  classify,
  legacyRevisions,
  parseBody,
  PROTOCOL_VERSION_META
} from "../../src/Protocol.js"
import type { ProxyError } from "../../src/ProxyError.js"
import { call, initialize, notification, responseTo } from "../fixtures/requests.js"

/** The revision of the known session. No published revision has this name. */
const NEGOTIATED = "2025-99-99"

const KNOWN = "known"

type Names = "nothing" | "no version" | "legacy" | "negotiated" | "unknown" | "modern"

/** The version headers, and the kind of revision that each of them names. */
const versions: ReadonlyArray<readonly [header: string | Array<string> | undefined, names: Names]> = [
  [undefined, "nothing"],
  ["", "no version"],
  ["2025-06-18, 2025-11-25", "no version"],
  ["2025-06-18, 2026-07-28", "no version"],
  ["2025-11-25,", "no version"],
  [["2025-06-18", "2025-11-25"], "no version"],
  ...legacyRevisions.map((revision) => [revision, "legacy"] as const),
  ["2025-11-25, 2025-11-25", "legacy"],
  ["2025-11-25,2025-11-25,2025-11-25", "legacy"],
  [["2025-11-25", "2025-11-25"], "legacy"],
  [NEGOTIATED, "negotiated"],
  [`${NEGOTIATED}, ${NEGOTIATED}`, "negotiated"],
  ["latest", "unknown"],
  ["2025-01-01", "unknown"],
  ["2026-7-28", "unknown"],
  ["2026-07-28", "modern"],
  ["2026-07-28, 2026-07-28", "modern"],
  ["2099-01-01", "modern"]
]

const sessions = ["none", "known", "unknown"] as const

const meta = (claim: unknown) => ({ _meta: { [PROTOCOL_VERSION_META]: claim } })

/** The params of a request, and whether they claim a modern revision. */
const claims: ReadonlyArray<readonly [params: object, isModern: boolean]> = [
  [{}, false],
  [{ _meta: {} }, false],
  [{ _meta: null }, false],
  [{ _meta: { "io.modelcontextprotocol/clientInfo": {} } }, false],
  [meta(""), false],
  [meta(null), false],
  [meta(20260728), false],
  [meta("2026-7-28"), false],
  [meta("latest"), false],
  [meta(["2026-07-28"]), false],
  [meta("2025-11-25"), false],
  [meta("2026-07-28"), true],
  [meta("2099-01-01"), true]
]

type Kind =
  | "initialize"
  | "request"
  | "notification"
  | "response"
  | "batch"
  | "initialize in batch"
  | "not JSON"

const bodies: Readonly<Record<Kind, (params: object) => string>> = {
  initialize: (params) => JSON.stringify({ ...initialize(), params }),
  request: (params) => JSON.stringify(call(1, "tools/list", params)),
  notification: (params) => JSON.stringify(notification("notifications/initialized", params)),
  response: (params) => JSON.stringify({ ...responseTo(1), params }),
  batch: (params) => JSON.stringify([call(1), call(2, "tools/list", params)]),
  "initialize in batch": (params) => JSON.stringify([{ ...initialize(), params }]),
  "not JSON": (params) => JSON.stringify(params).slice(1)
}

interface Case {
  /** The kind of a POST's body; `undefined` for GET and DELETE. */
  readonly body: Kind | undefined
  readonly session: (typeof sessions)[number]
  readonly names: Names
  readonly claimsModern: boolean
}

const isPost = ({ body }: Case) => body !== undefined
const is =
  (...kinds: ReadonlyArray<Names>) =>
  ({ names }: Case) =>
    kinds.includes(names)
const all =
  (...conditions: ReadonlyArray<(one: Case) => boolean>) =>
  (one: Case) =>
    conditions.every((condition) => condition(one))

/** The outcomes: of the first rule that applies. */
const rules: ReadonlyArray<readonly [applies: (one: Case) => boolean, outcome: string]> = [
  // 1. The version header names a modern revision.
  [all(is("modern"), isPost), "modern"],
  [is("modern"), "405"],
  // 2. `initialize`, or a session id.
  [all(({ body }) => body === "initialize", is("nothing", "legacy")), "opens a session"],
  [({ body }) => body === "initialize", "400 UnknownRevision"],
  [({ body, session }) => session !== "none" && body === "not JSON", "400 NotJson"],
  [all(({ session }) => session !== "none", is("no version")), "400 UnknownRevision"],
  [({ session }) => session === "unknown", "404"],
  [all(({ session }) => session === "known", is("nothing", "legacy", "negotiated")), "in session"],
  [({ session }) => session === "known", "400 UnknownRevision"],
  // 3. A modern claim.
  [({ claimsModern }) => claimsModern, "modern"],
  // 4. A version that is neither modern nor legacy.
  [is("no version"), "400 UnknownRevision"],
  [all(is("unknown", "negotiated"), isPost), "modern"],
  [is("unknown", "negotiated"), "400 UnknownRevision"],
  // 5. Everything else is legacy, and needs a session.
  [({ body }) => body === "not JSON", "400 NotJson"],
  [({ body }) => body === "initialize in batch", "400 InitializeInBatch"],
  [() => true, "400 MissingSessionId"]
]

const expected = (one: Case): string | undefined => rules.find(([applies]) => applies(one))?.[1]

type Header = string | Array<string> | undefined

/** The outcome of a request that the fronts derive from its class. */
const outcome = (id: Header, version: Header, body: string | undefined): string => {
  const headers = { "mcp-session-id": id, "mcp-protocol-version": version }
  const kind = classify(headers, body === undefined ? undefined : parseBody(Buffer.from(body)))
  switch (kind.type) {
    case "modern":
      return "modern"
    case "initialize":
      return "opens a session"
    case "noSession":
      return "400 MissingSessionId"
    case "invalid":
      return described(kind.error)
    case "inSession":
      return kind.sessionId === KNOWN
        ? Option.match(Option.fromNullable(checkRevision(kind.revision, NEGOTIATED)), {
            onNone: () => "in session",
            onSome: described
          })
        : "404"
  }
}

const described = (error: ProxyError & { readonly reason: string }): string =>
  error.status === 405 ? "405" : `${error.status} ${error.reason}`

const ids: Readonly<Record<Case["session"], ReadonlyArray<Header>>> = {
  none: [undefined],
  known: [KNOWN, `${KNOWN}, ${KNOWN}`, `${KNOWN},${KNOWN}`, [KNOWN, KNOWN]],
  unknown: ["other", "", `${KNOWN}, other`]
}

describe("classify follows the rules for every combination of session id, version header and claim", () => {
  const kinds: ReadonlyArray<Kind | undefined> = [
    undefined,
    "initialize",
    "request",
    "notification",
    "response",
    "batch",
    "initialize in batch",
    "not JSON"
  ]

  it.each(kinds)("of a request with the body: %s", (body) => {
    for (const session of sessions) {
      for (const [version, names] of versions) {
        for (const [params, isModern] of body === undefined ? claims.slice(0, 1) : claims) {
          const claimsModern = isModern && body !== "not JSON"
          const text = body === undefined ? undefined : bodies[body](params)
          for (const id of ids[session]) {
            expect({ id, version, text, outcome: outcome(id, version, text) }).toEqual({
              id,
              version,
              text,
              outcome: expected({ body, session, names, claimsModern })
            })
          }
        }
      }
    }
  })
})

describe("classify", () => {
  const parsed = parseBody(Buffer.from(JSON.stringify(call(1))))

  it("returns equal duplicates of the version header as one", () => {
    for (const version of ["2025-06-18, 2025-06-18", ["2025-06-18", "2025-06-18"]]) {
      const headers = { "mcp-protocol-version": version, "mcp-session-id": "a" }
      expect(classify(headers, parsed)).toEqual({
        type: "inSession",
        sessionId: "a",
        revision: "2025-06-18"
      })
    }
    expect(classify({ "mcp-protocol-version": "2026-07-28,2026-07-28" }, parsed)).toEqual({
      type: "modern",
      revision: "2026-07-28"
    })
  })

  it("leaves a header that contradicts a modern claim to the upstream", () => {
    const body = parseBody(Buffer.from(JSON.stringify(call(1, "tools/list", meta("2026-07-28")))))
    for (const version of ["2025-11-25", "2025-06-18, 2025-11-25", "", undefined]) {
      expect(classify({ "mcp-protocol-version": version }, body)).toEqual({
        type: "modern",
        revision: version
      })
    }
  })
})
