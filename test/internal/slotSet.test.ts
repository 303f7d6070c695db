import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { SlotSet, type SlotSetItem, NO_SLOT } from "../../src/internal/slotSet.js"

class Item implements SlotSetItem {
  slot = NO_SLOT
  constructor(readonly index: number) {}
}

const operation = FastCheck.record({ index: FastCheck.nat({ max: 5 }), isAdded: FastCheck.boolean() })

describe("SlotSet", () => {
  it.prop(
    "holds the same items as a Set after any additions and deletions",
    [FastCheck.array(operation)],
    ([operations]) => {
      const slots = new SlotSet<Item>()
      const set = new Set<Item>()
      const items = Array.from({ length: 6 }, (_, index) => new Item(index))
      for (const { index, isAdded } of operations) {
        const item = items[index]
        if (item === undefined) continue
        if (isAdded) {
          slots.add(item)
          set.add(item)
        } else {
          slots.delete(item)
          set.delete(item)
        }
        expect(slots.size).toBe(set.size)
        expect(slots.count(({ index }) => index > 2)).toBe([...set].filter(({ index }) => index > 2).length)
        expect(new Set(slots)).toEqual(set)
        for (const item of items) expect(item.slot !== NO_SLOT).toBe(set.has(item))
      }
    }
  )

  it("can change during an iteration", () => {
    const slots = new SlotSet<Item>()
    const items = Array.from({ length: 4 }, (_, index) => new Item(index))
    for (const item of items) slots.add(item)
    const seen: Array<number> = []
    for (const item of slots) {
      seen.push(item.index)
      slots.delete(item)
      slots.add(new Item(9))
    }
    expect(seen).toEqual([0, 1, 2, 3])
    expect(slots.size).toBe(4)
  })
})
