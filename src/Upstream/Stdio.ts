/** An MCP server that is a command: each session has a child process of its own, which ends with it. */
import type { ChildProcess } from "node:child_process"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as LogLevel from "effect/LogLevel"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import { accepted } from "../Protocol/Accept.js"
import { environmentOf } from "./Stdio/environment.js"
import { first } from "../internal/headers.js"
import * as ProcessGroup from "./Stdio/processGroup.js"
import { acquireReleaseLight } from "../internal/acquireReleaseLight.js"
import * as Watchdog from "./Stdio/watchdog.js"
import {
  type Body,
  hasBatches,
  isInitialize,
  type Message,
  namedRevision,
  parseMessages,
  PROTOCOL_VERSION,
  type RequestId,
  requestId,
  requestIds,
  unsupportedRevision
} from "../Protocol.js"
import { BadRequest, errorCode, LimitReached, toJsonRpc, UpstreamError } from "../ProxyError.js"
import type { Abort, Lease, Request, Sink, Upstream } from "../Upstream.js"
import { Child } from "./Stdio/Child.js"
import { MessageRouter } from "./Stdio/MessageRouter.js"
import { sendResponse } from "./Stdio/PendingResponse.js"
import { FlowGate } from "./Stdio/FlowGate.js"

export interface StdioUpstreamOptions {
  /** The command, looked up in PATH, and its arguments; no shell reads them. */
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** Variables that children find in their environment beside a short list of harmless ones. Default: none. */
  readonly env: Readonly<Record<string, string>>
  /** Whether they find all variables of this process there. Default: false. */
  readonly inheritEnv: boolean
  /** The folder that children start in. Default: that of this process. */
  readonly cwd: string | undefined
  /** How many children there may be at once. Default: 100. */
  readonly maxChildren: number
  /** How long a child may take to answer `initialize`. Default: 30 s. */
  readonly startTimeout: Duration.DurationInput
  /** How long to wait for the end of a child after its input has ended, and again after SIGTERM. Default: 5 s. */
  readonly killTimeout: Duration.DurationInput
  /** How many bytes a message of a child may have, and how many may wait for it to read them. Default: 16 MiB. */
  readonly maxMessage: number
  /** Whether the standard error of children is logged at debug, is that of this process, or goes nowhere. Default: log. */
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

/** A command of which each lease is a child of its own, until the scope closes; after that there are none. */
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
    // Its arguments may be secret.
    this.name = options.command
    this.env = environmentOf(process.env, options.inheritEnv, options.env)
  }

  /** How many children there are. */
  get children(): number {
    return this.taken
  }

  /** A request of 2026-07-28 or later: such a client comes back with `initialize`, if it can. */
  exchange({ body, headers }: Request, sink: Sink): Abort {
    const requested = namedRevision(first(headers, PROTOCOL_VERSION), body)
    sendResponse(sink, 400, JSON.stringify(unsupportedRevision(requestId(body), requested)))
    return () => {}
  }

  /** Starts a child, which is stopped when the scope closes, with all that it has started in its process group. */
  lease(): Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope> {
    return Effect.gen(this, function* () {
      yield* this.place
      const process = yield* this.start
      const note = yield* this.notes
      return yield* acquireReleaseLight(
        Effect.sync(() => new StdioLease(this, process, note)),
        (lease) => Effect.sync(() => lease.leave())
      )
    })
  }

  error(reason: UpstreamError["reason"], detail?: string): UpstreamError {
    return new UpstreamError({ reason, upstream: this.name, detail })
  }

  private get place(): Effect.Effect<void, LimitReached, Scope.Scope> {
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
      ({ cause }) => this.error("NotStarted", reasons[errorCode(cause) ?? ""] ?? String(cause))
    )
  }

  /** Logs at debug, in the name of the session that the lease is for; nothing where nothing would come of it. */
  private get notes(): Effect.Effect<Note> {
    return Effect.gen(function* () {
      const level = yield* FiberRef.get(FiberRef.currentMinimumLogLevel)
      if (LogLevel.greaterThan(level, LogLevel.Debug)) return ignore
      const runtime = yield* Effect.runtime()
      const note: Note = (message, annotations) =>
        void Runtime.runFork(runtime)(Effect.annotateLogs(Effect.logDebug(message), annotations))
      return note
    })
  }
}

/** Notes something for whoever looks for what is wrong with a child. */
type Note = (message: string, annotations: Readonly<Record<string, unknown>>) => void

const ignore: Note = () => {}

/** What the system's codes mean here. */
const reasons: Readonly<Record<string, string>> = {
  ENOENT: "there is no such command, or no such --cwd",
  EACCES: "it is not executable",
  ENOEXEC: "it is no program that this machine can run",
  ENOTDIR: "--cwd is no folder"
}

class StdioLease implements Lease {
  readonly name: string
  private readonly child: Child
  private readonly router: MessageRouter
  private revision: string | undefined
  private end: UpstreamError | undefined
  private listener: () => void = () => {}

  constructor(
    private readonly upstream: StdioUpstream,
    process: ChildProcess,
    private readonly note: Note
  ) {
    this.name = upstream.name
    const { maxMessage, stderr } = upstream.options
    this.child = new Child(process, maxMessage, {
      onLine: (line) => this.hear(line),
      onStderr: (line) => stderr === "log" && note("standard error", { line }),
      onClose: (why) => this.lose(why)
    })
    this.router = new MessageRouter(new FlowGate(this.child), (id) => this.refuse(id))
  }

  sessionId() {
    return undefined
  }

  negotiated(revision: string) {
    this.revision = revision
  }

  parting() {}

  identify() {}

  adopt() {}

  forget() {}

  onLost(listener: () => void) {
    this.listener = listener
    if (this.end !== undefined) listener()
  }

  exchange({ body, bytes, headers, method }: Request, sink: Sink): Abort {
    if (this.end !== undefined) return fail(sink, this.end)
    if (method === "GET") return this.router.openStream(sink)
    if (body === undefined || bytes === undefined) return fail(sink, this.upstream.error("NotAsked"))
    const wrong = this.wrongWith(body)
    if (wrong !== undefined) return refuse(sink, wrong, requestId(body))
    if (requestIds(body).length === 0) return this.pass(body, bytes, sink)
    const how = { accepted: accepted(first(headers, "accept")) }
    const abort = this.router.addRequests(
      body,
      isInitialize(body) ? { ...how, timeout: this.limit } : how,
      sink
    )
    this.write(body, bytes, () => {})
    return abort
  }

  send(message: Message, sink: Sink): Abort {
    return this.exchange(
      {
        method: "POST",
        headers: {},
        bytes: Buffer.from(JSON.stringify(message)),
        body: { isBatch: false, messages: [message] }
      },
      sink
    )
  }

  /** A child's output breaks only with the child. */
  resume(_lastEventId: string | undefined, sink: Sink): Abort {
    return fail(sink, this.upstream.error("NotAsked"))
  }

  /** The scope closes: what the child still says concerns nobody. */
  leave(): void {
    this.child.detach()
  }

  /** Notifications and responses are accepted once the child's pipe has taken them. */
  private pass(body: Body, bytes: Uint8Array, sink: Sink): Abort {
    let isOver = false
    this.write(body, bytes, (isTaken) => {
      if (isOver) return
      if (isTaken) sendResponse(sink, 202)
      else sink.error(this.end ?? this.upstream.error("Gone", "closed its standard input"))
    })
    return () => {
      isOver = true
    }
  }

  /** A batch becomes lines: not every server that speaks 2025-03-26 takes one. */
  private write(body: Body, bytes: Uint8Array, done: (isTaken: boolean) => void): void {
    if (!body.isBatch) return this.child.write(bytes, done)
    const [last, ...others] = body.messages
      .toReversed()
      .map((message) => Buffer.from(JSON.stringify(message)))
    for (const line of others.toReversed()) this.child.write(line, () => {})
    if (last !== undefined) this.child.write(last, done)
  }

  private get limit() {
    return {
      millis: Duration.toMillis(this.upstream.options.startTimeout),
      error: this.upstream.error("StartTimeout")
    }
  }

  private wrongWith(body: Body): BadRequest | LimitReached | undefined {
    if (this.isUnread)
      return new LimitReached({ limit: "max-message", bound: this.upstream.options.maxMessage })
    if (body.isBatch && !hasBatches(this.revision)) return new BadRequest({ reason: "NoBatches" })
    return this.router.hasIdConflict(body) ? new BadRequest({ reason: "IdTaken" }) : undefined
  }

  private hear(line: Buffer): void {
    const messages = parseMessages(line)
    if (messages.length === 0) this.note("a line that is no JSON-RPC was dropped", { bytes: line.length })
    // An array of messages is taken apart, for each may belong to another answer.
    const isOne = line[0] !== OPEN_BRACKET
    for (const message of messages) {
      const isHeard = this.router.route(message, isOne ? line : Buffer.from(JSON.stringify(message)))
      if (!isHeard) this.note("a response to no request was dropped", { bytes: line.length })
    }
  }

  /** Whether the child leaves unread what it is sent. */
  private get isUnread(): boolean {
    return this.child.unreadBytes > this.upstream.options.maxMessage
  }

  private refuse(id: RequestId): void {
    if (this.isUnread) return
    this.child.write(Buffer.from(toJsonRpc(this.upstream.error("NotAsked"), id)), () => {})
  }

  private lose(why: string): void {
    this.end = this.upstream.error("Gone", why)
    this.router.fail(this.end)
    this.listener()
  }
}

const OPEN_BRACKET = 0x5b

const fail = (sink: Sink, error: UpstreamError): Abort => {
  sink.error(error)
  return () => {}
}

const refuse = (sink: Sink, wrong: BadRequest | LimitReached, id: RequestId | undefined): Abort => {
  sendResponse(sink, wrong.status, toJsonRpc(wrong, id))
  return () => {}
}
