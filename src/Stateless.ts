/** The exchanges that belong to no session: those of 2026-07-28 and later, each of which stands alone. */
import { type Answer, Exchange, type Leave, type Owner } from "./Exchange.js"
import type { Deadlines } from "./internal/deadlines.js"
import type { Flight } from "./internal/flight.js"
import { LimitReached, type ProxyError, type UpstreamError } from "./ProxyError.js"
import type { Report } from "./Session.js"
import type { Request, Upstream } from "./Upstream.js"

export interface Options {
  /** How many exchanges there may be at once. */
  readonly maxStateless: number
  /** How many of them one client may have: as many as a session may. */
  readonly maxExchanges: number
}

export class Stateless implements Owner {
  readonly id = undefined
  /** Nothing is read for nobody: a client that leaves cancels. */
  readonly patience = 0
  private readonly clients = new Map<Exchange, string>()
  private readonly inFlight = new Map<string, number>()

  constructor(
    readonly upstream: Upstream,
    readonly deadlines: Deadlines,
    readonly flight: Flight,
    private readonly report: Report,
    private readonly options: Options
  ) {}

  get size(): number {
    return this.clients.size
  }

  /** Relays a request. The answer is told everything that comes of it, refusals too. */
  exchange(request: Request, client: string, answer: Answer): Leave {
    const reached = this.check(client)
    if (reached !== undefined) {
      answer.error(reached)
      return () => {}
    }
    const exchange = new Exchange(this, request, answer)
    this.clients.set(exchange, client)
    this.inFlight.set(client, this.of(client) + 1)
    exchange.relay(request)
    return () => exchange.leave()
  }

  cut(error: ProxyError): void {
    for (const exchange of this.clients.keys()) exchange.cut(error)
  }

  /** Nothing is to be cancelled: the connection is closed, and from 2026-07-28 on that is the cancel. */
  failed(_exchange: Exchange, error: UpstreamError): void {
    this.report(error, undefined)
  }

  settled(exchange: Exchange): void {
    const client = this.clients.get(exchange)
    if (client === undefined) return
    this.clients.delete(exchange)
    const left = this.of(client) - 1
    if (left > 0) this.inFlight.set(client, left)
    else this.inFlight.delete(client)
  }

  private check(client: string): LimitReached | undefined {
    const { maxExchanges, maxStateless } = this.options
    if (this.size >= maxStateless) return new LimitReached({ limit: "max-stateless", bound: maxStateless })
    if (this.of(client) >= maxExchanges)
      return new LimitReached({ limit: "max-exchanges", bound: maxExchanges })
    return undefined
  }

  private of(client: string): number {
    return this.inFlight.get(client) ?? 0
  }
}
