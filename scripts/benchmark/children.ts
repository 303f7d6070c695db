import { type ChildProcess, spawn } from "node:child_process"

/** A child process, and what it has said so far. */
export class Child {
  readonly exited: Promise<void>
  #said = ""

  constructor(
    private readonly child: ChildProcess,
    readonly name: string
  ) {
    this.exited = new Promise((resolve) => {
      child.once("exit", () => resolve())
      child.once("error", (error) => {
        this.#said += error.message
        resolve()
      })
    })
    const hear = (chunk: Buffer) => {
      this.#said = (this.#said + chunk.toString("utf8")).slice(-16_384)
    }
    child.stdout?.on("data", hear)
    child.stderr?.on("data", hear)
    // A child that is gone closes its end of this pipe, which says no more than its exit does.
    child.stdin?.on("error", () => {})
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.name} did not start: ${this.#said}`)
    return this.child.pid
  }

  get running(): boolean {
    return this.child.pid !== undefined && this.child.exitCode === null && this.child.signalCode === null
  }

  get exitCode(): number | null {
    return this.child.exitCode
  }

  get said(): string {
    return this.#said.trim()
  }

  signal(signal: NodeJS.Signals): void {
    if (this.running) this.child.kill(signal)
  }

  /** Ends the child's whole group, at once. */
  kill(): void {
    if (!this.running) return
    try {
      process.kill(-this.pid, "SIGKILL")
    } catch {
      this.child.kill("SIGKILL")
    }
  }

  /** Waits until the child has said `pattern`, and gives the first group of the match. */
  async saying(pattern: RegExp, withinMs: number): Promise<string> {
    const deadline = performance.now() + withinMs
    for (;;) {
      const found = pattern.exec(this.#said)?.[1]
      if (found !== undefined) return found
      if (!this.running) throw new Error(`${this.name} ended before it was ready: ${this.said}`)
      const left = deadline - performance.now()
      if (left <= 0) throw new Error(`${this.name} was not ready within ${withinMs} ms: ${this.said}`)
      await this.#moreSaid(left)
    }
  }

  /** Waits for the exit; false when it did not come in time. */
  async exitedWithin(ms: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), ms)
    })
    const inTime = await Promise.race([this.exited.then(() => true), late])
    clearTimeout(timer)
    return inTime
  }

  #moreSaid(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.child.stdout?.off("data", done)
        this.child.stderr?.off("data", done)
        this.child.off("exit", done)
        resolve()
      }
      const timer = setTimeout(done, withinMs)
      this.child.stdout?.on("data", done)
      this.child.stderr?.on("data", done)
      this.child.on("exit", done)
    })
  }
}

/** All child processes of this run, so that none outlives it. */
export class Children {
  readonly #all = new Set<Child>()

  start(name: string, command: string, args: ReadonlyArray<string>, env: NodeJS.ProcessEnv = {}): Child {
    // A group of its own each: what a child has started goes with it.
    const child = new Child(
      spawn(command, [...args], {
        stdio: ["pipe", "pipe", "pipe"],
        detached: true,
        env: { ...process.env, ...env }
      }),
      name
    )
    this.#all.add(child)
    void child.exited.then(() => this.#all.delete(child))
    return child
  }

  /** Asks a child to end, and ends it if it does not. */
  async stop(child: Child): Promise<void> {
    child.signal("SIGTERM")
    if (!(await child.exitedWithin(15_000))) child.kill()
    await child.exited
  }

  killAll(): void {
    for (const child of this.#all) child.kill()
  }
}
