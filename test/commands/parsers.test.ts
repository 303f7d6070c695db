import { describe, expect, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as parsers from "../../src/commands/parsers.js"

const read = {
  duration: parsers.parse(parsers.duration),
  positiveDuration: parsers.parse(parsers.positiveDuration),
  size: parsers.parse(parsers.size),
  count: parsers.parse(parsers.count),
  port: parsers.parse(parsers.port),
  header: parsers.parse(parsers.header),
  variable: parsers.parse(parsers.variable),
  url: parsers.parse(parsers.url),
  address: parsers.parse(parsers.address),
  path: parsers.parse(parsers.path),
  folder: parsers.parse(parsers.folder),
  host: parsers.parse(parsers.host),
  origin: parsers.parse(parsers.origin),
  storeLocation: parsers.parse(parsers.storeLocation)
}

const millis = (text: string) => Either.map(read.duration(text), Duration.toMillis)

describe("a duration", () => {
  it.each([
    ["300", 300_000],
    ["300s", 300_000],
    ["5m", 300_000],
    ["1h", 3_600_000],
    ["250ms", 250],
    ["1.5s", 1_500],
    ["0", 0],
    [" 10s ", 10_000],
    ["24h", 86_400_000]
  ])("decodes %j to %d ms", (text, expected) => {
    expect(millis(text)).toEqual(Either.right(expected))
  })

  it.each(["", "s", "5 minutes", "5d", "-5s", "1e3", "5m30s", "∞", "0x10", "1,5s", ".5s", "NaN"])(
    "refuses %j",
    (text) => {
      expect(Either.isLeft(read.duration(text))).toBe(true)
    }
  )

  it("refuses more than the longest delay of a timer", () => {
    expect(Either.isRight(read.duration("596h"))).toBe(true)
    expect(Either.isLeft(read.duration("597h"))).toBe(true)
    expect(Either.isLeft(read.duration("9".repeat(400)))).toBe(true)
  })

  it("refuses zero if it must be positive", () => {
    expect(Either.isLeft(read.positiveDuration("0"))).toBe(true)
    expect(Either.isLeft(read.positiveDuration("0ms"))).toBe(true)
    expect(Either.isRight(read.positiveDuration("1ms"))).toBe(true)
  })

  it.prop("is in seconds without a unit", [FastCheck.nat({ max: 1_000_000 })], ([seconds]) => {
    expect(millis(`${seconds}`)).toEqual(Either.right(seconds * 1_000))
    expect(millis(`${seconds}s`)).toEqual(millis(`${seconds}`))
  })
})

describe("a size", () => {
  it.each([
    ["65536", 65_536],
    ["4MiB", 4 * 1024 * 1024],
    ["4mib", 4 * 1024 * 1024],
    ["512KiB", 512 * 1024],
    ["512 KiB", 512 * 1024],
    ["1GB", 1_000_000_000],
    ["1GiB", 2 ** 30],
    ["10b", 10],
    ["1.5kb", 1_500],
    ["1", 1]
  ])("decodes %j to %d bytes", (text, expected) => {
    expect(read.size(text)).toEqual(Either.right(expected))
  })

  it.each(["", "MiB", "0", "0.1", "-1", "4M", "4 TiB", "1e6", "4MiBs", "9".repeat(30)])(
    "refuses %j",
    (text) => {
      expect(Either.isLeft(read.size(text))).toBe(true)
    }
  )

  it.each(["1constructor", "1tostring", "1__proto__"])(
    "refuses %j, a name that every object has, as a unit",
    (text) => {
      expect(read.size(text)).toEqual(read.size("1x"))
    }
  )
})

describe("a whole number", () => {
  it.prop("decodes between its bounds only", [FastCheck.integer()], ([number]) => {
    const isWithin = number >= 1 && number <= 1_000_000
    expect(Either.isRight(read.count(`${number}`))).toBe(isWithin)
    expect(Either.isRight(read.port(`${number}`))).toBe(number >= 0 && number <= 65_535)
  })

  it.each(["", "1.0", "1e3", "0x10", "١", "1_000", "+1", "ten"])("refuses %j", (text) => {
    expect(Either.isLeft(read.count(text))).toBe(true)
  })

  it("names its bounds in the error", () => {
    expect(read.port("70000")).toEqual(Either.left("a whole number from 0 to 65535"))
  })
})

describe("a header", () => {
  it.each([
    ["Authorization: Bearer x", ["authorization", "Bearer x"]],
    ["X-Empty:", ["x-empty", ""]],
    ["X-Spaces: \t a b \t ", ["x-spaces", "a b"]],
    ["X-Colon: a:b: c", ["x-colon", "a:b: c"]],
    ["x-latin: é", ["x-latin", "é"]]
  ])("decodes %j", (text, expected) => {
    expect(read.header(text)).toEqual(Either.right(expected))
  })

  it.each([
    ["a line without a colon", "Authorization"],
    ["a line without a name", ": x"],
    ["a space in the name", "X Name: x"],
    ["a space before the colon", "X-Name : x"],
    ["a second line", "X-Name: x\r\nX-Other: y"],
    ["a trailing newline", "X-Name: x\n"],
    ["a zero byte", "X-Name: \0"],
    ["a character outside Latin-1", "X-Name: ✓"]
  ])("refuses %s", (_, text) => {
    expect(Either.isLeft(read.header(text))).toBe(true)
  })

  it.prop(
    "does not repeat the value in an error, because it may be secret",
    [FastCheck.string()],
    ([secret]) => {
      FastCheck.pre(secret.length > 6)
      const result = read.header(`X Name: ${secret}`)
      expect(Either.isLeft(result) && result.left.includes(secret)).toBe(false)
    }
  )

  it.prop("decodes only headers that can be sent", [FastCheck.string()], ([text]) => {
    const result = read.header(`x-name:${text}`)
    if (Either.isRight(result)) expect(() => new Headers([[...result.right]])).not.toThrow()
  })
})

describe("an address", () => {
  it.each(["http://127.0.0.1:3000/mcp", "https://mcp.example/", "http://[::1]:3000/mcp?key=1"])(
    "decodes %s as an endpoint",
    (text) => {
      expect(read.url(text)).toEqual(Either.right(new URL(text)))
    }
  )

  it.each(["", "127.0.0.1:3000", "localhost:3000/mcp", "/mcp", "ftp://x/", "file:///x", "http://", "mcp"])(
    "refuses %j as an endpoint",
    (text) => {
      expect(Either.isLeft(read.url(text))).toBe(true)
    }
  )

  it("refuses an endpoint with a password, and does not repeat the password", () => {
    const result = read.url("http://user:sesame@127.0.0.1/mcp")
    expect(Either.isLeft(result) && !result.left.includes("sesame")).toBe(true)
    expect(Either.isLeft(read.url("http://user@127.0.0.1/mcp"))).toBe(true)
  })

  it.each([
    ["127.0.0.1", "127.0.0.1"],
    ["::1", "::1"],
    ["[::1]", "::1"],
    ["localhost", "localhost"]
  ])("decodes %s as an address to listen on", (text, expected) => {
    expect(read.address(text)).toEqual(Either.right(expected))
  })

  it.each(["", "a b", "http://127.0.0.1"])("refuses %j as an address to listen on", (text) => {
    expect(Either.isLeft(read.address(text))).toBe(true)
  })

  it.each(["/", "/mcp", "/a/b.c-d"])("decodes %s as a path", (text) => {
    expect(read.path(text)).toEqual(Either.right(text))
  })

  it.each(["", "mcp", "/mcp?x", "/mcp#x", "/m cp", "/health"])(
    "refuses %j as the path of the MCP endpoint",
    (text) => {
      expect(Either.isLeft(read.path(text))).toBe(true)
    }
  )

  it.each(["*", "proxy.example.com", "localhost:8080", "[::1]", "[::1]:8080"])(
    "decodes %s as a host",
    (text) => {
      expect(read.host(text)).toEqual(Either.right(text))
    }
  )

  it.each(["", "::1", "a b", "host:port"])("refuses %j as a host", (text) => {
    expect(Either.isLeft(read.host(text))).toBe(true)
  })

  it.each(["*", "https://app.example.com", "http://localhost:3000"])("decodes %s as an origin", (text) => {
    expect(read.origin(text)).toEqual(Either.right(text))
  })

  it.each([
    "",
    "null",
    "app.example.com",
    "https://app.example.com/",
    "https://app.example.com/x",
    "file://"
  ])("refuses %j as an origin", (text) => {
    expect(Either.isLeft(read.origin(text))).toBe(true)
  })
})

describe("one of several names", () => {
  const level = parsers.parse(parsers.oneOf({ info: 1, debug: 2 }))

  it("decodes in any case, and lists the names in the error", () => {
    expect(level("INFO")).toEqual(Either.right(1))
    expect(level("loud")).toEqual(Either.left("one of info, debug"))
    expect(Either.isLeft(level("constructor"))).toBe(true)
    expect(Either.isLeft(level("__proto__"))).toBe(true)
  })
})

describe("every parser", () => {
  const all: ReadonlyArray<
    readonly [name: string, read: (input: unknown) => Either.Either<unknown, string>]
  > = Object.entries(read)

  it.each(all)("%s refuses invalid text with a noun phrase for the right form", (_, read) => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.oneof(FastCheck.string(), FastCheck.string({ unit: "binary" }), FastCheck.webUrl()),
        (text) => {
          const result = read(text)
          if (Either.isLeft(result)) expect(result.left).toMatch(/^(an?|the) /)
        }
      ),
      { numRuns: 300 }
    )
  })
})
