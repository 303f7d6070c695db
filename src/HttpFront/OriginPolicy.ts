/**
 * Who may speak to the proxy, and which browser pages may read its answers. A page of a foreign origin can reach
 * a server on this machine through a name that it rebinds (Transports, "Security Warning"), so both the Host and
 * the Origin of every request are checked.
 */
import type { IncomingHttpHeaders } from "node:http"
import { BadRequest } from "../ProxyError.js"
import type { MutableHeaders } from "../internal/headers.js"

export interface OriginPolicyOptions {
  /** The address that the proxy listens on. */
  readonly host: string
  /** Further hosts, each with any port unless it names one; `*` allows all. */
  readonly allowHosts: ReadonlyArray<string>
  /** Further origins, such as `https://app.example.com`; `*` allows all. */
  readonly allowOrigins: ReadonlyArray<string>
}

export class OriginPolicy {
  private readonly own: ReadonlySet<string>
  private readonly hosts: ReadonlySet<string>
  private readonly origins: ReadonlySet<string>
  /** Clients repeat themselves, and parsing a host costs more than all else that is looked at. */
  private readonly allowedHosts = new Set<string>()

  constructor({ allowHosts, allowOrigins, host }: OriginPolicyOptions) {
    this.own = new Set(["localhost", "127.0.0.1", "[::1]", hostOf(host.includes(":") ? `[${host}]` : host)])
    this.hosts = new Set([...this.own, ...allowHosts.map(hostOf)])
    this.origins = new Set(allowOrigins.map((origin) => origin.toLowerCase()))
  }

  /** What is wrong with a request's Host or Origin, if anything is. */
  check({ host, origin }: IncomingHttpHeaders): BadRequest | undefined {
    if (!this.allowsHost(host)) return new BadRequest({ reason: "HostNotAllowed" })
    if (origin !== undefined && !this.allowsOrigin(origin))
      return new BadRequest({ reason: "OriginNotAllowed" })
    return undefined
  }

  /** The CORS grants for a request that has passed the check; none for clients that are no browsers. */
  grants({ origin }: IncomingHttpHeaders): MutableHeaders | undefined {
    if (origin === undefined) return undefined
    return {
      "access-control-allow-origin": origin,
      "access-control-expose-headers": "Mcp-Session-Id, WWW-Authenticate"
    }
  }

  /** What answers the preflight of a request that has passed the check. */
  preflight(headers: IncomingHttpHeaders): MutableHeaders {
    return {
      ...this.grants(headers),
      "access-control-allow-methods": "GET, POST, DELETE",
      "access-control-allow-headers": headers["access-control-request-headers"] ?? "*",
      "access-control-max-age": "600"
    }
  }

  private allowsHost(host: string | undefined): boolean {
    if (host === undefined) return this.hosts.has("*")
    if (this.allowedHosts.has(host)) return true
    const url = parse(`http://${host}`)
    const isAllowed =
      this.hosts.has("*") ||
      (url?.href === `http://${url?.host}/` &&
        (this.hosts.has(url.hostname) || this.hosts.has(withPort(url))))
    if (isAllowed && this.allowedHosts.size < MAX_REMEMBERED) this.allowedHosts.add(host)
    return isAllowed
  }

  private allowsOrigin(origin: string): boolean {
    if (["*", origin.toLowerCase()].some((name) => this.origins.has(name))) return true
    const url = parse(origin)
    // A page that this machine itself serves, at whatever port.
    return url !== undefined && /^https?:$/.test(url.protocol) && this.own.has(url.hostname)
  }
}

const MAX_REMEMBERED = 100

/** A host as URLs write it, with its port if it names one. */
const hostOf = (host: string): string => {
  const url = parse(`http://${host}`)
  return url === undefined ? host : /:\d+$/.test(host) ? withPort(url) : url.hostname
}

/** URLs leave out the port that is the default of their scheme. */
const withPort = ({ hostname, port }: URL): string => `${hostname}:${port === "" ? "80" : port}`

const parse = (url: string): URL | undefined => (URL.canParse(url) ? new URL(url) : undefined)
