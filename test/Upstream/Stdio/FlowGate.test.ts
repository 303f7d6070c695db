import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { FlowGate } from "../../../src/Upstream/Stdio/FlowGate.js"

const step = FastCheck.record({ reader: FastCheck.nat({ max: 2 }), isPaused: FastCheck.boolean() })

describe("FlowGate", () => {
  it.prop("pauses the source while any reader pauses it", [FastCheck.array(step)], ([steps]) => {
    const readers = [{}, {}, {}]
    const paused = new Set<object>()
    let isPaused = false
    const gate = new FlowGate({
      pause: () => {
        isPaused = true
      },
      unpause: () => {
        isPaused = false
      }
    })
    for (const step of steps) {
      const reader = readers[step.reader] ?? {}
      if (step.isPaused) {
        gate.pause(reader)
        paused.add(reader)
      } else {
        gate.unpause(reader)
        paused.delete(reader)
      }
      expect(isPaused).toBe(paused.size > 0)
    }
  })
})
