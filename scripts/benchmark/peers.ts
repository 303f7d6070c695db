import * as Effect from "effect/Effect"
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { spawnCommand } from "../../test/fixtures/Child.js"
import { guarded, ScriptError } from "../commandLine.js"

const cache = fileURLToPath(new URL("../../node_modules/.cache/benchmark", import.meta.url))

/** Installs a proxy of others from npm, unless an earlier run has, and returns the folder of its package. */
export const installPeer = (versioned: string): Effect.Effect<string, ScriptError> =>
  Effect.gen(function* () {
    const folder = join(cache, versioned)
    const stamp = join(folder, "installed")
    const packageFolder = join(folder, "node_modules", versioned.slice(0, versioned.lastIndexOf("@")))
    if (existsSync(stamp)) return packageFolder
    // npm might take the remains of an interrupted installation for a complete one.
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    const options =
      "--no-save --ignore-scripts --no-audit --no-fund --loglevel error --fetch-retry-mintimeout 1000"
    const npm = yield* spawnCommand(
      "npm",
      ["install", ...options.split(" "), "--prefix", folder, versioned],
      {
        detached: true,
        env: { NODE_OPTIONS: guarded.join(" ") }
      }
    )
    const exit = yield* Effect.timeoutOption(npm.exit, "3 minutes")
    if (exit._tag === "None" || exit.value.code !== 0) {
      const output = [...npm.stdout(), ...npm.stderr()].join(" ").replaceAll(/\s+/g, " ").slice(0, 300)
      return yield* new ScriptError({ message: `${versioned} could not be installed: ${output}` })
    }
    writeFileSync(stamp, "")
    return packageFolder
  }).pipe(Effect.scoped)
