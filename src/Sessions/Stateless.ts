/** The exchanges that belong to no session: those of 2026-07-28 and later, each of which stands alone. */
import { type ClientResponse, type Disconnect } from "../ClientResponse.js"
import { Exchange, type Owner } from "../Exchange.js"
import { SlotSet } from "../internal/slotSet.js"
import type { Deadlines } from "../internal/deadlines.js"
import type { InFlight } from "../internal/inFlight.js"
import { LimitReached, type ProxyError, type UpstreamError } from "../ProxyError.js"
import type { Report } from "./Session.js"
import type { TelemetryListener } from "../Telemetry.js"
import type { Abort, Request, Upstream } from "../Upstream.js"

export class Stateless implements Owner {
  readonly id = undefined
  /** Nothing is read for nobody: a client that leaves cancels. */
  readonly patience = 0
  /** Without a session there is nothing to come back to. */
  readonly resumable = undefined
  private readonly exchanges = new SlotSet<Exchange>()

  constructor(
    readonly upstream: Upstream,
    readonly deadlines: Deadlines,
    readonly inFlight: InFlight,
    readonly telemetry: TelemetryListener,
    private readonly report: Report,
    readonly keepAlive: number,
    /** How many exchanges there may be at once. */
    private readonly bound: number
  ) {}

  get size(): number {
    return this.exchanges.size
  }

  /** Relays a request. The answer is told everything that comes of it, refusals too. */
  exchange(request: Request, answer: ClientResponse): Disconnect {
    const exchange = new Exchange(this, request, answer)
    if (this.size >= this.bound) {
      exchange.refuse(new LimitReached({ limit: "max-stateless", bound: this.bound }))
    } else {
      this.exchanges.add(exchange)
      exchange.relay(request)
    }
    return () => exchange.leave()
  }

  /** How many of them are streams that a client holds open. */
  get streams(): number {
    return this.exchanges.count(({ isStream }) => isStream)
  }

  cut(error: ProxyError): void {
    for (const exchange of this.exchanges) exchange.cut(error)
  }

  /** Nothing is to be cancelled: the connection is closed, and from 2026-07-28 on that is the cancel. */
  failed(error: UpstreamError): void {
    this.report(error, undefined)
  }

  heard(): void {}

  resume(): Abort {
    return () => {}
  }

  settled(exchange: Exchange): void {
    this.exchanges.delete(exchange)
  }
}
