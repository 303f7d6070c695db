/** An upstream over Streamable HTTP. */
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
  /** Header fields of every request to the upstream. They replace the client's. Default: none. */
  readonly headers: Headers
  /** The maximum time until the head of an answer; 0 for no limit. Default: 300 s. */
  readonly requestTimeout: Duration.DurationInput
  /** The maximum time of a connection attempt. Default: 10 s. */
  readonly connectTimeout: Duration.DurationInput
}

export const defaults = {
  headers: {},
  requestTimeout: Duration.seconds(300),
  connectTimeout: Duration.seconds(10)
} satisfies Omit<HttpUpstreamOptions, "url">

/** The maximum wait for the response to the DELETE of a session. */
const END_TIMEOUT = Duration.seconds(5)

/** The maximum number of redirects of one request. */
const MAX_REDIRECTS = 5

/**
 * Makes an upstream whose sessions share keep-alive connections, until the scope closes. The number of connections has
 * no limit, because a call may need another connection for the client's response to a request of the server. The number
 * of exchanges is limited instead.
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
    this.name = withoutSecrets(options.url)
    this.headers = Object.fromEntries(
      Object.entries(options.headers).map(([name, value]) => [name.toLowerCase(), value])
    )
    const timeout = Duration.toMillis(options.connectTimeout)
    this.client = {
      connect: buildConnector({
        timeout,
        // By default, Node gives up each address of a host after 250 ms if the host has several.
        autoSelectFamilyAttemptTimeout: Math.max(250, Math.ceil(timeout / 4))
      }),
      headersTimeout: Duration.toMillis(options.requestTimeout),
      // A stream may be silent for hours. `Exchange` ends any other answer that stalls.
      bodyTimeout: 0
    }
    this.pool = new Pool(options.url.origin, { ...this.client, connections: null })
  }

  /** Sends a request without a session. */
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
    // A stream has its own connection, because the pool would keep the connection open after the end of the stream.
    const dispatcher = method === "GET" ? new Client(this.options.url.origin, this.client) : this.pool
    return new HttpExchange(this, dispatcher, method, headers, bytes ?? null, sink).start()
  }

  /** Leases the upstream for one client session. The release ends the upstream session and takes 5 s at most. */
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

  /** Reads the session id from the head of the answer to `initialize` (Transports, "Session Management"). */
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

/** One request with its redirects, and its answer. */
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

  /** Follows a redirect that keeps origin and method (RFC 9110, section 15.4.8). Fails for any other redirect. */
  redirect(status: number, location: string) {
    this.hop?.abort()
    const { href, origin } = this.upstream.options.url
    const target = URL.canParse(location, href) ? new URL(location, href) : undefined
    const keepsMethod = status === 307 || status === 308
    if (keepsMethod && target?.origin === origin && this.redirectsLeft-- > 0) {
      return this.dispatch(target.pathname + target.search)
    }
    this.fail("Redirected", target && withoutSecrets(target))
  }

  end() {
    this.release()
    this.sink.end()
  }

  fail(reason: UpstreamError["reason"], detail: string | undefined) {
    this.release()
    this.sink.error(this.upstream.error(reason, detail))
  }

  /** Closes the connection of a stream. */
  private release() {
    if (this.dispatcher !== this.upstream.pool) void this.dispatcher.destroy()
  }

  private dispatch(path: string) {
    this.hop = new Hop(this)
    this.dispatcher.dispatch({ path, method: this.method, headers: this.headers, body: this.body }, this.hop)
  }
}

/** One HTTP request. An exchange with redirects has several. */
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
    // The exchange was aborted while the request waited for a connection.
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
        // The system also reports this code for a connection that is in use.
        return this.controller === undefined ? "ConnectTimeout" : "Closed"
      case "UND_ERR_HEADERS_TIMEOUT":
        return "ResponseTimeout"
      case "UND_ERR_INVALID_ARG":
        return "Unsupported"
      default:
        // Before the request is sent, only the connection or its TLS handshake can fail.
        return this.controller === undefined ? "Unreachable" : "Closed"
    }
  }
}

/** Returns a URL without its query, and without long path segments, which may be keys. */
const withoutSecrets = ({ origin, pathname }: URL): string => origin + pathname.replaceAll(/[^/]{17,}/g, "…")

const aborted = new Error("aborted")
