/** A server that is a command: what it says on standard output and error, and how it ended. */
import type { ChildProcess } from "node:child_process"
import { lineOf, LineSplitter } from "../../internal/lines.js"
import type { Flow } from "../../Upstream.js"

/** Hears what a child says. */
export interface ChildListener {
  /** A line of its standard output. */
  readonly onLine: (line: Buffer) => void
  /** A line of its standard error. */
  readonly onStderr: (line: string) => void
  /** It says nothing more, for this reason; the last call. */
  readonly onClose: (why: string) => void
}

/** How long what a child has written before its end may take to be read, in milliseconds: others may hold its pipe. */
const LAST_WORDS = 500

/** How much of one line of standard error is looked at, in bytes, and how much of it told, in characters. */
const MAX_COMPLAINT = 16 * 1024
const MAX_QUOTED = 300

export class Child implements Flow {
  private isGone = false
  private lastComplaint = ""

  constructor(
    private readonly process: ChildProcess,
    /** How many bytes a message may have. */
    private readonly maxMessage: number,
    private readonly listener: ChildListener
  ) {
    const { stderr, stdin, stdout } = process
    stdin?.on("error", () => this.closes("closed its standard input"))
    const lines = new LineSplitter(maxMessage)
    stdout?.on("data", (chunk: Buffer) => this.read(lines, chunk))
    stdout?.on("end", () => {
      const rest = lines.flush()
      if (rest !== undefined) this.say(rest)
      this.closes("closed its standard output")
    })
    const complaints = new LineSplitter(MAX_COMPLAINT)
    stderr?.on("data", (chunk: Buffer) => {
      if (!complaints.push(chunk, (line) => this.complain(line))) this.complain(chunk.subarray(0, MAX_QUOTED))
    })
    stderr?.on("end", () => {
      const rest = complaints.flush()
      if (rest !== undefined) this.complain(rest)
    })
    process.on("close", () => this.exited())
    process.on("exit", () => setTimeout(() => this.exited(), LAST_WORDS).unref())
  }

  /** How many bytes wait for the child to read them. */
  get unreadBytes(): number {
    return this.process.stdin?.writableLength ?? 0
  }

  /** Writes a message; `done` is told whether the child's pipe has taken it. */
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

  /** Hears no more of it. */
  detach(): void {
    this.isGone = true
  }

  private read(lines: LineSplitter, chunk: Buffer): void {
    if (this.isGone) return
    const isRead = lines.push(chunk, (line) => this.say(line))
    if (!isRead) this.go(`sent a message of more than --max-message ${this.maxMessage} bytes`)
  }

  private say(line: Buffer): void {
    if (!this.isGone && line.length > 0) this.listener.onLine(line)
  }

  private complain(line: Buffer): void {
    const text = line.toString().trim()
    if (text === "") return
    this.lastComplaint = text.slice(0, MAX_QUOTED)
    this.listener.onStderr(text)
  }

  /** A child that can be told nothing, or say nothing, is as good as ended. Most often it is the first sign of its end. */
  private closes(what: string): void {
    const { exitCode, signalCode } = this.process
    if (exitCode === null && signalCode === null) setTimeout(() => this.go(what), LAST_WORDS).unref()
  }

  private exited(): void {
    const { exitCode, signalCode } = this.process
    this.go(signalCode === null ? `exited with code ${exitCode}` : `was ended by ${signalCode}`)
  }

  private go(why: string): void {
    if (this.isGone) return
    this.isGone = true
    this.listener.onClose(this.lastComplaint === "" ? why : `${why}: ${this.lastComplaint}`)
  }
}
