import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { ManualClock, settle } from "../fixtures/ManualClock.js"
import { UpstreamError } from "../../src/ProxyError.js"
import { endsUpstreamSession, type Lease, nothingToAbort } from "../../src/Upstream.js"
import { Failover, type FailoverResult, type FailoverSteps } from "../../src/UpstreamSession/Failover.js"
import type { ProbeResult } from "../../src/UpstreamSession/probe.js"

const known: ProbeResult = { type: "known" }
const silent: ProbeResult = { type: "silent" }
const unknown: ProbeResult = { type: "unknown", denial: "no such session" }
const unreachable = new UpstreamError({ reason: "Unreachable", upstream: "upstream" })
const refused = new UpstreamError({ reason: "InitializeRefused", upstream: "upstream" })

/** A session whose leases are numbered from 0. Each test scripts the results of its probes and openings. */
class ScriptedSession {
  readonly clock = new ManualClock()
  readonly failover = new Failover((effect) => Effect.runFork(Effect.withClock(effect, this.clock)))
  /** The results that the session applied, releases of leases included, in order. */
  readonly log: Array<string> = []
  probed = silent
  failure: UpstreamError | undefined
  /** Delays the release of a lease. */
  releaseDelay = Effect.void
  /** True if a replacement exits while it is prepared. */
  exitsEarly = false
  private current: Lease | undefined
  private leases = 0
  private exit: () => void = () => {}

  readonly lease = Effect.acquireRelease(
    Effect.suspend(() => this.failure ?? Effect.succeed(this.makeLease(this.leases++))),
    ({ name }, exit) =>
      Effect.andThen(this.releaseDelay, () => {
        this.log.push(`${endsUpstreamSession(exit) ? "ended" : "released"} ${name}`)
      })
  )

  readonly steps: FailoverSteps = {
    lease: () => this.current,
    probe: () => Effect.sync(() => this.probed),
    reopen: this.lease,
    prepare: () => Effect.sync(() => (this.exitsEarly && this.exit(), false)),
    apply: (result) => this.apply(result)
  }

  get open(): Effect.Effect<void, UpstreamError> {
    // The release of the lease uses the clock of the fiber that takes it.
    return Effect.map(Effect.withClock(this.failover.take(this.lease), this.clock), (lease) => {
      this.current = lease
    })
  }

  /** Loses the upstream session, as after the exit of a child. */
  lose(): void {
    this.failover.markLost()
    this.current = undefined
  }

  get close(): Effect.Effect<void> {
    return this.failover.close(Exit.void)
  }

  private makeLease(index: number): Lease {
    return {
      name: String(index),
      sessionId: () => undefined,
      exchange: () => nothingToAbort,
      onExit: (listener) => {
        this.exit = listener
      }
    }
  }

  private apply(result: FailoverResult): boolean {
    this.log.push("lease" in result ? `${result.type} ${result.lease.name}` : result.type)
    if (result.type === "denied") this.lose()
    if (result.type === "replaced") this.current = result.lease
    return result.type !== "denied"
  }
}

const openSession = Effect.gen(function* () {
  const session = new ScriptedSession()
  yield* session.open
  return session
})

describe("a failover", () => {
  it.effect("keeps the lease if the upstream knows the session", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      session.probed = known
      session.failover.start(session.steps)
      yield* settle
      expect(session.log).toEqual(["confirmed 0"])
    })
  )

  it.effect("releases the lease of a lost session, and then takes another one", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      session.probed = unknown
      session.failover.start(session.steps)
      yield* settle
      expect(session.log).toEqual(["denied", "released 0", "replaced 1"])
      yield* session.close
      expect(session.log.at(-1)).toBe("ended 1")
    })
  )

  it.effect("is started once while it runs, and again after it is complete", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      session.probed = known
      session.failover.start(session.steps)
      session.failover.start(session.steps)
      yield* settle
      expect(session.log).toEqual(["confirmed 0"])
      session.failover.resetFailures()
      session.failover.start(session.steps)
      yield* settle
      expect(session.log).toEqual(["confirmed 0", "confirmed 0"])
    })
  )

  it.effect("gives up after ten probes without an answer", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      session.failover.start(session.steps)
      yield* session.clock.advance("200 seconds")
      expect(session.log).toEqual(["gaveUp"])
    })
  )

  it.effect("tries again if the upstream is unreachable", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      session.lose()
      session.failure = unreachable
      session.failover.start(session.steps)
      yield* settle
      session.failure = undefined
      yield* session.clock.advance("1 second")
      expect(session.log).toEqual(["released 0", "replaced 1"])
    })
  )

  it.effect("gives up at once if the server refuses `initialize`", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      session.lose()
      session.failure = refused
      session.failover.start(session.steps)
      yield* settle
      expect(session.log).toEqual(["released 0", "gaveUp"])
    })
  )

  it.effect("does not use a replacement that exits while it is prepared", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      session.lose()
      session.exitsEarly = true
      session.failover.start(session.steps)
      yield* settle
      session.exitsEarly = false
      yield* session.clock.advance("1 second")
      expect(session.log).toEqual(["released 0", "ended 1", "replaced 2"])
    })
  )

  it.effect("waits for a release in the background", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      session.lose()
      session.releaseDelay = Effect.sleep("5 seconds")
      session.failover.clear()
      session.failover.clear()
      session.failover.start(session.steps)
      yield* session.clock.advance("4 seconds")
      expect(session.log).toEqual([])
      yield* session.clock.advance("1 second")
      expect(session.log).toEqual(["released 0", "replaced 1"])
    })
  )
})

describe("close", () => {
  it.effect("interrupts a failover, and releases the lease once", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      session.failover.start(session.steps)
      yield* settle
      yield* session.close
      yield* session.clock.advance("200 seconds")
      expect(session.log).toEqual(["ended 0"])
    })
  )

  it.effect("prevents later failovers and releases", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      yield* session.close
      session.failover.start(session.steps)
      session.failover.clear()
      yield* session.clock.advance("200 seconds")
      expect(session.log).toEqual(["ended 0"])
    })
  )
})
