/** Resumes a stream that has broken at the upstream, as often as it breaks. */
import * as Effect from "effect/Effect"
import { backoff, isTransient } from "../internal/backoff.js"
import { hasType, type Headers } from "../internal/headers.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import type { UpstreamError } from "../ProxyError.js"
import type { TelemetryListener } from "../Telemetry.js"
import { type Abort, type Flow, nothingToAbort, type Sink } from "../Upstream.js"

/** A broken stream, as far as it has been read. */
export interface BrokenStream {
  /** The upstream's id of the last event; a standalone stream is resumed without one too. */
  readonly lastEventId: string | undefined
  /** The upstream's `retry:`, in milliseconds: how long it asks to wait before the next attempt. */
  readonly retryAfter: number | undefined
  /** The number of new events. Repeated events and comments do not count. */
  readonly progress: number
  /** True if no response is missing. */
  readonly isComplete: boolean
  /** False if the upstream session of the stream is lost. */
  readonly isResumable: boolean
  /** Starts to read on another connection, at the start of a frame. */
  readonly restart: (flow: Flow) => void
  readonly data: (chunk: Uint8Array) => void
  /** Requests the rest of the stream. */
  readonly requestRest: (sink: Sink) => Abort
}

/** How one attempt ended: with the last response, after new events, without any, or with a final refusal. */
type AttemptResult = "complete" | "progress" | "nothing" | "refused"

/** The longest `retry:` that is obeyed, in milliseconds. */
const MAX_RETRY = 300_000

/** How many attempts in a row may bring nothing new. */
const MAX_ATTEMPTS = 10

/** Succeeds with true if the stream is complete, with false if the upstream does not resume it. */
export const resumeStream = (stream: BrokenStream, telemetry: TelemetryListener): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    let failures = 0
    const next = Effect.suspend(() => backoff(failures, Math.min(stream.retryAfter ?? 0, MAX_RETRY))).pipe(
      Effect.flatMap(Effect.sleep),
      Effect.andThen(attempt(stream, telemetry)),
      Effect.tap((result) => {
        failures = result === "progress" ? 0 : failures + 1
      })
    )
    return Effect.repeat(next, {
      while: (result) => result === "progress" || (result === "nothing" && failures < MAX_ATTEMPTS)
    })
  }).pipe(Effect.map((result) => result === "complete"))

/** Errors that every further attempt would meet too. */
const final: ReadonlySet<UpstreamError["reason"]> = new Set(["Unsupported", "Redirected"])

const attempt = (stream: BrokenStream, telemetry: TelemetryListener): Effect.Effect<AttemptResult> =>
  Effect.async<AttemptResult>((resume) => {
    if (!stream.isResumable) return resume(Effect.succeed("refused"))
    let isOpen = false
    let isOver = false
    const before = stream.progress
    let abort: Abort = nothingToAbort
    const finish = (result: AttemptResult) => {
      isOver = true
      abort()
      resume(Effect.succeed(result))
    }
    const broken = () => {
      if (stream.isComplete) finish("complete")
      else finish(stream.progress > before ? "progress" : "nothing")
    }
    abort = stream.requestRest({
      head: (status: number, headers: Headers, flow: Flow) => {
        // A server takes a while to notice a broken stream, and refuses a second one until then.
        if (isTransient(status)) return finish("nothing")
        if (status !== 200 || !hasType(headers, EVENT_STREAM)) return finish("refused")
        isOpen = true
        telemetry.streamResumed()
        stream.restart(flow)
      },
      data: (chunk) => {
        if (!isOpen) return
        stream.data(chunk)
        if (stream.isComplete) finish("complete")
      },
      end: broken,
      error: ({ reason }) => (final.has(reason) ? finish("refused") : broken())
    })
    if (isOver) abort()
    return Effect.sync(() => abort())
  })
