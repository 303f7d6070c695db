/** Ends the children of this process when it can no longer do so itself. */
import { spawn, type ChildProcess } from "node:child_process"
import { randomBytes } from "node:crypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** The variable by which a child, and whatever it starts, can be told even when it has left its process group. */
export const MARKER = "SHADOWCAT_OWNER"

/**
 * Reads which process groups there are until its standard input ends, and that happens however this process ends.
 * It then kills the groups, and everything that carries the marker, again and again until there is nothing left: what
 * is being killed may just have started another process. Where there is no `/proc`, only the groups are known.
 */
const script = `
groups=' '
while read -r change group; do
  case $change in
    +) groups="$groups$group " ;;
    -) groups="\${groups%% "$group" *} \${groups#* "$group" }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done 2>/dev/null
rounds=0
while [ "$rounds" -lt 100 ]; do
  found=$(grep -ls -- "$1" /proc/[0-9]*/environ) || break
  for file in $found; do
    pid=\${file#/proc/}
    kill -s KILL "\${pid%/environ}" 2>/dev/null
  done
  rounds=$((rounds + 1))
  [ "$rounds" -lt 3 ] || sleep 0.1
done
`

/** How long the watchdog may take to look for what is left. */
const PATIENCE = Duration.seconds(5)

export class Watchdog {
  /** What the environment of every child holds under `MARKER`. */
  readonly marker = randomBytes(12).toString("hex")
  private readonly groups = new Set<number>()
  private isOver = false
  private shell = this.start()

  /** From now on the group goes with this process. */
  guard(group: number): void {
    this.groups.add(group)
    this.tell(`+ ${group}\n`)
  }

  /** The group has ended: its number may come to name another. */
  forget(group: number): void {
    this.groups.delete(group)
    this.tell(`- ${group}\n`)
  }

  /** Lets it kill what is left, and waits until it has. */
  readonly stop: Effect.Effect<void> = Effect.async<void>((resume) => {
    this.isOver = true
    const { shell } = this
    if (shell.pid === undefined || shell.exitCode !== null || shell.signalCode !== null) {
      return resume(Effect.void)
    }
    shell.ref()
    shell.once("exit", () => resume(Effect.void))
    shell.stdin?.end()
  }).pipe(Effect.interruptible, Effect.timeoutOption(PATIENCE), Effect.asVoid)

  private tell(change: string): void {
    this.shell.stdin?.write(change)
  }

  /** In a session of its own, out of the reach of signals to this process's group; without the marker. */
  private start(): ChildProcess {
    const shell = spawn("sh", ["-c", script, "shadowcat-watchdog", `${MARKER}=${this.marker}`], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      cwd: "/",
      env: { PATH: process.env["PATH"] }
    })
    shell.stdin.on("error", () => {})
    // Where there is no shell, children still end with their sessions, and by themselves when their input ends.
    shell.on("error", () => {})
    shell.on("exit", () => this.replace())
    shell.unref()
    return shell
  }

  /** Something has killed it. */
  private replace(): void {
    if (this.isOver) return
    this.shell = this.start()
    for (const group of this.groups) this.tell(`+ ${group}\n`)
  }
}

/** A watchdog that is there until the scope closes. */
export const make: Effect.Effect<Watchdog, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => new Watchdog()),
  (watchdog) => watchdog.stop
)
