/** A child process as a source of messages: reads its standard output and error, and reports how it ended. */
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
 * How long output that the child wrote before its end is still read, in milliseconds. The pipes may stay open longer,
 * because other processes can hold them.
 */
const DRAIN_TIMEOUT = 500

/** The size of the longest line of standard error that is read completely, in bytes. */
const MAX_STDERR_LINE = 16 * 1024

/** How much of a line of standard error an error message quotes, in characters. */
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

  /** The number of bytes that were written to the child and that its pipe has not taken. */
  get unreadBytes(): number {
    return this.process.stdin?.writableLength ?? 0
  }

  /** Writes a message. Calls `done` with true when the child's pipe has taken it, and with false if that fails. */
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

  /** Stops passing messages and the end of the child to the listener. */
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
   * Closes the child after a delay, because it is useless without its standard input or output. A closed pipe is often
   * the first sign of an exit, and the exit gives a better reason.
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
