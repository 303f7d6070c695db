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
 * is being killed may just have started another process, or be about to become another program, without its variables
 * for a moment. Before that it does the same for those that are named to it. Where there is no `/proc`, only the groups
 * are known. That `grep` fails says nothing: processes end while it looks, and those of others cannot be read.
 */
const script = `
owner=$1
marker=$2
groups=' '
# How often in a row nothing has to be found, and what to find.
sweep() {
  enough=$1
  shift
  rounds=0
  misses=0
  while [ "$misses" -lt "$enough" ] && [ "$rounds" -lt 100 ]; do
    [ "$misses" -eq 0 ] && [ "$rounds" -lt 3 ] || sleep 0.1
    rounds=$((rounds + 1))
    found=$(grep -lsF "$@" /proc/[0-9]*/environ)
    if [ -n "$found" ]; then enough=2 misses=0; else misses=$((misses + 1)); fi
    for file in $found; do
      pid=\${file#/proc/}
      kill -s KILL "\${pid%/environ}" 2>/dev/null
    done
  done
}
while read -r change what; do
  case $change in
    +) groups="$groups$what " ;;
    -) groups="\${groups%% "$what" *} \${groups#* "$what" }" ;;
    kill)
      set --
      for mark in $what; do set -- "$@" -e "$owner=$mark"; done
      sweep 1 "$@" ;;
  esac
done
enough=1
for group in $groups; do
  enough=2
  kill -s KILL -- "-$group"
done 2>/dev/null
sweep "$enough" -e "$owner=$marker"
`

/** How long the watchdog may take to look for what is left. */
const PATIENCE = Duration.seconds(5)

/** How long what has left the group of a child that has ended may go on, in milliseconds: a look costs some. */
const SWEEP_INTERVAL = 1_000

export class Watchdog {
  /** What the environment of every child holds under `MARKER`, before what is its own. */
  private readonly marker = randomBytes(12).toString("hex")
  private readonly marks = new Map<number, string>()
  private marked = 0
  /** The marks of those that have ended and may have left something behind. */
  private ended: Array<string> = []
  private sweeping: NodeJS.Timeout | undefined
  private isOver = false
  private shell = this.start()

  /** What the environment of a new child has to hold under `MARKER`. */
  createMark(): string {
    // With its end marked as well, none is the beginning of another.
    return `${this.marker}.${++this.marked}.`
  }

  /** From now on the group goes with this process. */
  addGroup(group: number, mark: string): void {
    this.marks.set(group, mark)
    this.tell(`+ ${group}`)
  }

  /** The group has ended: its number may come to name another. Whoever has left it follows soon. */
  removeGroup(group: number): void {
    const mark = this.marks.get(group)
    if (mark === undefined) return
    this.marks.delete(group)
    this.tell(`- ${group}`)
    this.ended.push(mark)
    this.sweeping ??= setTimeout(() => this.sweep(), SWEEP_INTERVAL).unref()
  }

  /** Lets it kill what is left, and waits until it has. */
  readonly stop: Effect.Effect<void> = Effect.async<void>((resume) => {
    this.isOver = true
    clearTimeout(this.sweeping)
    const { shell } = this
    if (shell.pid === undefined || shell.exitCode !== null || shell.signalCode !== null) {
      return resume(Effect.void)
    }
    shell.ref()
    shell.once("exit", () => resume(Effect.void))
    shell.stdin?.end()
  }).pipe(Effect.interruptible, Effect.timeoutOption(PATIENCE), Effect.asVoid)

  private sweep(): void {
    this.sweeping = undefined
    this.tell(`kill ${this.ended.join(" ")}`)
    this.ended = []
  }

  private tell(change: string): void {
    this.shell.stdin?.write(`${change}\n`)
  }

  /** In a session of its own, out of the reach of signals to this process's group; without the marker. */
  private start(): ChildProcess {
    const shell = spawn("sh", ["-c", script, "shadowcat-watchdog", MARKER, this.marker], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      cwd: "/",
      env: { PATH: process.env["PATH"] }
    })
    shell.stdin.on("error", () => {})
    // Where there is no shell, children still end with their sessions, and by themselves when their input ends.
    shell.on("error", () => {})
    shell.on("exit", (_code, signal) => this.replace(signal))
    shell.unref()
    return shell
  }

  /** Something has killed it; one that has ended by itself is no shell that another would be better than. */
  private replace(signal: NodeJS.Signals | null): void {
    if (this.isOver || signal === null) return
    this.shell = this.start()
    for (const group of this.marks.keys()) this.tell(`+ ${group}`)
  }
}

/** A watchdog that is there until the scope closes. */
export const make: Effect.Effect<Watchdog, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => new Watchdog()),
  (watchdog) => watchdog.stop
)
