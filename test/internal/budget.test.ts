import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { Budget } from "../../src/internal/budget.js"

describe("Budget", () => {
  it("can be reserved completely", () => {
    const budget = new Budget(10, 10)
    expect(budget.reserve(10, 0)).toBe(true)
    expect(budget.reserve(1, 0)).toBe(false)
    expect(budget.reserve(0, 0)).toBe(true)
    expect(budget.used).toBe(10)
  })

  it("reserves the last eighth for holders of up to 64 KiB", () => {
    const budget = new Budget(800_000, 100_000)
    expect(budget.reserve(700_000, 0)).toBe(true)
    expect(budget.reserve(65_537, 0)).toBe(false)
    expect(budget.reserve(1, 65_536)).toBe(false)
    expect(budget.reserve(65_536, 0)).toBe(true)
    expect(budget.used).toBe(765_536)
  })

  it("can be reserved by the largest possible holder", () => {
    expect(new Budget(800_000, 790_000).reserve(790_000, 0)).toBe(true)
    expect(new Budget(800_000, 900_000).reserve(800_000, 0)).toBe(true)
  })

  it.prop(
    "never exceeds its bound, and is empty after everything is released",
    [FastCheck.nat({ max: 100 }), FastCheck.array(FastCheck.nat({ max: 50 }))],
    ([bound, amounts]) => {
      const budget = new Budget(bound, bound)
      const reserved: Array<number> = []
      for (const amount of amounts) {
        const sum = reserved.reduce((sum, amount) => sum + amount, 0)
        expect(budget.reserve(amount, 0)).toBe(sum + amount <= bound)
        if (sum + amount <= bound) reserved.push(amount)
        expect(budget.used).toBeLessThanOrEqual(bound)
      }
      for (const amount of reserved) budget.release(amount)
      expect(budget.used).toBe(0)
    }
  )
})
