/** The result of the negotiation between a client and its server. A replacement session must satisfy it. */
import * as Either from "effect/Either"
import { hasProperty, isRecord, isString } from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { Message } from "../Protocol.js"

/** The maximum number of stored subscriptions. */
const MAX_SUBSCRIPTIONS = 1_000

/** The maximum length of the URI of a stored subscription, in characters. */
const MAX_URI = 2_048

export class Negotiated {
  /** Created with the first subscription, because most clients have none. */
  private uris: Set<string> | undefined

  constructor(
    /** The parameters of the client's `initialize`, as JSON. */
    readonly initialize: string,
    /** The revision that the server chose. */
    readonly protocolVersion: string,
    /** The capabilities that the server declared, as JSON. */
    readonly capabilities: string,
    /** The level that `logging/setLevel` set. */
    public logLevel?: string,
    subscriptions: ReadonlyArray<string> = []
  ) {
    if (subscriptions.length > 0) this.uris = new Set(subscriptions)
  }

  /** The resources that the client has subscribed to. */
  get subscriptions(): ReadonlyArray<string> {
    return Array.from(this.uris ?? [])
  }

  /** Notes the log level or the subscription that a client's message changes. Returns true if there is a change. */
  note({ method, params }: Message): boolean {
    if (method === "logging/setLevel" && hasProperty(params, "level") && isString(params.level)) {
      const isNew = params.level !== this.logLevel && levels.includes(params.level)
      if (isNew) this.logLevel = params.level
      return isNew
    }
    if (!hasProperty(params, "uri") || !isString(params.uri)) return false
    if (method === "resources/subscribe") {
      const uris = (this.uris ??= new Set())
      const isNew = params.uri.length <= MAX_URI && uris.size < MAX_SUBSCRIPTIONS && !uris.has(params.uri)
      if (isNew) uris.add(params.uri)
      return isNew
    }
    return method === "resources/unsubscribe" && this.uris?.delete(params.uri) === true
  }

  /** True if the server declared a capability, such as `tools.listChanged`. */
  declares(...path: ReadonlyArray<string>): boolean {
    const declared = path.reduce<unknown>(
      (parent, name) => (hasProperty(parent, name) ? parent[name] : undefined),
      parseJson(this.capabilities)
    )
    return declared !== undefined && declared !== false
  }

  /** True if these capabilities include all that the server declared to the client. */
  isSatisfiedBy(capabilities: unknown): boolean {
    return includes(capabilities, parseJson(this.capabilities))
  }

  /** True if the log level includes warnings. */
  get wantsWarnings(): boolean {
    return this.logLevel === undefined || levels.indexOf(this.logLevel) <= levels.indexOf("warning")
  }
}

/** The log levels, the least severe first (2025-11-25, Logging, "Log Levels"). */
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

const parseJson = (json: string): unknown => Either.getOrElse(decode(json), () => undefined)

const includes = (all: unknown, part: unknown): boolean => {
  if (Array.isArray(part))
    return Array.isArray(all) && part.every((one) => all.some((other) => includes(other, one)))
  if (!isRecord(part)) return part === false || all === part
  return isRecord(all) && Object.entries(part).every(([name, value]) => includes(all[name], value))
}
