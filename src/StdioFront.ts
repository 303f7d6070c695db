/** The stdio front: serves the one client that started this process, on standard input and output. */
import type { Readable, Writable } from "node:stream"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { MAX_BODY, SHUTDOWN_TIMEOUT } from "./internal/frontDefaults.js"
import { lineOf, LineSplitter } from "./internal/lines.js"
import { BadRequest, type ProxyError, toJsonRpc } from "./ProxyError.js"
import type { CloseReason } from "./Sessions/Session.js"
import { Sessions } from "./Sessions.js"
import type { LineWriter } from "./StdioFront/StdioResponse.js"
import { StdioClient } from "./StdioFront/StdioClient.js"
import type { Flow } from "./Upstream.js"
import { UpstreamPool } from "./UpstreamPool.js"

export interface StdioFrontOptions {
  /** The stream that the client writes to. Default: standard input. */
  readonly input: Readable
  /** The stream that the client reads from. Default: standard output. */
  readonly output: Writable
  /** The maximum size of a client message, in bytes. Default: 4 MiB. */
  readonly maxBody: number
  /** The maximum wait for calls in flight after the client closes its side. Default: 10 s. */
  readonly shutdownTimeout: Duration.DurationInput
}

export const defaults: StdioFrontOptions = {
  input: process.stdin,
  output: process.stdout,
  maxBody: MAX_BODY,
  shutdownTimeout: SHUTDOWN_TIMEOUT
}

export class StdioFront extends Context.Tag("shadowcat/StdioFront")<
  StdioFront,
  {
    /**
     * Completes when the client has closed its side and its calls are answered, or when its session has ended.
     * Fails if a message is larger than `maxBody`, because the rest of the input cannot be parsed.
     */
    readonly ended: Effect.Effect<CloseReason, ProxyError>
  }
>() {}

/** The maximum wait for the last lines to be written. */
const FLUSH_TIMEOUT = Duration.seconds(1)

/** Serves the client until the scope closes. */
export const make = (
  options: StdioFrontOptions
): Effect.Effect<StdioFront["Type"], never, Sessions | UpstreamPool | Scope.Scope> =>
  Effect.gen(function* () {
    const sessions = yield* Sessions
    const { upstreams } = yield* UpstreamPool
    const { input, maxBody, shutdownTimeout } = options
    const flow: Flow = { pause: () => input.pause(), unpause: () => input.resume() }
    const output = new BackpressuredWriter(options.output, flow)
    const inputEnded = yield* Deferred.make<CloseReason, ProxyError>()
    const run = yield* FiberSet.makeRuntime<never>()
    yield* Effect.addFinalizer(() => output.flushed)
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const client = new StdioClient({ sessions, output, upstream: upstreams[0].name, run, flow })
        const lines = new LineSplitter(maxBody)
        const endInput = () => Deferred.unsafeDone(inputEnded, Effect.succeed<CloseReason>("deleted"))
        const end = () => {
          const rest = lines.flush()
          if (rest !== undefined) client.receive(rest)
          client.finish(endInput)
        }
        const read = (chunk: Buffer) => {
          if (lines.push(chunk, (line) => client.receive(line))) return
          const error = new BadRequest({ reason: "TooLarge" })
          output.write(lineOf(toJsonRpc(error, undefined)))
          Deferred.unsafeDone(inputEnded, Effect.fail(error))
        }
        input.on("data", read).on("end", end).on("error", end)
        // A client that closes its reading side ends the session.
        options.output.on("error", endInput)
        return () => {
          input.off("data", read).off("end", end).off("error", end).pause()
          options.output.off("error", endInput).on("error", () => {})
        }
      }),
      (stop) => Effect.sync(stop)
    )
    const answered = Effect.timeoutOption(sessions.idle, shutdownTimeout)
    return StdioFront.of({
      ended: Effect.raceFirst(
        Effect.tap(Deferred.await(inputEnded), () => answered),
        sessions.over
      )
    })
  })

/** Writes lines, and pauses their source while the client does not read. */
class BackpressuredWriter implements LineWriter {
  private readonly paused = new Set<Flow>()

  constructor(
    private readonly stream: Writable,
    /** The flow to pause for lines that are not from the upstream. */
    private readonly input: Flow
  ) {}

  write(line: Buffer, flow = this.input): void {
    if (this.stream.write(line)) return
    if (this.paused.size === 0) this.stream.once("drain", () => this.unpause())
    this.paused.add(flow)
    flow.pause()
  }

  readonly flushed: Effect.Effect<void> = Effect.async<void>((resume) => {
    if (!this.stream.writable || this.stream.writableLength === 0) return resume(Effect.void)
    this.stream.write("", () => resume(Effect.void))
  }).pipe(Effect.interruptible, Effect.timeoutOption(FLUSH_TIMEOUT), Effect.asVoid)

  private unpause(): void {
    const flows = Array.from(this.paused)
    this.paused.clear()
    for (const flow of flows) flow.unpause()
  }
}

/** Provides the stdio front. Omitted options have their defaults. */
export const layer = (
  options?: Partial<StdioFrontOptions>
): Layer.Layer<StdioFront, never, Sessions | UpstreamPool> =>
  Layer.scoped(StdioFront, make({ ...defaults, ...options }))

/** Provides the stdio front, with options from a `Config`. */
export const layerConfig = (
  options: Config.Config.Wrap<Partial<Omit<StdioFrontOptions, "input" | "output">>>
): Layer.Layer<StdioFront, ConfigError, Sessions | UpstreamPool> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
