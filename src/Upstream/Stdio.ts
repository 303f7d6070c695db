/** An upstream that is a command. Each session has its own child process, which ends with the session. */
import type { ChildProcess } from "node:child_process"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as LogLevel from "effect/LogLevel"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import { acquireReleaseLight } from "../internal/acquireReleaseLight.js"
import { first } from "../internal/headers.js"
import { acceptedTypes } from "../Protocol/Accept.js"
import {
  type Body,
  hasBatches,
  isInitialize,
  parseMessages,
  PROTOCOL_VERSION,
  requestedRevision,
  type RequestId,
  requestId,
  requestIds,
  unsupportedRevision
} from "../Protocol.js"
import { BadRequest, errorCode, LimitReached, toJsonRpc, UpstreamError } from "../ProxyError.js"
import {
  type Abort,
  type Lease,
  type LeaseOptions,
  nothingToAbort,
  type Request,
  respond,
  type Sink,
  type Upstream
} from "../Upstream.js"
import { Child } from "./Stdio/Child.js"
import { environmentOf } from "./Stdio/environment.js"
import { FlowGate } from "./Stdio/FlowGate.js"
import { MessageRouter } from "./Stdio/MessageRouter.js"
import * as ProcessGroup from "./Stdio/processGroup.js"
import * as Watchdog from "./Stdio/watchdog.js"

export interface StdioUpstreamOptions {
  /** The command. It is searched in PATH and runs without a shell. */
  readonly command: string
  /** The arguments of the command. Default: none. */
  readonly args: ReadonlyArray<string>
  /** Environment variables of the children, in addition to the inherited ones. Default: none. */
  readonly env: Readonly<Record<string, string>>
  /** True if children inherit the whole environment, false for a few harmless variables. Default: false. */
  readonly inheritEnv: boolean
  /** The working directory of the children. Default: that of this process. */
  readonly cwd: string | undefined
  /** The maximum number of children. Default: 100. */
  readonly maxChildren: number
  /** The maximum time until a child answers `initialize`. Default: 30 s. */
  readonly startTimeout: Duration.DurationInput
  /** The maximum time until a child exits after its input ends, and again after SIGTERM. Default: 5 s. */
  readonly killTimeout: Duration.DurationInput
  /** The maximum size of a message of a child, and of the unread input of a child, in bytes. Default: 16 MiB. */
  readonly maxMessage: number
  /** `log` logs the standard error of children at debug level, `inherit` shares that of this process. Default: log. */
  readonly stderr: "log" | "inherit" | "ignore"
}

export const defaults: Omit<StdioUpstreamOptions, "command"> = {
  args: [],
  env: {},
  inheritEnv: false,
  cwd: undefined,
  maxChildren: 100,
  startTimeout: Duration.seconds(30),
  killTimeout: Duration.seconds(5),
  maxMessage: 16 * 1024 * 1024,
  stderr: "log"
}

/** Makes an upstream that starts one child for each lease. When the scope closes, the remaining children are killed. */
export const make = (options: StdioUpstreamOptions): Effect.Effect<StdioUpstream, never, Scope.Scope> =>
  Effect.map(Watchdog.make, (watchdog) => new StdioUpstream(options, watchdog))

export class StdioUpstream implements Upstream {
  readonly name: string
  private taken = 0
  private readonly env: Record<string, string>

  constructor(
    readonly options: StdioUpstreamOptions,
    private readonly watchdog: Watchdog.Watchdog
  ) {
    // The arguments may be secret.
    this.name = options.command
    this.env = environmentOf(process.env, options.inheritEnv, options.env)
  }

  /** The number of children. */
  get children(): number {
    return this.taken
  }

  /** Rejects a request of 2026-07-28 or later. The client may then fall back to `initialize`. */
  exchange({ body, headers }: Request, sink: Sink): Abort {
    const requested = requestedRevision(first(headers, PROTOCOL_VERSION), body)
    respond(sink, 400, JSON.stringify(unsupportedRevision(requestId(body), requested)))
    return nothingToAbort
  }

  /** Starts a child. When the scope closes, the child's whole process group is stopped. */
  lease(options: LeaseOptions): Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope> {
    return Effect.gen(this, function* () {
      yield* this.countedChild
      const process = yield* this.start
      const debug = yield* this.debugLog
      return yield* acquireReleaseLight(
        Effect.sync(() => new StdioLease(this, process, options, debug)),
        (lease) => Effect.sync(() => lease.detach())
      )
    })
  }

  error(reason: UpstreamError["reason"], detail?: string): UpstreamError {
    return new UpstreamError({ reason, upstream: this.name, detail })
  }

  /** Counts one more child until the scope closes. */
  private get countedChild(): Effect.Effect<void, LimitReached, Scope.Scope> {
    const { maxChildren } = this.options
    return acquireReleaseLight(
      Effect.suspend(() => {
        if (this.taken >= maxChildren) return new LimitReached({ limit: "max-children", bound: maxChildren })
        this.taken++
        return Effect.void
      }),
      () => Effect.sync(() => this.taken--)
    )
  }

  private get start(): Effect.Effect<ChildProcess, UpstreamError, Scope.Scope> {
    const { args, command, cwd, killTimeout, stderr } = this.options
    return Effect.mapError(
      ProcessGroup.start(
        {
          command,
          args,
          cwd,
          env: this.env,
          stderr: stderr === "inherit" ? "inherit" : "pipe",
          killTimeout: Duration.toMillis(killTimeout)
        },
        this.watchdog
      ),
      ({ cause }) => this.error("NotStarted", startFailures[errorCode(cause) ?? ""] ?? String(cause))
    )
  }

  /** Returns a function that logs at debug level, with the annotations of the current fiber. */
  private get debugLog(): Effect.Effect<DebugLog> {
    return Effect.gen(function* () {
      const level = yield* FiberRef.get(FiberRef.currentMinimumLogLevel)
      if (LogLevel.greaterThan(level, LogLevel.Debug)) return noLog
      const runtime = yield* Effect.runtime()
      const log: DebugLog = (message, annotations) =>
        void Runtime.runFork(runtime)(Effect.annotateLogs(Effect.logDebug(message), annotations))
      return log
    })
  }
}

type DebugLog = (message: string, annotations: Readonly<Record<string, unknown>>) => void

const noLog: DebugLog = () => {}

/** The messages for system error codes when a child is started. */
const startFailures: Readonly<Record<string, string>> = {
  ENOENT: "there is no such command, or no such --cwd",
  EACCES: "it is not executable",
  ENOEXEC: "this machine cannot execute it",
  ENOTDIR: "--cwd is not a directory"
}

class StdioLease implements Lease {
  readonly name: string
  private readonly child: Child
  private readonly router: MessageRouter
  /** The reason for the end of the child; `undefined` before that. */
  private exit: UpstreamError | undefined
  private exitListener: () => void = () => {}

  constructor(
    private readonly upstream: StdioUpstream,
    process: ChildProcess,
    private readonly options: LeaseOptions,
    private readonly debug: DebugLog
  ) {
    this.name = upstream.name
    const { maxMessage, stderr } = upstream.options
    this.child = new Child(process, maxMessage, {
      onLine: (line) => this.receive(line),
      onStderr: (line) => stderr === "log" && debug("child: standard error", { line }),
      onClose: (reason) => this.close(reason)
    })
    this.router = new MessageRouter(new FlowGate(this.child), (id) => this.rejectRequest(id))
  }

  /** Returns `undefined`, because a child issues no session id. */
  sessionId() {
    return undefined
  }

  onExit(listener: () => void) {
    this.exitListener = listener
    if (this.exit !== undefined) listener()
  }

  exchange({ body, bytes, headers, method }: Request, sink: Sink): Abort {
    if (this.exit !== undefined) return fail(sink, this.exit)
    if (method === "GET") return this.router.openStream(sink)
    if (body === undefined || bytes === undefined) return fail(sink, this.upstream.error("Unsupported"))
    const rejection = this.check(body)
    if (rejection !== undefined) {
      respond(sink, rejection.status, toJsonRpc(rejection, requestId(body)))
      return nothingToAbort
    }
    if (requestIds(body).length === 0) return this.pass(body, bytes, sink)
    const options = { accepted: acceptedTypes(first(headers, "accept")) }
    const abort = this.router.addRequests(
      body,
      isInitialize(body) ? { ...options, timeout: this.startTimeout } : options,
      sink
    )
    this.write(body, bytes, () => {})
    return abort
  }

  /** Ignores further output of the child. */
  detach(): void {
    this.child.detach()
  }

  /** Writes notifications and responses, and answers 202 when the child's pipe has taken them. */
  private pass(body: Body, bytes: Uint8Array, sink: Sink): Abort {
    let isOver = false
    this.write(body, bytes, (isTaken) => {
      if (isOver) return
      if (isTaken) respond(sink, 202)
      else sink.error(this.exit ?? this.upstream.error("Ended", "closed its standard input"))
    })
    return () => {
      isOver = true
    }
  }

  /** Writes a body. A batch becomes single lines, because not every server of 2025-03-26 accepts batches. */
  private write(body: Body, bytes: Uint8Array, done: (isTaken: boolean) => void): void {
    if (!body.isBatch) return this.child.write(bytes, done)
    const [last, ...others] = body.messages
      .toReversed()
      .map((message) => Buffer.from(JSON.stringify(message)))
    for (const line of others.toReversed()) this.child.write(line, () => {})
    if (last !== undefined) this.child.write(last, done)
  }

  private get startTimeout() {
    return {
      millis: Duration.toMillis(this.upstream.options.startTimeout),
      error: this.upstream.error("StartTimeout")
    }
  }

  /** Returns an error if the child cannot receive the body. */
  private check(body: Body): BadRequest | LimitReached | undefined {
    if (this.isInputFull)
      return new LimitReached({ limit: "max-message", bound: this.upstream.options.maxMessage })
    if (body.isBatch && !hasBatches(this.options.revision()))
      return new BadRequest({ reason: "BatchNotSupported" })
    return this.router.hasIdConflict(body) ? new BadRequest({ reason: "DuplicateRequestId" }) : undefined
  }

  private receive(line: Buffer): void {
    const messages = parseMessages(line)
    if (messages.length === 0)
      this.debug("child: dropped a line that is not JSON-RPC", { bytes: line.length })
    // The messages of an array may belong to different answers.
    const isSingle = line[0] !== OPEN_BRACKET
    for (const message of messages) {
      const isRouted = this.router.route(message, isSingle ? line : Buffer.from(JSON.stringify(message)))
      if (!isRouted) this.debug("child: dropped a response without a request", { bytes: line.length })
    }
  }

  /** True if the unread input of the child exceeds `maxMessage`. */
  private get isInputFull(): boolean {
    return this.child.unreadBytes > this.upstream.options.maxMessage
  }

  /** Answers a request of the child with an error, because no client can receive the request. */
  private rejectRequest(id: RequestId): void {
    if (this.isInputFull) return
    this.child.write(Buffer.from(toJsonRpc(this.upstream.error("Unsupported"), id)), () => {})
  }

  private close(reason: string): void {
    this.exit = this.upstream.error("Ended", reason)
    this.router.fail(this.exit)
    this.exitListener()
  }
}

const OPEN_BRACKET = 0x5b

const fail = (sink: Sink, error: UpstreamError): Abort => {
  sink.error(error)
  return nothingToAbort
}
