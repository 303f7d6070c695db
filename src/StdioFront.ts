/** What one client speaks to that has started this process: standard input and output. */
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
import { lineOf, LineSplitter } from "./internal/lines.js"
import { BadRequest, type ProxyError, toJsonRpc } from "./ProxyError.js"
import type { CloseReason } from "./Sessions/Session.js"
import { Sessions } from "./Sessions.js"
import type { LineWriter } from "./StdioFront/StdioResponse.js"
import { StdioClient } from "./StdioFront/StdioClient.js"
import type { Flow } from "./Upstream.js"
import { UpstreamPool } from "./UpstreamPool.js"

export interface StdioFrontOptions {
  /** Where the client writes to. Default: standard input. */
  readonly input: Readable
  /** Where it reads from. Default: standard output. */
  readonly output: Writable
  /** How many bytes a message of the client may have. Default: 4 MiB. */
  readonly maxBody: number
  /** How long the end waits for calls in flight when the client has closed its side. Default: 10 s. */
  readonly shutdownTimeout: Duration.DurationInput
}

export const defaults: StdioFrontOptions = {
  input: process.stdin,
  output: process.stdout,
  maxBody: 4 * 1024 * 1024,
  shutdownTimeout: Duration.seconds(10)
}

export class StdioFront extends Context.Tag("shadowcat/StdioFront")<
  StdioFront,
  {
    /**
     * Completes when the client has closed its side and its calls are answered, or its session has ended otherwise.
     * Fails when it sends what cannot be read on.
     */
    readonly ended: Effect.Effect<CloseReason, ProxyError>
  }
>() {}

/** How long the last lines may take to reach the client. */
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
    const output = new Lines(options.output, flow)
    const left = yield* Deferred.make<CloseReason, ProxyError>()
    const run = yield* FiberSet.makeRuntime<never>()
    yield* Effect.addFinalizer(() => output.flushed)
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const client = new StdioClient({ sessions, output, upstream: upstreams[0].name, run, flow })
        const lines = new LineSplitter(maxBody)
        const leave = () => Deferred.unsafeDone(left, Effect.succeed<CloseReason>("deleted"))
        const end = () => {
          const rest = lines.flush()
          if (rest !== undefined) client.receive(rest)
          client.finish(leave)
        }
        const read = (chunk: Buffer) => {
          if (lines.push(chunk, (line) => client.receive(line))) return
          const error = new BadRequest({ reason: "TooLarge" })
          output.write(lineOf(toJsonRpc(error, undefined)))
          Deferred.unsafeDone(left, Effect.fail(error))
        }
        input.on("data", read).on("end", end).on("error", end)
        // A client that reads no more has left.
        options.output.on("error", leave)
        return () => {
          input.off("data", read).off("end", end).off("error", end).pause()
          options.output.off("error", leave).on("error", () => {})
        }
      }),
      (stop) => Effect.sync(stop)
    )
    const answered = Effect.timeoutOption(sessions.idle, shutdownTimeout)
    return StdioFront.of({
      ended: Effect.raceFirst(
        Effect.tap(Deferred.await(left), () => answered),
        sessions.over
      )
    })
  })

/** Lines, written no faster than they are read. */
class Lines implements LineWriter {
  private readonly stopped = new Set<Flow>()

  constructor(
    private readonly stream: Writable,
    /** What is stopped when a line comes from nobody else. */
    private readonly input: Flow
  ) {}

  write(line: Buffer, flow = this.input): void {
    if (this.stream.write(line)) return
    if (this.stopped.size === 0) this.stream.once("drain", () => this.resume())
    this.stopped.add(flow)
    flow.pause()
  }

  readonly flushed: Effect.Effect<void> = Effect.async<void>((resume) => {
    if (!this.stream.writable || this.stream.writableLength === 0) return resume(Effect.void)
    this.stream.write("", () => resume(Effect.void))
  }).pipe(Effect.interruptible, Effect.timeoutOption(FLUSH_TIMEOUT), Effect.asVoid)

  private resume(): void {
    const flows = Array.from(this.stopped)
    this.stopped.clear()
    for (const flow of flows) flow.unpause()
  }
}

/** One client, on standard input and output, or on what the options name. */
export const layer = (
  options?: Partial<StdioFrontOptions>
): Layer.Layer<StdioFront, never, Sessions | UpstreamPool> =>
  Layer.scoped(StdioFront, make({ ...defaults, ...options }))

/** The same, with its options read from a `Config`. */
export const layerConfig = (
  options: Config.Config.Wrap<Partial<Omit<StdioFrontOptions, "input" | "output">>>
): Layer.Layer<StdioFront, ConfigError, Sessions | UpstreamPool> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
