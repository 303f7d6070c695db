/**
 * The allowed hosts and origins, and the CORS headers. A page of a foreign origin can reach a local server through DNS
 * rebinding (Transports, "Security Warning"). Therefore the Host and the Origin of every request are checked.
 */
import type { IncomingHttpHeaders } from "node:http"
import { BadRequest } from "../ProxyError.js"
import type { MutableHeaders } from "../internal/headers.js"

export interface OriginPolicyOptions {
  /** The address on which the proxy listens. */
  readonly host: string
  /** Other allowed hosts, with any port unless the host names one; `*` allows all. */
  readonly allowHosts: ReadonlyArray<string>
  /** Other allowed origins, such as `https://app.example.com`; `*` allows all. */
  readonly allowOrigins: ReadonlyArray<string>
}

export class OriginPolicy {
  private readonly own: ReadonlySet<string>
  private readonly hosts: ReadonlySet<string>
  private readonly origins: ReadonlySet<string>
  /** A cache of allowed Host headers, because parsing a host is the most expensive check. */
  private readonly allowedHosts = new Set<string>()

  constructor({ allowHosts, allowOrigins, host }: OriginPolicyOptions) {
    this.own = new Set(["localhost", "127.0.0.1", "[::1]", hostOf(host.includes(":") ? `[${host}]` : host)])
    this.hosts = new Set([...this.own, ...allowHosts.map(hostOf)])
    this.origins = new Set(allowOrigins.map((origin) => origin.toLowerCase()))
  }

  /** Checks the Host and the Origin of a request. Returns an error if one is not allowed. */
  check({ host, origin }: IncomingHttpHeaders): BadRequest | undefined {
    if (!this.allowsHost(host)) return new BadRequest({ reason: "HostNotAllowed" })
    if (origin !== undefined && !this.allowsOrigin(origin))
      return new BadRequest({ reason: "OriginNotAllowed" })
    return undefined
  }

  /** Returns the CORS headers for the response to an allowed request; `undefined` without an Origin. */
  grants({ origin }: IncomingHttpHeaders): MutableHeaders | undefined {
    if (origin === undefined) return undefined
    return {
      "access-control-allow-origin": origin,
      "access-control-expose-headers": "Mcp-Session-Id, WWW-Authenticate"
    }
  }

  /** Returns the headers for the response to an allowed preflight request. */
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
    if (isAllowed && this.allowedHosts.size < MAX_CACHED) this.allowedHosts.add(host)
    return isAllowed
  }

  private allowsOrigin(origin: string): boolean {
    if (["*", origin.toLowerCase()].some((name) => this.origins.has(name))) return true
    const url = parse(origin)
    // Allows pages of this machine on any port.
    return url !== undefined && /^https?:$/.test(url.protocol) && this.own.has(url.hostname)
  }
}

const MAX_CACHED = 100

/** Normalizes a host as URLs do, with its port if it names one. */
const hostOf = (host: string): string => {
  const url = parse(`http://${host}`)
  return url === undefined ? host : /:\d+$/.test(host) ? withPort(url) : url.hostname
}

/** Returns the host with its port. A URL omits the default port of its scheme. */
const withPort = ({ hostname, port }: URL): string => `${hostname}:${port === "" ? "80" : port}`

const parse = (url: string): URL | undefined => (URL.canParse(url) ? new URL(url) : undefined)
