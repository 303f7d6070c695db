/** The progress of the demo on standard error: one line that is rewritten on a terminal, separate lines elsewhere. */
export class Progress {
  step = ""
  #written = 0

  begin(step: string): void {
    this.step = step
    this.#write(step)
  }

  /** Reports progress within the current step. Where no line can be rewritten, it writes one every 2 s at most. */
  update(text: string): void {
    if (process.stderr.isTTY || performance.now() - this.#written >= 2_000) this.#write(text)
  }

  erase(): void {
    if (process.stderr.isTTY) this.#write("")
  }

  #write(text: string): void {
    const { columns, isTTY } = process.stderr
    this.#written = performance.now()
    // A longer line would wrap, and its first part would stay. Some terminals report 0 columns.
    process.stderr.write(isTTY ? `\r\u001b[K${text.slice(0, (columns || 80) - 1)}` : `${text}\n`)
  }
}
