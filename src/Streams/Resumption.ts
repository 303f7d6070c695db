/** Resumes a broken stream at the upstream, each time that it breaks. */
import * as Effect from "effect/Effect"
import { backoff, isTransient } from "../internal/backoff.js"
import { hasType, type Headers } from "../internal/headers.js"
import { EVENT_STREAM } from "../Protocol/SseFrames.js"
import type { UpstreamError } from "../ProxyError.js"
import type { TelemetryListener } from "../Telemetry.js"
import { type Abort, type Flow, nothingToAbort, type Sink } from "../Upstream.js"

/** A broken stream and the position up to which it has been read. */
export interface BrokenStream {
  /** The upstream's id of the last event. Only a standalone stream is resumed without one. */
  readonly lastEventId: string | undefined
  /** The minimum delay before the next attempt, from the upstream's `retry:` field, in milliseconds. */
  readonly retryAfter: number | undefined
  /** The number of new events. Repeated events and comments do not count. */
  readonly progress: number
  /** True if no response is missing. */
  readonly isComplete: boolean
  /** False if the upstream session of the stream is lost. */
  readonly isResumable: boolean
  /** Starts to read from another connection, at the start of a frame. */
  readonly restart: (flow: Flow) => void
  readonly data: (chunk: Uint8Array) => void
  /** Requests the rest of the stream. */
  readonly requestRest: (sink: Sink) => Abort
}

/** The result of one attempt: the last response, some new events, no new event, or a final refusal. */
type AttemptResult = "complete" | "progress" | "nothing" | "refused"

/** The maximum delay that a `retry:` field can set, in milliseconds. */
const MAX_RETRY = 300_000

/** The maximum number of consecutive attempts without a new event. */
const MAX_ATTEMPTS = 10

/** Resumes a stream. Succeeds with true if it is complete, and with false if the upstream does not resume it. */
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

/** The errors after which another attempt cannot succeed. */
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
        // A server may notice a broken stream late. Until then it refuses to resume the stream.
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
