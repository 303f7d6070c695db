import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { Budget } from "../../src/internal/budget.js"

describe("a budget", () => {
  it("can be taken to the last", () => {
    const budget = new Budget(10)
    expect(budget.take(10)).toBe(true)
    expect(budget.take(1)).toBe(false)
    expect(budget.take(0)).toBe(true)
    expect(budget.used).toBe(10)
  })

  it.prop(
    "is never overdrawn, and whole again when all is given back",
    [FastCheck.nat({ max: 100 }), FastCheck.array(FastCheck.nat({ max: 50 }))],
    ([bound, amounts]) => {
      const budget = new Budget(bound)
      const taken: Array<number> = []
      for (const amount of amounts) {
        const sum = taken.reduce((sum, amount) => sum + amount, 0)
        expect(budget.take(amount)).toBe(sum + amount <= bound)
        if (sum + amount <= bound) taken.push(amount)
        expect(budget.used).toBeLessThanOrEqual(bound)
      }
      for (const amount of taken) budget.give(amount)
      expect(budget.used).toBe(0)
    }
  )
})
