import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { OriginPolicy, type OriginPolicyOptions } from "../../src/HttpFront/OriginPolicy.js"

const gatekeeper = (options: Partial<OriginPolicyOptions> = {}) =>
  new OriginPolicy({ host: "127.0.0.1", allowHosts: [], allowOrigins: [], ...options })

const reasonFor = (
  headers: { readonly host?: string; readonly origin?: string },
  options?: Partial<OriginPolicyOptions>
) => gatekeeper(options).check(headers)?.reason

describe("Host", () => {
  it.each([
    "localhost",
    "localhost:8080",
    "LocalHost:1",
    "127.0.0.1",
    "127.0.0.1:8080",
    "[::1]",
    "[::1]:8080",
    "[0:0:0:0:0:0:0:1]:8080"
  ])("allows %s, with any port", (host) => {
    expect(reasonFor({ host })).toBeUndefined()
  })

  it.each([
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil-localhost",
    "localhost@evil.example",
    "127.0.0.1:8080@evil.example",
    "127.0.0.2",
    "0.0.0.0",
    "[::2]",
    "[::ffff:127.0.0.1]",
    "192.168.0.1",
    "",
    " ",
    "localhost:99999",
    "::1",
    "*"
  ])("rejects %j, which a page could have rebound", (host) => {
    expect(reasonFor({ host })).toBe("HostNotAllowed")
  })

  it("rejects a request without one", () => {
    expect(reasonFor({})).toBe("HostNotAllowed")
  })

  it.each([
    ["proxy.example", "proxy.example", true],
    ["proxy.example", "PROXY.example:8080", true],
    ["Proxy.Example", "proxy.example", true],
    ["proxy.example:8080", "proxy.example:8080", true],
    ["Proxy.example:80", "proxy.Example:80", true],
    ["proxy.example:80", "proxy.example", true],
    ["proxy.example:80", "proxy.example:8080", false],
    ["proxy.example:8080", "proxy.example:8081", false],
    ["proxy.example:8080", "proxy.example", false],
    ["proxy.example", "sub.proxy.example", false],
    ["proxy.example", "proxy.example.evil.example", false],
    ["[2001:db8::1]", "[2001:db8::1]:8080", true],
    ["*", "anything.example:1", true]
  ])("--allow-host %s and %s: %s", (allowed, host, isAllowed) => {
    expect(reasonFor({ host }, { allowHosts: [allowed] }) === undefined).toBe(isAllowed)
  })

  it("--allow-host * allows a request without one, as HTTP/1.0 has", () => {
    expect(reasonFor({}, { allowHosts: ["*"] })).toBeUndefined()
  })

  it.each([
    ["192.168.0.7", "192.168.0.7:8080"],
    ["2001:db8::7", "[2001:db8::7]:8080"],
    ["my-machine", "MY-MACHINE:8080"]
  ])("--host %s allows %s", (host, header) => {
    expect(reasonFor({ host: header }, { host })).toBeUndefined()
    expect(reasonFor({ host: header })).toBe("HostNotAllowed")
  })

  it("returns the same result for a repeated host", () => {
    const keeper = gatekeeper()
    for (let round = 0; round < 2; round++) {
      expect(keeper.check({ host: "evil.example" })?.reason).toBe("HostNotAllowed")
      expect(keeper.check({ host: "localhost:8080" })).toBeUndefined()
    }
  })

  it("allows any number of ports, more than the cache holds", () => {
    const keeper = gatekeeper()
    for (let port = 1; port < 300; port++) expect(keeper.check({ host: `localhost:${port}` })).toBeUndefined()
    expect(keeper.check({ host: "localhost.evil.example:299" })?.reason).toBe("HostNotAllowed")
  })

  it.prop("rejects every name that is not allowed", [FastCheck.domain()], ([host]) => {
    expect(reasonFor({ host })).toBe("HostNotAllowed")
  })

  it.prop("rejects garbage without an exception", [FastCheck.string()], ([host]) => {
    // A browser resolves each of these to 127.0.0.1 too.
    FastCheck.pre(!URL.canParse(`http://${host}`) || new URL(`http://${host}`).hostname !== "127.0.0.1")
    expect(reasonFor({ host })).toBe("HostNotAllowed")
  })
})

describe("Origin", () => {
  const host = "localhost:8080"

  it("allows a request without one, as of a client that is not a browser", () => {
    expect(reasonFor({ host })).toBeUndefined()
  })

  it.each([
    "http://localhost",
    "http://localhost:3000",
    "https://localhost:8443",
    "http://127.0.0.1:8080",
    "http://[::1]:8080"
  ])("allows %s, a page of this machine", (origin) => {
    expect(reasonFor({ host, origin })).toBeUndefined()
  })

  it.each([
    "null",
    "",
    "https://evil.example",
    "http://localhost.evil.example",
    "http://localhost@evil.example",
    "http://evil.example:8080",
    "file://",
    "chrome-extension://localhost",
    "data:text/html,x",
    "localhost",
    "//localhost"
  ])("rejects %j", (origin) => {
    expect(reasonFor({ host, origin })).toBe("OriginNotAllowed")
  })

  it.each([
    ["https://app.example", "https://app.example", true],
    ["https://App.Example", "https://app.example", true],
    ["https://app.example", "http://app.example", false],
    ["https://app.example", "https://app.example:8443", false],
    ["https://app.example:8443", "https://app.example:8443", true],
    ["https://app.example", "https://app.example.evil.example", false],
    ["*", "https://evil.example", true]
  ])("--allow-origin %s and %s: %s", (allowed, origin, isAllowed) => {
    expect(reasonFor({ host, origin }, { allowOrigins: [allowed] }) === undefined).toBe(isAllowed)
  })

  it("--allow-host adds no origin", () => {
    const options = { allowHosts: ["proxy.example"] }
    expect(reasonFor({ host: "proxy.example" }, options)).toBeUndefined()
    expect(reasonFor({ host, origin: "https://proxy.example" }, options)).toBe("OriginNotAllowed")
  })

  it("--allow-host * allows no foreign origin", () => {
    expect(reasonFor({ host, origin: "https://evil.example" }, { allowHosts: ["*"] })).toBe(
      "OriginNotAllowed"
    )
  })

  it("an allowed origin does not allow a foreign host", () => {
    const options = { allowOrigins: ["*"] }
    expect(reasonFor({ host: "evil.example", origin: "http://localhost" }, options)).toBe("HostNotAllowed")
  })

  it.prop("rejects every foreign origin", [FastCheck.webUrl()], ([origin]) => {
    expect(reasonFor({ host, origin })).toBe("OriginNotAllowed")
  })

  it.prop("rejects garbage without an exception", [FastCheck.string()], ([origin]) => {
    expect(reasonFor({ host, origin })).toBe("OriginNotAllowed")
  })
})

describe("CORS", () => {
  const origin = "http://localhost:3000"

  it("lets a browser read the response and the headers that MCP needs", () => {
    expect(gatekeeper().grants({ origin })).toMatchObject({
      "access-control-allow-origin": origin,
      "access-control-expose-headers": "Mcp-Session-Id, WWW-Authenticate"
    })
  })

  it("adds no headers for a client that is not a browser", () => {
    expect(gatekeeper().grants({})).toBeUndefined()
  })

  it("allows the methods of MCP and the requested headers in a preflight", () => {
    const requested = "mcp-session-id, content-type, authorization"
    expect(gatekeeper().preflight({ origin, "access-control-request-headers": requested })).toMatchObject({
      "access-control-allow-origin": origin,
      "access-control-allow-methods": "GET, POST, DELETE",
      "access-control-allow-headers": requested
    })
  })
})
