/** Kills the child processes of this process after this process has ended, even by SIGKILL. */
import { spawn, type ChildProcess } from "node:child_process"
import { randomBytes } from "node:crypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** The environment variable that marks a child and its descendants, even outside of their process group. */
export const MARKER = "SHADOWCAT_OWNER"

/**
 * A shell script that reads commands from its standard input. `+ GROUP` and `- GROUP` add and remove a process group.
 * `kill MARK...` kills the processes with these marks.
 *
 * The input ends when this process ends. The script then kills all groups and all processes with the marker. It repeats
 * the search until it finds no process. A process can start another one before it is killed, and its environment is
 * unreadable for an instant during `exec`. Without `/proc` the script kills only the groups.
 *
 * The exit status of `grep` is ignored: processes end during the search, and those of other users are unreadable.
 */
const script = `
owner=$1
marker=$2
groups=' '
# Kills matching processes until so many searches in a row find none. Arguments: the number, then options for grep.
sweep() {
  needed=$1
  shift
  rounds=0
  misses=0
  while [ "$misses" -lt "$needed" ] && [ "$rounds" -lt 100 ]; do
    [ "$misses" -eq 0 ] && [ "$rounds" -lt 3 ] || sleep 0.1
    rounds=$((rounds + 1))
    found=$(grep -lsF "$@" /proc/[0-9]*/environ)
    if [ -n "$found" ]; then needed=2 misses=0; else misses=$((misses + 1)); fi
    for file in $found; do
      pid=\${file#/proc/}
      kill -s KILL "\${pid%/environ}" 2>/dev/null
    done
  done
}
while read -r command args; do
  case $command in
    +) groups="$groups$args " ;;
    -) groups="\${groups%% "$args" *} \${groups#* "$args" }" ;;
    kill)
      set --
      for mark in $args; do set -- "$@" -e "$owner=$mark"; done
      sweep 1 "$@" ;;
  esac
done
needed=1
for group in $groups; do
  needed=2
  kill -s KILL -- "-$group"
done 2>/dev/null
sweep "$needed" -e "$owner=$marker"
`

/** The maximum wait for the watchdog to kill the remaining processes. */
const STOP_TIMEOUT = Duration.seconds(5)

/** The delay between the end of a group and the search for descendants outside of it, in milliseconds. */
const SWEEP_INTERVAL = 1_000

export class Watchdog {
  /** The common prefix of the marks of all children. */
  private readonly prefix = randomBytes(12).toString("hex")
  private readonly marks = new Map<number, string>()
  private lastMark = 0
  /** The marks of ended groups whose descendants have not been killed yet. */
  private endedMarks: Array<string> = []
  private sweepTimer: NodeJS.Timeout | undefined
  private isStopped = false
  private shell = this.startShell()

  /** Returns the value of `MARKER` for the environment of a new child. */
  createMark(): string {
    // The final dot keeps a mark from being the prefix of another.
    return `${this.prefix}.${++this.lastMark}.`
  }

  /** Adds a process group that is killed after this process has ended. */
  addGroup(group: number, mark: string): void {
    this.marks.set(group, mark)
    this.send(`+ ${group}`)
  }

  /**
   * Removes a process group that has ended, because the system can reuse its number. Descendants that left the group
   * are killed within about a second.
   */
  removeGroup(group: number): void {
    const mark = this.marks.get(group)
    if (mark === undefined) return
    this.marks.delete(group)
    this.send(`- ${group}`)
    this.endedMarks.push(mark)
    this.sweepTimer ??= setTimeout(() => this.sweep(), SWEEP_INTERVAL).unref()
  }

  /** Ends the watchdog, which kills the remaining processes, and waits for its exit. */
  readonly stop: Effect.Effect<void> = Effect.async<void>((resume) => {
    this.isStopped = true
    clearTimeout(this.sweepTimer)
    const { shell } = this
    if (shell.pid === undefined || shell.exitCode !== null || shell.signalCode !== null) {
      return resume(Effect.void)
    }
    shell.ref()
    shell.once("exit", () => resume(Effect.void))
    shell.stdin?.end()
  }).pipe(Effect.interruptible, Effect.timeoutOption(STOP_TIMEOUT), Effect.asVoid)

  private sweep(): void {
    this.sweepTimer = undefined
    this.send(`kill ${this.endedMarks.join(" ")}`)
    this.endedMarks = []
  }

  private send(command: string): void {
    this.shell.stdin?.write(`${command}\n`)
  }

  /** Starts the shell in a session of its own, so that signals to this process's group do not reach it. */
  private startShell(): ChildProcess {
    const shell = spawn("sh", ["-c", script, "shadowcat-watchdog", MARKER, this.prefix], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      cwd: "/",
      env: { PATH: process.env["PATH"] }
    })
    shell.stdin.on("error", () => {})
    // Without a shell, children still end with their sessions, or when their standard input ends.
    shell.on("error", () => {})
    shell.on("exit", (_code, signal) => this.restart(signal))
    shell.unref()
    return shell
  }

  /** Starts another shell if the last one was killed. A shell that exits by itself would only exit again. */
  private restart(signal: NodeJS.Signals | null): void {
    if (this.isStopped || signal === null) return
    this.shell = this.startShell()
    for (const group of this.marks.keys()) this.send(`+ ${group}`)
  }
}

/** Starts a watchdog. When the scope closes, it kills the remaining processes and ends. */
export const make: Effect.Effect<Watchdog, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => new Watchdog()),
  (watchdog) => watchdog.stop
)
