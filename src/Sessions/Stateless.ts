/** The exchanges without a session, of 2026-07-28 and later. */
import type { ClientResponse, Disconnect } from "../ClientResponse.js"
import { Exchange, type ExchangeContext } from "../Exchange.js"
import { intercept, type Interceptor } from "../Interceptor.js"
import type { Deadlines } from "../internal/deadlines.js"
import type { InFlight } from "../internal/inFlight.js"
import { SlotSet } from "../internal/slotSet.js"
import { LimitReached, type ProxyError, type UpstreamError } from "../ProxyError.js"
import type { TelemetryListener } from "../Telemetry.js"
import type { Request, Sink, Upstream } from "../Upstream.js"
import { SinkDecorator } from "../Upstream/SinkDecorator.js"
import type { Report } from "./Session.js"

export interface StatelessDeps {
  readonly upstream: Upstream
  readonly interceptors: ReadonlyArray<Interceptor>
  readonly deadlines: Deadlines
  readonly inFlight: InFlight
  readonly telemetry: TelemetryListener
  readonly report: Report
  /** The silence on a stream after which a comment is sent, in milliseconds. */
  readonly keepAlive: number
  /** The maximum number of exchanges in flight. */
  readonly maxStateless: number
}

export class Stateless {
  private readonly exchanges = new SlotSet<Exchange>()
  private readonly upstream: Upstream
  private readonly context: ExchangeContext

  constructor(private readonly deps: StatelessDeps) {
    const { deadlines, inFlight, keepAlive, telemetry, upstream } = deps
    this.upstream = {
      name: upstream.name,
      exchange: (request, sink) => upstream.exchange(request, new FailureReporter(sink, deps.report))
    }
    this.context = {
      upstream: this.upstream,
      deadlines,
      inFlight,
      telemetry,
      keepAlive,
      sessionId: undefined,
      // A disconnect cancels the request, so no answer is read without a client.
      unreadTimeout: 0,
      streams: undefined,
      settled: (exchange) => this.exchanges.delete(exchange)
    }
  }

  /** The number of exchanges in flight. */
  get size(): number {
    return this.exchanges.size
  }

  /** The number of exchanges that are streams. */
  get streams(): number {
    return this.exchanges.count(({ isStream }) => isStream)
  }

  /** Relays a request of the client with this address. The response receives every outcome, including a refusal. */
  exchange(request: Request, client: string, response: ClientResponse): Disconnect {
    const exchange = new Exchange(this.contextFor(client), request, response)
    const { maxStateless } = this.deps
    if (this.size >= maxStateless) {
      exchange.refuse(new LimitReached({ limit: "max-stateless", bound: maxStateless }))
    } else {
      this.exchanges.add(exchange)
      exchange.start(request)
    }
    return () => exchange.disconnect()
  }

  /** Ends all exchanges with an error. */
  cut(error: ProxyError): void {
    for (const exchange of this.exchanges) exchange.cut(error)
  }

  private contextFor(client: string): ExchangeContext {
    const { interceptors } = this.deps
    if (interceptors.length === 0) return this.context
    return {
      ...this.context,
      upstream: intercept(interceptors, this.upstream, {
        session: undefined,
        client,
        upstream: this.upstream.name,
        era: "modern",
        revision: () => undefined
      })
    }
  }
}

/** Logs the error of an answer. */
class FailureReporter extends SinkDecorator {
  constructor(
    next: Sink,
    private readonly report: Report
  ) {
    super(next)
  }

  override error(error: UpstreamError): void {
    this.report(error, undefined)
    super.error(error)
  }
}
