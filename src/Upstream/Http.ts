/** An MCP server that is reached over Streamable HTTP. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { buildConnector, Client, type Dispatcher, Pool } from "undici"
import { first, type Headers, type MutableHeaders } from "../internal/headers.js"
import { toUpstream } from "./headers.js"
import { acquireReleaseLight } from "../internal/acquireReleaseLight.js"
import { isInitialize, SESSION_ID } from "../Protocol.js"
import { errorCode, UpstreamError } from "../ProxyError.js"
import {
  type Abort,
  endsUpstreamSession,
  type Flow,
  ignoreAnswer,
  type Lease,
  type LeaseOptions,
  type Request,
  type Sink,
  type Upstream
} from "../Upstream.js"
import { SinkDecorator } from "./SinkDecorator.js"

export interface HttpUpstreamOptions {
  /** The MCP endpoint, `http:` or `https:`, without credentials. */
  readonly url: URL
  /** Fields that every request to the upstream carries; they replace those of the client. Default: none. */
  readonly headers: Headers
  /** How long the head of an answer may take; zero for no limit. Default: 300 s. */
  readonly requestTimeout: Duration.DurationInput
  /** How long a connection may take to be made. Default: 10 s. */
  readonly connectTimeout: Duration.DurationInput
}

export const defaults: Omit<HttpUpstreamOptions, "url"> = {
  headers: {},
  requestTimeout: Duration.seconds(300),
  connectTimeout: Duration.seconds(10)
}

/** How long the upstream has to confirm the end of a session; the session's end does not depend on it. */
const END_TIMEOUT = Duration.seconds(5)

/** How many redirects in a row are followed. */
const MAX_REDIRECTS = 5

/**
 * An upstream whose connections are kept alive and shared by all its sessions, until the scope closes. They are
 * not bounded in number: with all of them held by calls, the client's response to a request of the server would
 * wait behind these calls for ever. What is bounded is the number of exchanges.
 */
export const make = (options: HttpUpstreamOptions): Effect.Effect<HttpUpstream, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new HttpUpstream(options)),
    (upstream) => Effect.promise(() => upstream.close())
  )

export class HttpUpstream implements Upstream {
  readonly name: string
  readonly headers: Headers
  readonly pool: Pool
  private readonly client: Client.Options

  constructor(readonly options: HttpUpstreamOptions) {
    this.name = shown(options.url)
    this.headers = Object.fromEntries(
      Object.entries(options.headers).map(([name, value]) => [name.toLowerCase(), value])
    )
    const timeout = Duration.toMillis(options.connectTimeout)
    this.client = {
      connect: buildConnector({
        timeout,
        // Where a host has several addresses, Node leaves one for the next after 250 ms and never comes back to it.
        autoSelectFamilyAttemptTimeout: Math.max(250, Math.ceil(timeout / 4))
      }),
      headersTimeout: Duration.toMillis(options.requestTimeout),
      // A stream may be silent for hours; an answer of another kind that stalls is ended by its exchange.
      bodyTimeout: 0
    }
    this.pool = new Pool(options.url.origin, { ...this.client, connections: null })
  }

  /** An exchange that belongs to no session. */
  exchange(request: Request, sink: Sink): Abort {
    return this.request(
      request.method,
      toUpstream(request.headers, undefined, this.headers),
      request.bytes,
      sink
    )
  }

  request(
    method: Dispatcher.HttpMethod,
    headers: MutableHeaders,
    bytes: Uint8Array | undefined,
    sink: Sink
  ): Abort {
    // A stream has a connection of its own: the shared pool would keep it open, idle, after the stream's end.
    const dispatcher = method === "GET" ? new Client(this.options.url.origin, this.client) : this.pool
    return new HttpExchange(this, dispatcher, method, headers, bytes ?? null, sink).start()
  }

  /** The lease of one client session. Its release ends the upstream's session, within a bounded time. */
  lease(options: LeaseOptions): Effect.Effect<Lease, never, Scope.Scope> {
    return acquireReleaseLight(
      Effect.sync(() => new HttpLease(this, options)),
      (lease, exit) => (endsUpstreamSession(exit) ? lease.end() : Effect.void)
    )
  }

  close(): Promise<void> {
    return this.pool.destroy()
  }

  error(reason: UpstreamError["reason"], detail?: string): UpstreamError {
    return new UpstreamError({ reason, upstream: this.name, detail })
  }
}

class HttpLease implements Lease {
  readonly name: string
  private id: string | undefined

  constructor(
    private readonly upstream: HttpUpstream,
    private readonly options: LeaseOptions
  ) {
    this.name = upstream.name
    this.id = options.sessionId
  }

  sessionId() {
    return this.id
  }

  exchange(request: Request, sink: Sink): Abort {
    return this.upstream.request(
      request.method,
      toUpstream(request.headers, this.id, this.upstream.headers),
      request.bytes,
      request.body !== undefined && isInitialize(request.body) ? new SessionIdReader(this, sink) : sink
    )
  }

  /** Only the head of the answer to `initialize` names the session (Transports, "Session Management"). */
  opened(headers: Headers) {
    this.id ??= first(headers, SESSION_ID)
  }

  /** Ends the upstream session with a DELETE, if the upstream issued an id. Waits 5 s at most. */
  end(): Effect.Effect<void> {
    return Effect.suspend(() => (this.id === undefined ? Effect.void : this.sendDelete()))
  }

  private sendDelete(): Effect.Effect<void> {
    return Effect.async<void>((resume) => {
      const done = () => resume(Effect.void)
      const headers = toUpstream(this.options.endHeaders(), this.id, this.upstream.headers)
      const sink: Sink = { ...ignoreAnswer, end: done, error: done }
      return Effect.sync(this.upstream.request("DELETE", headers, undefined, sink))
    }).pipe(Effect.interruptible, Effect.timeoutOption(END_TIMEOUT), Effect.asVoid)
  }
}

/** Reads the session id from the answer to `initialize`. */
class SessionIdReader extends SinkDecorator {
  constructor(
    private readonly lease: HttpLease,
    next: Sink
  ) {
    super(next)
  }

  override head(status: number, headers: Headers, flow: Flow) {
    if (status < 300) this.lease.opened(headers)
    super.head(status, headers, flow)
  }
}

/** One request on its way, through redirects, and its answer on the way back. */
class HttpExchange {
  private hop: Hop | undefined
  private redirectsLeft = MAX_REDIRECTS

  constructor(
    private readonly upstream: HttpUpstream,
    private readonly dispatcher: Dispatcher,
    private readonly method: Dispatcher.HttpMethod,
    private readonly headers: MutableHeaders,
    private readonly body: Uint8Array | null,
    readonly sink: Sink
  ) {}

  start(): Abort {
    const { pathname, search } = this.upstream.options.url
    this.dispatch(pathname + search)
    return () => {
      this.hop?.abort()
      this.release()
    }
  }

  /** A redirect within the origin keeps method and body (RFC 9110, 15.4.8); any other leads past the proxy. */
  redirect(status: number, location: string) {
    this.hop?.abort()
    const { href, origin } = this.upstream.options.url
    const target = URL.canParse(location, href) ? new URL(location, href) : undefined
    const keepsMethod = status === 307 || status === 308
    if (keepsMethod && target?.origin === origin && this.redirectsLeft-- > 0) {
      return this.dispatch(target.pathname + target.search)
    }
    this.fail("Redirected", target && shown(target))
  }

  end() {
    this.release()
    this.sink.end()
  }

  fail(reason: UpstreamError["reason"], detail: string | undefined) {
    this.release()
    this.sink.error(this.upstream.error(reason, detail))
  }

  /** The connection of a stream goes with it. */
  private release() {
    if (this.dispatcher !== this.upstream.pool) void this.dispatcher.destroy()
  }

  private dispatch(path: string) {
    this.hop = new Hop(this)
    this.dispatcher.dispatch({ path, method: this.method, headers: this.headers, body: this.body }, this.hop)
  }
}

/** One request as undici carries it out; redirects make several. */
class Hop implements Dispatcher.DispatchHandler, Flow {
  private controller: Dispatcher.DispatchController | undefined
  private isOver = false

  constructor(private readonly exchange: HttpExchange) {}

  abort() {
    if (this.isOver) return
    this.isOver = true
    this.controller?.abort(aborted)
  }

  pause() {
    this.controller?.pause()
  }

  unpause() {
    this.controller?.resume()
  }

  onRequestStart(controller: Dispatcher.DispatchController) {
    this.controller = controller
    // While the request waited for a connection there was no controller to abort.
    if (this.isOver) controller.abort(aborted)
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: Headers) {
    if (status < 200 || this.isOver) return
    const location = status >= 300 && status < 400 ? first(headers, "location") : undefined
    if (location === undefined) this.exchange.sink.head(status, headers, this)
    else this.exchange.redirect(status, location)
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Uint8Array) {
    if (!this.isOver) this.exchange.sink.data(chunk)
  }

  onResponseEnd() {
    if (this.isOver) return
    this.isOver = true
    this.exchange.end()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error) {
    if (this.isOver) return
    this.isOver = true
    this.exchange.fail(this.reasonOf(error), errorCode(error))
  }

  private reasonOf(error: Error): UpstreamError["reason"] {
    switch (errorCode(error)) {
      case "UND_ERR_CONNECT_TIMEOUT":
        return "ConnectTimeout"
      case "ETIMEDOUT":
        // The system also gives up a connection that a request is on.
        return this.controller === undefined ? "ConnectTimeout" : "Closed"
      case "UND_ERR_HEADERS_TIMEOUT":
        return "ResponseTimeout"
      case "UND_ERR_INVALID_ARG":
        return "Unsupported"
      default:
        // What fails before the request is on a connection is the connection, or its TLS.
        return this.controller === undefined ? "Unreachable" : "Closed"
    }
  }
}

/** An address as it may be told: neither its query nor what may be a key in its path. */
const shown = ({ origin, pathname }: URL): string => origin + pathname.replaceAll(/[^/]{17,}/g, "…")

const aborted = new Error("aborted")
