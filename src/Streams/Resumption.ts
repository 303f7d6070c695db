/** Goes on with a stream that has broken at the upstream, as often as it breaks. */
import * as Effect from "effect/Effect"
import { backoff, isTransient } from "../internal/backoff.js"
import { hasType, type Headers } from "../internal/headers.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import type { UpstreamError } from "../ProxyError.js"
import type { TelemetryListener } from "../Telemetry.js"
import type { Abort, Flow, Lease } from "../Upstream.js"

/** A stream of the upstream's, as far as it has come. */
export interface Broken {
  /** The id of the last event; a standalone stream goes on without one too. */
  readonly lastEventId: string | undefined
  /** How long the upstream wants to be left alone, in milliseconds. */
  readonly retryAfter: number | undefined
  /** How much has come that was new: what is repeated, and a comment, bring a stream no further. */
  readonly progress: number
  /** Whether nothing more is awaited. */
  readonly isComplete: boolean
  /** It goes on: what comes now begins with a whole frame. */
  readonly restarted: (flow: Flow) => void
  readonly data: (chunk: Uint8Array) => void
}

/** What can be asked to go on. */
export type Resumable = Pick<Lease, "resume">

/** What became of one attempt: nothing more is awaited, it broke again, or the upstream will not go on. */
type Attempt = "complete" | "progress" | "none" | "refused"

/** The longest that an upstream is left alone because it asks for it. */
const LONGEST_RETRY = 300_000

/** How many attempts in a row may bring nothing. */
const MAX_ATTEMPTS = 10

/** Succeeds with whether the stream is complete; else nobody can say how it would have gone on. */
export const resume = (
  lease: Resumable,
  broken: Broken,
  telemetry: TelemetryListener
): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    let failures = 0
    const attempt = Effect.suspend(() =>
      backoff(failures, Math.min(broken.retryAfter ?? 0, LONGEST_RETRY))
    ).pipe(
      Effect.flatMap(Effect.sleep),
      Effect.andThen(once(lease, broken, telemetry)),
      Effect.tap((attempt) => {
        failures = attempt === "progress" ? 0 : failures + 1
      })
    )
    return Effect.repeat(attempt, {
      while: (attempt) => attempt === "progress" || (attempt === "none" && failures < MAX_ATTEMPTS)
    })
  }).pipe(Effect.map((attempt) => attempt === "complete"))

/** What the next attempt would meet too: a request that cannot be asked, and one that is sent elsewhere. */
const hopeless: ReadonlySet<UpstreamError["reason"]> = new Set(["Unsupported", "Redirected"])

const once = (lease: Resumable, broken: Broken, telemetry: TelemetryListener): Effect.Effect<Attempt> =>
  Effect.async<Attempt>((done) => {
    let isOpen = false
    let isFinished = false
    const before = broken.progress
    let abort: Abort = () => {}
    const finish = (attempt: Attempt) => {
      isFinished = true
      abort()
      done(Effect.succeed(attempt))
    }
    const ended = () => {
      if (broken.isComplete) finish("complete")
      else finish(broken.progress > before ? "progress" : "none")
    }
    abort = lease.resume(broken.lastEventId, {
      head: (status: number, headers: Headers, flow: Flow) => {
        // It takes a server a while to see that a stream has broken: until then another of the kind is one too many.
        if (isTransient(status)) return finish("none")
        if (status !== 200 || !hasType(headers, EVENT_STREAM)) return finish("refused")
        isOpen = true
        telemetry.streamResumed()
        broken.restarted(flow)
      },
      data: (chunk) => {
        if (!isOpen) return
        broken.data(chunk)
        if (broken.isComplete) finish("complete")
      },
      end: ended,
      error: ({ reason }) => (hopeless.has(reason) ? finish("refused") : ended())
    })
    if (isFinished) abort()
    return Effect.sync(() => abort())
  })
