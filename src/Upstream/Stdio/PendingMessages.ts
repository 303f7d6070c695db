/** What a child has said while there was nobody to be told, within bounds. */
import type { Message, RequestId } from "../../Protocol.js"

/** How many messages wait, and how many bytes they may have. */
const MAX_MESSAGES = 1_000
const MAX_BYTES = 1024 * 1024

interface Item {
  readonly line: Buffer
  /** The id of a request; notifications have none. */
  readonly id: RequestId | undefined
}

export class PendingMessages {
  private items: Array<Item> = []
  private bytes = 0

  constructor(private readonly refuse: (id: RequestId) => void) {}

  /** Keeps a message. At a bound the oldest notifications go; a request is refused, for the child waits for an answer. */
  add({ id }: Message, line: Buffer): void {
    const item: Item = { line, id: id ?? undefined }
    while (line.length <= MAX_BYTES && !this.fits(item) && this.dropOldest());
    if (this.fits(item)) {
      this.items.push(item)
      this.bytes += line.length
    } else if (item.id !== undefined) this.refuse(item.id)
  }

  /** Takes everything out. */
  takeAll(): ReadonlyArray<Buffer> {
    return this.take(() => true)
  }

  /** Takes the requests out. */
  takeRequests(): ReadonlyArray<Buffer> {
    return this.take(({ id }) => id !== undefined)
  }

  private fits({ line }: Item): boolean {
    return this.items.length < MAX_MESSAGES && this.bytes + line.length <= MAX_BYTES
  }

  private dropOldest(): boolean {
    const index = this.items.findIndex(({ id }) => id === undefined)
    const [dropped] = index < 0 ? [] : this.items.splice(index, 1)
    this.bytes -= dropped?.line.length ?? 0
    return dropped !== undefined
  }

  private take(isTaken: (item: Item) => boolean): ReadonlyArray<Buffer> {
    if (this.items.length === 0) return []
    const taken = this.items.filter(isTaken)
    this.items = this.items.filter((item) => !isTaken(item))
    this.bytes = this.items.reduce((sum, { line }) => sum + line.length, 0)
    return taken.map(({ line }) => line)
  }
}
