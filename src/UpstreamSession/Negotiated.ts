/** What a client and its server have agreed on: another session of that server has to be told, and to agree too. */
import * as Either from "effect/Either"
import { hasProperty, isRecord, isString } from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { Message } from "../Protocol.js"

/** How many subscriptions are remembered, and how long the address of one may be, in characters. */
const MAX_SUBSCRIPTIONS = 1_000
const MAX_URI = 2_048

export class Negotiated {
  /** Most clients subscribe to nothing. */
  private uris: Set<string> | undefined

  constructor(
    /** The parameters of the client's `initialize`, as JSON. */
    readonly initialize: string,
    /** The revision that the server chose. */
    readonly protocolVersion: string,
    /** What the server declared, as JSON. */
    readonly capabilities: string,
    /** The level of `logging/setLevel`. */
    public logLevel?: string,
    subscriptions: ReadonlyArray<string> = []
  ) {
    if (subscriptions.length > 0) this.uris = new Set(subscriptions)
  }

  /** The resources that the client has subscribed to. */
  get subscriptions(): ReadonlyArray<string> {
    return Array.from(this.uris ?? [])
  }

  /** Notes what a message of the client settles. True when it settles anything. */
  note({ method, params }: Message): boolean {
    if (method === "logging/setLevel" && hasProperty(params, "level") && isString(params.level)) {
      const isNew = params.level !== this.logLevel && levels.includes(params.level)
      if (isNew) this.logLevel = params.level
      return isNew
    }
    if (!hasProperty(params, "uri") || !isString(params.uri)) return false
    if (method === "resources/subscribe") {
      const uris = (this.uris ??= new Set())
      const isKept = params.uri.length <= MAX_URI && uris.size < MAX_SUBSCRIPTIONS && !uris.has(params.uri)
      if (isKept) uris.add(params.uri)
      return isKept
    }
    return method === "resources/unsubscribe" && this.uris?.delete(params.uri) === true
  }

  /** Whether the server declared a capability, such as `tools.listChanged`. */
  declares(...path: ReadonlyArray<string>): boolean {
    const declared = path.reduce<unknown>(
      (within, name) => (hasProperty(within, name) ? within[name] : undefined),
      parsed(this.capabilities)
    )
    return declared !== undefined && declared !== false
  }

  /** Whether a server that declares these capabilities has all that the client was told of. */
  holds(capabilities: unknown): boolean {
    return includes(capabilities, parsed(this.capabilities))
  }

  /** Whether the client wants to hear of a warning. */
  get wantsWarnings(): boolean {
    return this.logLevel === undefined || levels.indexOf(this.logLevel) <= levels.indexOf("warning")
  }
}

/** The levels of a log, the least first (2025-11-25, Logging, "Log Levels"). */
const levels: ReadonlyArray<string> = [
  "debug",
  "info",
  "notice",
  "warning",
  "error",
  "critical",
  "alert",
  "emergency"
]

const decode = Schema.decodeUnknownEither(Schema.parseJson())

const parsed = (json: string): unknown => Either.getOrElse(decode(json), () => undefined)

const includes = (all: unknown, part: unknown): boolean => {
  if (Array.isArray(part))
    return Array.isArray(all) && part.every((one) => all.some((other) => includes(other, one)))
  if (!isRecord(part)) return part === false || all === part
  return isRecord(all) && Object.entries(part).every(([name, value]) => includes(all[name], value))
}
