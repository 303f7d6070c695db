/** Reads the standard output and error of a child process, and reports the reason for its end. */
import type { ChildProcess } from "node:child_process"
import { lineOf, LineSplitter } from "../../internal/lines.js"
import type { Flow } from "../../Upstream.js"

/** Receives the output of a child process. */
export interface ChildListener {
  /** Called with each line of standard output that is not empty. */
  readonly onLine: (line: Buffer) => void
  /** Called with each line of standard error that is not empty. */
  readonly onStderr: (line: string) => void
  /** Called once, after the last line of standard output. */
  readonly onClose: (reason: string) => void
}

/**
 * The time in which output is still read after the exit of the child, in milliseconds. The pipes may stay open longer,
 * because other processes can hold them.
 */
const DRAIN_TIMEOUT = 500

/** The maximum size of a line of standard error that is read completely, in bytes. */
const MAX_STDERR_LINE = 16 * 1024

/** The maximum length of a line of standard error in an error message, in characters. */
const MAX_QUOTED = 300

export class Child implements Flow {
  private isClosed = false
  private lastStderrLine = ""

  constructor(
    private readonly process: ChildProcess,
    /** The maximum size of a message, in bytes. */
    private readonly maxMessage: number,
    private readonly listener: ChildListener
  ) {
    const { stderr, stdin, stdout } = process
    stdin?.on("error", () => this.closeUnlessExited("closed its standard input"))
    const stdoutLines = new LineSplitter(maxMessage)
    stdout?.on("data", (chunk: Buffer) => this.read(stdoutLines, chunk))
    stdout?.on("end", () => {
      const rest = stdoutLines.flush()
      if (rest !== undefined) this.emitLine(rest)
      this.closeUnlessExited("closed its standard output")
    })
    const stderrLines = new LineSplitter(MAX_STDERR_LINE)
    stderr?.on("data", (chunk: Buffer) => {
      const isComplete = stderrLines.push(chunk, (line) => this.emitStderr(line))
      if (!isComplete) this.emitStderr(chunk.subarray(0, MAX_QUOTED))
    })
    stderr?.on("end", () => {
      const rest = stderrLines.flush()
      if (rest !== undefined) this.emitStderr(rest)
    })
    process.on("close", () => this.closeWithExit())
    process.on("exit", () => setTimeout(() => this.closeWithExit(), DRAIN_TIMEOUT).unref())
  }

  /** The number of bytes that the pipe of the child has not taken yet. */
  get unreadBytes(): number {
    return this.process.stdin?.writableLength ?? 0
  }

  /** Writes a message. Calls `done` with true when the child's pipe has taken it, and with false on failure. */
  write(message: Uint8Array, done: (isTaken: boolean) => void): void {
    const { stdin } = this.process
    if (stdin === null || !stdin.writable) return done(false)
    stdin.write(lineOf(message), (error) => done(error == null))
  }

  pause(): void {
    this.process.stdout?.pause()
  }

  unpause(): void {
    this.process.stdout?.resume()
  }

  /** Stops all calls of the listener. */
  detach(): void {
    this.isClosed = true
  }

  private read(lines: LineSplitter, chunk: Buffer): void {
    if (this.isClosed) return
    const isWithinLimit = lines.push(chunk, (line) => this.emitLine(line))
    if (!isWithinLimit) this.close(`sent a message of more than --max-message ${this.maxMessage} bytes`)
  }

  private emitLine(line: Buffer): void {
    if (!this.isClosed && line.length > 0) this.listener.onLine(line)
  }

  private emitStderr(line: Buffer): void {
    const text = line.toString().trim()
    if (text === "") return
    this.lastStderrLine = text.slice(0, MAX_QUOTED)
    this.listener.onStderr(text)
  }

  /**
   * Reports the end of a child that has closed its standard input or output. Waits before, because a closed pipe often
   * precedes an exit, and the exit code is a better reason.
   */
  private closeUnlessExited(reason: string): void {
    const { exitCode, signalCode } = this.process
    if (exitCode === null && signalCode === null) {
      setTimeout(() => this.close(reason), DRAIN_TIMEOUT).unref()
    }
  }

  private closeWithExit(): void {
    const { exitCode, signalCode } = this.process
    this.close(signalCode === null ? `exited with code ${exitCode}` : `was ended by ${signalCode}`)
  }

  private close(reason: string): void {
    if (this.isClosed) return
    this.isClosed = true
    this.listener.onClose(this.lastStderrLine === "" ? reason : `${reason}: ${this.lastStderrLine}`)
  }
}
