/** The demo; started by scripts/demo. */
import * as Effect from "effect/Effect"
import { runScript, ScriptError } from "../commandLine.js"
import { parseOptions, usage } from "./options.js"
import { table, verdict } from "./report.js"

runScript({
  name: "demo",
  usage,
  parseOptions,
  // A signal is the only way to end --serve, so it is a success.
  interruptedCode: ({ serve }) => (serve ? 0 : undefined),
  run: (options) =>
    Effect.gen(function* () {
      // The clients take longer to load than everything else, so they are loaded only for a run that needs them.
      if (options.serve) {
        const { serve } = yield* Effect.promise(() => import("./servers.js"))
        return yield* serve(options.stdio)
      }
      const { run } = yield* Effect.promise(() => import("./run.js"))
      const findings = yield* run(options)
      process.stdout.write(`${table(findings)}\n`)
      const message = verdict(findings)
      return message === undefined ? 0 : yield* new ScriptError({ message })
    })
})
