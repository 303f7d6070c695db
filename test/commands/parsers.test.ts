import { describe, expect, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as values from "../../src/commands/parsers.js"

const millis = (text: string) => Either.map(values.duration(text), Duration.toMillis)

describe("durations", () => {
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
  ])("%j is %d ms", (text, expected) => {
    expect(millis(text)).toEqual(Either.right(expected))
  })

  it.each(["", "s", "5 minutes", "5d", "-5s", "1e3", "5m30s", "∞", "0x10", "1,5s", ".5s", "NaN"])(
    "%j is none",
    (text) => {
      expect(Either.isLeft(values.duration(text))).toBe(true)
    }
  )

  it("past what a timer can wait is refused", () => {
    expect(Either.isRight(values.duration("596h"))).toBe(true)
    expect(Either.isLeft(values.duration("597h"))).toBe(true)
    expect(Either.isLeft(values.duration("9".repeat(400)))).toBe(true)
  })

  it("zero is no time where there must be some", () => {
    expect(Either.isLeft(values.positiveDuration("0"))).toBe(true)
    expect(Either.isLeft(values.positiveDuration("0ms"))).toBe(true)
    expect(Either.isRight(values.positiveDuration("1ms"))).toBe(true)
  })

  it.prop("seconds are the unit of a bare number", [FastCheck.nat({ max: 1_000_000 })], ([seconds]) => {
    expect(millis(`${seconds}`)).toEqual(Either.right(seconds * 1_000))
    expect(millis(`${seconds}s`)).toEqual(millis(`${seconds}`))
  })
})

describe("sizes", () => {
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
  ])("%j is %d bytes", (text, expected) => {
    expect(values.size(text)).toEqual(Either.right(expected))
  })

  it.each(["", "MiB", "0", "0.1", "-1", "4M", "4 TiB", "1e6", "4MiBs", "9".repeat(30)])(
    "%j is none",
    (text) => {
      expect(Either.isLeft(values.size(text))).toBe(true)
    }
  )

  it.each(["1constructor", "1tostring", "1__proto__"])("%j names no unit", (text) => {
    expect(values.size(text)).toEqual(values.size("1x"))
  })
})

describe("whole numbers", () => {
  it.prop("within the bounds are read, others are not", [FastCheck.integer()], ([number]) => {
    const isWithin = number >= 1 && number <= 1_000_000
    expect(Either.isRight(values.count(`${number}`))).toBe(isWithin)
    expect(Either.isRight(values.port(`${number}`))).toBe(number >= 0 && number <= 65_535)
  })

  it.each(["", "1.0", "1e3", "0x10", "١", "1_000", "+1", "ten"])("%j is none", (text) => {
    expect(Either.isLeft(values.count(text))).toBe(true)
  })

  it("the error says what the bounds are", () => {
    expect(values.port("70000")).toEqual(Either.left("a whole number from 0 to 65535"))
  })
})

describe("headers", () => {
  it.each([
    ["Authorization: Bearer x", ["authorization", "Bearer x"]],
    ["X-Empty:", ["x-empty", ""]],
    ["X-Spaces: \t a b \t ", ["x-spaces", "a b"]],
    ["X-Colon: a:b: c", ["x-colon", "a:b: c"]],
    ["x-latin: é", ["x-latin", "é"]]
  ])("%j is read", (text, expected) => {
    expect(values.header(text)).toEqual(Either.right(expected))
  })

  it.each([
    ["without a colon", "Authorization"],
    ["without a name", ": x"],
    ["with a space in its name", "X Name: x"],
    ["with a space before its colon", "X-Name : x"],
    ["with a second line", "X-Name: x\r\nX-Other: y"],
    ["with a newline at its end", "X-Name: x\n"],
    ["with a zero byte", "X-Name: \0"],
    ["with what is not latin", "X-Name: ✓"]
  ])("one %s is refused", (_, text) => {
    expect(Either.isLeft(values.header(text))).toBe(true)
  })

  it.prop(
    "what is wrong is said without the value, which may be secret",
    [FastCheck.string()],
    ([secret]) => {
      FastCheck.pre(secret.length > 6)
      const result = values.header(`X Name: ${secret}`)
      expect(Either.isLeft(result) && result.left.includes(secret)).toBe(false)
    }
  )

  it.prop("whatever is read can be sent", [FastCheck.string()], ([text]) => {
    const result = values.header(`x-name:${text}`)
    if (Either.isRight(result)) expect(() => new Headers([[...result.right]])).not.toThrow()
  })
})

describe("addresses", () => {
  it.each(["http://127.0.0.1:3000/mcp", "https://mcp.example/", "http://[::1]:3000/mcp?key=1"])(
    "%s is an endpoint",
    (text) => {
      expect(values.url(text)).toEqual(Either.right(new URL(text)))
    }
  )

  it.each(["", "127.0.0.1:3000", "localhost:3000/mcp", "/mcp", "ftp://x/", "file:///x", "http://", "mcp"])(
    "%j is no endpoint",
    (text) => {
      expect(Either.isLeft(values.url(text))).toBe(true)
    }
  )

  it("one with a password is refused, and the password is not repeated", () => {
    const result = values.url("http://user:sesame@127.0.0.1/mcp")
    expect(Either.isLeft(result) && !result.left.includes("sesame")).toBe(true)
    expect(Either.isLeft(values.url("http://user@127.0.0.1/mcp"))).toBe(true)
  })

  it.each([
    ["127.0.0.1", "127.0.0.1"],
    ["::1", "::1"],
    ["[::1]", "::1"],
    ["localhost", "localhost"]
  ])("%s is an address to listen on", (text, expected) => {
    expect(values.address(text)).toEqual(Either.right(expected))
  })

  it.each(["", "a b", "http://127.0.0.1"])("%j is no address to listen on", (text) => {
    expect(Either.isLeft(values.address(text))).toBe(true)
  })

  it.each(["/", "/mcp", "/a/b.c-d"])("%s is a path", (text) => {
    expect(values.path(text)).toEqual(Either.right(text))
  })

  it.each(["", "mcp", "/mcp?x", "/mcp#x", "/m cp", "/health"])("%j is no path for MCP", (text) => {
    expect(Either.isLeft(values.path(text))).toBe(true)
  })

  it.each(["*", "proxy.example.com", "localhost:8080", "[::1]", "[::1]:8080"])("%s is a host", (text) => {
    expect(values.host(text)).toEqual(Either.right(text))
  })

  it.each(["", "::1", "a b", "host:port"])("%j is no host", (text) => {
    expect(Either.isLeft(values.host(text))).toBe(true)
  })

  it.each(["*", "https://app.example.com", "http://localhost:3000"])("%s is an origin", (text) => {
    expect(values.origin(text)).toEqual(Either.right(text))
  })

  it.each([
    "",
    "null",
    "app.example.com",
    "https://app.example.com/",
    "https://app.example.com/x",
    "file://"
  ])("%j is no origin", (text) => {
    expect(Either.isLeft(values.origin(text))).toBe(true)
  })
})

describe("names", () => {
  const level = values.oneOf({ info: 1, debug: 2 })

  it("are read in any case, and all of them named when none fits", () => {
    expect(level("INFO")).toEqual(Either.right(1))
    expect(level("loud")).toEqual(Either.left("one of info, debug"))
    expect(Either.isLeft(level("constructor"))).toBe(true)
    expect(Either.isLeft(level("__proto__"))).toBe(true)
  })
})

describe("every reader", () => {
  const { integer: _, oneOf: __, ...rest } = values
  const readers: ReadonlyArray<readonly [name: string, read: values.Reader<unknown>]> = Object.entries(rest)

  it.each(readers)("%s takes garbage without throwing and says what would be right", (_, read) => {
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
