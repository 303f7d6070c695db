import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { IncomingMessage } from "node:http"
import { Socket } from "node:net"
import { type BodyReceiver, readBody } from "../../src/HttpFront/readBody.js"
import { Budget } from "../../src/internal/budget.js"
import { Deadlines } from "../../src/internal/deadlines.js"
import { BadRequest, LimitReached } from "../../src/ProxyError.js"
import { ManualClock, settle } from "../fixtures/ManualClock.js"

const chunk = FastCheck.uint8Array({ maxLength: 20 })

/** A request whose parts the test sends, and its outcome. */
class Arriving implements BodyReceiver {
  readonly clock = new ManualClock()
  readonly deadlines = new Deadlines(this.clock)
  readonly request = new IncomingMessage(new Socket())
  readonly bodies: Array<Buffer> = []
  readonly errors: Array<BadRequest | LimitReached> = []
  readonly stop: () => void

  constructor(
    maxBody: number,
    readonly budget = new Budget(Number.MAX_SAFE_INTEGER, 0),
    contentLength?: string
  ) {
    if (contentLength !== undefined) this.request.headers["content-length"] = contentLength
    this.stop = readBody(
      this.request,
      { maxBody, stallTimeout: 60_000, deadlines: this.deadlines },
      this,
      (bytes) => this.bodies.push(bytes)
    )
  }

  reserve(bytes: number): LimitReached | undefined {
    return this.budget.reserve(bytes, 0)
      ? undefined
      : new LimitReached({ limit: "max-buffered", bound: this.budget.limit })
  }

  error(error: BadRequest | LimitReached): void {
    this.errors.push(error)
  }

  arrives(bytes: Uint8Array | null): Effect.Effect<void> {
    return Effect.andThen(
      Effect.sync(() => this.request.push(bytes)),
      settle
    )
  }

  pass(seconds: number): Effect.Effect<void> {
    return Effect.andThen(this.clock.advance(`${seconds} seconds`), () => this.deadlines.sweep())
  }

  /** The calls of the reader. It must make at most one. */
  get said(): ReadonlyArray<unknown> {
    return [...this.bodies, ...this.errors]
  }
}

const tooLarge = new BadRequest({ reason: "TooLarge" })

describe("readBody", () => {
  it.effect.prop("returns the bytes of a body, for arbitrary chunks", [FastCheck.array(chunk)], ([chunks]) =>
    Effect.gen(function* () {
      const arriving = new Arriving(1_000)
      for (const chunk of chunks) yield* arriving.arrives(chunk)
      expect(arriving.said).toEqual([])
      yield* arriving.arrives(null)
      expect(arriving.said).toEqual([Buffer.concat(chunks)])
      expect(arriving.deadlines.size).toBe(0)
      expect(arriving.budget.used).toBe(Buffer.concat(chunks).length)
    })
  )

  it.effect("merges many small chunks", () =>
    Effect.gen(function* () {
      const arriving = new Arriving(10_000)
      const bytes = Buffer.from(Array.from({ length: 3_000 }, (_, index) => index % 256))
      for (const byte of bytes) arriving.request.push(Buffer.from([byte]))
      yield* arriving.arrives(null)
      expect(arriving.said).toEqual([bytes])
    })
  )

  it.effect.prop(
    "reads up to the limit and not past it",
    [FastCheck.array(chunk), FastCheck.nat({ max: 60 })],
    ([chunks, maxBody]) =>
      Effect.gen(function* () {
        const arriving = new Arriving(maxBody)
        for (const chunk of [...chunks, null]) yield* arriving.arrives(chunk)
        const whole = Buffer.concat(chunks)
        expect(arriving.said).toEqual([whole.length > maxBody ? tooLarge : whole])
        expect(arriving.budget.used).toBeLessThanOrEqual(maxBody)
        expect(arriving.deadlines.size).toBe(0)
      })
  )

  it.effect("rejects a body by its Content-Length at once", () =>
    Effect.gen(function* () {
      const arriving = new Arriving(10, undefined, "11")
      expect(arriving.errors).toEqual([tooLarge])
      yield* arriving.arrives(Buffer.from("{}"))
      yield* arriving.arrives(null)
      expect(arriving.said).toEqual([tooLarge])
      expect(arriving.deadlines.size).toBe(0)
    })
  )

  it.effect("accepts a body of exactly the maximum size", () =>
    Effect.gen(function* () {
      const arriving = new Arriving(2, undefined, "2")
      yield* arriving.arrives(Buffer.from("{}"))
      yield* arriving.arrives(null)
      expect(arriving.said).toEqual([Buffer.from("{}")])
    })
  )

  it.effect("rejects a body if the budget is exhausted", () =>
    Effect.gen(function* () {
      const arriving = new Arriving(100, new Budget(5, 0))
      yield* arriving.arrives(Buffer.from("1234"))
      yield* arriving.arrives(Buffer.from("5678"))
      yield* arriving.arrives(null)
      expect(arriving.said).toEqual([new LimitReached({ limit: "max-buffered", bound: 5 })])
      expect(arriving.budget.used).toBe(4)
    })
  )

  it.effect("rejects a body that stops arriving", () =>
    Effect.gen(function* () {
      const arriving = new Arriving(100)
      yield* arriving.pass(59)
      yield* arriving.arrives(Buffer.from("{"))
      yield* arriving.pass(59)
      expect(arriving.said).toEqual([])
      yield* arriving.pass(1)
      expect(arriving.said).toEqual([new BadRequest({ reason: "BodyTimeout" })])
      yield* arriving.arrives(Buffer.from("}"))
      yield* arriving.arrives(null)
      expect(arriving.said.length).toBe(1)
      expect(arriving.deadlines.size).toBe(0)
    })
  )

  it.effect("drops the body of a client that disconnects, and its deadline", () =>
    Effect.gen(function* () {
      const arriving = new Arriving(100)
      yield* arriving.arrives(Buffer.from("{"))
      arriving.stop()
      yield* arriving.pass(120)
      expect(arriving.said).toEqual([])
      expect(arriving.deadlines.size).toBe(0)
    })
  )
})
