/**
 * Decides the era and the kind of every client request. The order of the rules matters: some clients send keys of
 * 2026-07-28 in the requests of legacy sessions.
 */
import * as Either from "effect/Either"
import type { Headers } from "../internal/headers.js"
import { BadRequest } from "../ProxyError.js"
import type { Body } from "./JsonRpc.js"
import { isInitialize } from "./Messages.js"
import { isModernRevision, legacyRevisions, modernClaim, PROTOCOL_VERSION, SESSION_ID } from "./Revision.js"

export type RequestClass =
  /** A POST of 2026-07-28 or later. The proxy relays it without a session, and the upstream validates it. */
  | { readonly type: "modern"; readonly revision: string | undefined }
  /** A legacy `initialize`, which opens a session. */
  | { readonly type: "initialize"; readonly revision: string | undefined }
  /** A legacy request with a session id. It needs the session, and then `checkRevision`. */
  | { readonly type: "inSession"; readonly sessionId: string; readonly revision: string | undefined }
  /** A legacy request that needs a session and has no session id. */
  | { readonly type: "noSession" }
  /** A request that is wrong in every session. */
  | { readonly type: "invalid"; readonly error: BadRequest }

/**
 * Classifies a request by its headers and its body; `undefined` stands for the absent body of a GET or DELETE. The
 * rules, in this order:
 *
 * 1. A version header of 2026-07-28 or later means modern, with any method and session id.
 * 2. `initialize` and requests with a session id are legacy, with any keys in `_meta`. `initialize` ignores the id.
 * 3. A `_meta` claim of 2026-07-28 or later means modern, with any version header.
 * 4. A version header with another unknown version means modern: the upstream rejects it.
 * 5. Everything else is legacy.
 *
 * `revision` is the value of the version header. Equal duplicates of a header count as one.
 */
export const classify = (
  headers: Headers,
  body: Either.Either<Body, BadRequest> | undefined
): RequestClass => {
  const revision = fieldValue(headers, PROTOCOL_VERSION)
  if (revision !== undefined && isModernRevision(revision)) return modern(revision, body)
  if (body !== undefined && Either.isRight(body) && isInitialize(body.right)) {
    return revision === undefined || legacyRevisions.includes(revision)
      ? { type: "initialize", revision }
      : invalid("UnknownRevision")
  }
  const sessionId = fieldValue(headers, SESSION_ID)
  if (sessionId !== undefined) {
    if (body !== undefined && Either.isLeft(body)) return { type: "invalid", error: body.left }
    return isVersion(revision) ? { type: "inSession", sessionId, revision } : invalid("UnknownRevision")
  }
  return withoutSession(revision, body)
}

/** Applies rules 3 to 5. */
const withoutSession = (
  revision: string | undefined,
  body: Either.Either<Body, BadRequest> | undefined
): RequestClass => {
  const parsed = body === undefined ? undefined : Either.getOrUndefined(body)
  if (modernClaim(parsed) !== undefined) return { type: "modern", revision }
  if (!isVersion(revision)) return invalid("UnknownRevision")
  if (revision !== undefined && !legacyRevisions.includes(revision)) return modern(revision, body)
  if (body !== undefined && Either.isLeft(body)) return { type: "invalid", error: body.left }
  return parsed !== undefined && parsed.messages.some(({ method }) => method === "initialize")
    ? invalid("InitializeInBatch")
    : { type: "noSession" }
}

/** Classifies a request with the version header of a modern or unknown revision, which use POST only. */
const modern = (revision: string, body: Either.Either<Body, BadRequest> | undefined): RequestClass => {
  if (body !== undefined) return { type: "modern", revision }
  return invalid(isModernRevision(revision) ? "PostOnly" : "UnknownRevision")
}

/** Checks the version header of a request against the negotiated revision. Returns an error if it does not fit. */
export const checkRevision = (revision: string | undefined, negotiated: string): BadRequest | undefined =>
  revision === undefined || revision === negotiated || legacyRevisions.includes(revision)
    ? undefined
    : new BadRequest({ reason: "UnknownRevision" })

const invalid = (reason: BadRequest["reason"]): RequestClass => ({
  type: "invalid",
  error: new BadRequest({ reason })
})

/** False if the version header is empty or has different values. A session may have negotiated any other text. */
const isVersion = (revision: string | undefined): boolean =>
  revision !== "" && revision?.includes(",") !== true

/** Returns the value of a header. Equal duplicates, "x, x", become one value; different ones stay a list. */
const fieldValue = (headers: Headers, name: string): string | undefined => {
  const field = headers[name]
  const value = typeof field === "object" ? field.join(",") : field
  if (value === undefined || !value.includes(",")) return value
  const [first, ...others] = value.split(",").map((part) => part.trim())
  return others.every((other) => other === first) ? first : value
}
