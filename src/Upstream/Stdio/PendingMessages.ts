/** A queue, with limits, of the child's requests and notifications that no answer can carry yet. */
import type { Message, RequestId } from "../../Protocol.js"

const MAX_MESSAGES = 1_000
const MAX_BYTES = 1024 * 1024

interface PendingMessage {
  readonly line: Buffer
  /** The id of a request. Notifications have none. */
  readonly id: RequestId | undefined
}

export class PendingMessages {
  private messages: Array<PendingMessage> = []
  private bytes = 0

  constructor(private readonly rejectRequest: (id: RequestId) => void) {}

  /**
   * Appends a message, and evicts the oldest notifications if a limit is reached. If the message still exceeds a limit,
   * a notification is dropped, and a request is rejected, because the child waits for its response.
   */
  add({ id }: Message, line: Buffer): void {
    const message: PendingMessage = { line, id: id ?? undefined }
    while (line.length <= MAX_BYTES && !this.fits(message) && this.evictOldestNotification());
    if (this.fits(message)) {
      this.messages.push(message)
      this.bytes += line.length
    } else if (message.id !== undefined) this.rejectRequest(message.id)
  }

  /** Removes and returns all messages. */
  takeAll(): ReadonlyArray<Buffer> {
    return this.take(() => true)
  }

  /** Removes and returns all requests. */
  takeRequests(): ReadonlyArray<Buffer> {
    return this.take(({ id }) => id !== undefined)
  }

  private fits({ line }: PendingMessage): boolean {
    return this.messages.length < MAX_MESSAGES && this.bytes + line.length <= MAX_BYTES
  }

  /** Evicts the oldest notification. Returns false if there is none. */
  private evictOldestNotification(): boolean {
    const index = this.messages.findIndex(({ id }) => id === undefined)
    const [evicted] = index < 0 ? [] : this.messages.splice(index, 1)
    this.bytes -= evicted?.line.length ?? 0
    return evicted !== undefined
  }

  private take(isTaken: (message: PendingMessage) => boolean): ReadonlyArray<Buffer> {
    if (this.messages.length === 0) return []
    const taken = this.messages.filter(isTaken)
    this.messages = this.messages.filter((message) => !isTaken(message))
    this.bytes = this.messages.reduce((sum, { line }) => sum + line.length, 0)
    return taken.map(({ line }) => line)
  }
}
