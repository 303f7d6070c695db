import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { environmentOf } from "../../../src/Upstream/Stdio/environment.js"

const harmless = {
  PATH: "/bin",
  HOME: "/home/me",
  LANG: "C",
  LC_ALL: "C",
  TERM: "dumb",
  TZ: "UTC",
  USER: "me"
}

describe("the environment of a child", () => {
  it.prop(
    "holds only harmless variables and the added ones",
    [FastCheck.dictionary(FastCheck.stringMatching(/^[A-Z_]{1,12}$/), FastCheck.string())],
    ([secrets]) => {
      const env = environmentOf({ API_KEY: "secret", ...secrets, ...harmless }, false, { ADDED: "1" })
      const known = new Set([...Object.keys(harmless), "ADDED", "LANGUAGE", "LOGNAME", "SHELL", "TMPDIR"])
      expect(Object.keys(env).filter((name) => !known.has(name) && !name.startsWith("LC_"))).toEqual([])
      expect(env).toMatchObject({ ...harmless, ADDED: "1" })
    }
  )

  it("holds all variables if configured, and added ones take precedence", () => {
    expect(
      environmentOf({ API_KEY: "secret", PATH: "/bin", NONE: undefined }, true, { PATH: "/opt" })
    ).toEqual({
      API_KEY: "secret",
      PATH: "/opt"
    })
  })
})
