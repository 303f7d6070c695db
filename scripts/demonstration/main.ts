/** The demo; started by scripts/demo. */
import * as Effect from "effect/Effect"
import { messageOf, runScript, ScriptError, UsageError } from "../commandLine.js"
import { parseOptions, usage } from "./options.js"
import { table, verdict } from "./report.js"

runScript("demo", (interruption) =>
  Effect.gen(function* () {
    const options = yield* Effect.try({
      try: () => parseOptions(process.argv.slice(2)),
      catch: (cause) => new UsageError({ message: messageOf(cause) })
    })
    if (options === undefined) {
      process.stdout.write(`${usage}\n`)
      return 0
    }
    // The clients take longer to load than everything else, so they are loaded only for a run that needs them.
    if (options.serve) {
      const { serve } = yield* Effect.promise(() => import("./serve.js"))
      return yield* Effect.onInterrupt(serve(options), () => Effect.sync(() => (interruption.code = 0)))
    }
    const { run } = yield* Effect.promise(() => import("./run.js"))
    const findings = yield* run(options)
    process.stdout.write(`${table(findings)}\n`)
    const message = verdict(findings)
    return message === undefined ? 0 : yield* new ScriptError({ message })
  })
)
