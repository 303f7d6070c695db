import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { SlotSet, type SlotSetItem, NO_SLOT } from "../../src/internal/slotSet.js"

class Item implements SlotSetItem {
  slot = NO_SLOT
  constructor(readonly index: number) {}
}

const operation = FastCheck.record({ index: FastCheck.nat({ max: 5 }), isAdded: FastCheck.boolean() })

describe("a bag", () => {
  it.prop(
    "holds what a set would hold, whatever is added and deleted, twice too",
    [FastCheck.array(operation)],
    ([operations]) => {
      const bag = new SlotSet<Item>()
      const set = new Set<Item>()
      const items = Array.from({ length: 6 }, (_, index) => new Item(index))
      for (const { index, isAdded } of operations) {
        const item = items[index]
        if (item === undefined) continue
        if (isAdded) {
          bag.add(item)
          set.add(item)
        } else {
          bag.delete(item)
          set.delete(item)
        }
        expect(bag.size).toBe(set.size)
        expect(bag.count(({ index }) => index > 2)).toBe([...set].filter(({ index }) => index > 2).length)
        expect(new Set(bag)).toEqual(set)
        for (const item of items) expect(item.slot !== NO_SLOT).toBe(set.has(item))
      }
    }
  )

  it("may change while somebody goes through it", () => {
    const bag = new SlotSet<Item>()
    const items = Array.from({ length: 4 }, (_, index) => new Item(index))
    for (const item of items) bag.add(item)
    const seen: Array<number> = []
    for (const item of bag) {
      seen.push(item.index)
      bag.delete(item)
      bag.add(new Item(9))
    }
    expect(seen).toEqual([0, 1, 2, 3])
    expect(bag.size).toBe(4)
  })
})
