import * as Effect from "effect/Effect"
import { randomBytes } from "node:crypto"
import { readdirSync, readFileSync } from "node:fs"

/** A variable that only the children of this demo have in their environment, and whatever they start. */
export interface Mark {
  readonly name: string
  readonly value: string
}

export const makeMark: Effect.Effect<Mark> = Effect.sync(() => ({
  name: "SHADOWCAT_DEMO",
  value: randomBytes(12).toString("hex")
}))

/** How many processes carry a mark; undefined where the system does not tell, as only Linux does. */
export const countMarked = ({ name, value }: Mark): Effect.Effect<number | undefined> =>
  Effect.sync(() => {
    const isMarked = (pid: string) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, "utf8").split("\0").includes(`${name}=${value}`)
      } catch {
        // It has ended, or is another user's.
        return false
      }
    }
    try {
      return readdirSync("/proc").filter((file) => /^\d+$/.test(file) && isMarked(file)).length
    } catch {
      return undefined
    }
  })
