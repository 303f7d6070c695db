/** What the upstream has asked of the client, until the client has answered. */
import { mayHoldRequest, messages } from "../Protocol/SseFrames.js"
import type { Message, RequestId } from "../Protocol.js"

/** How many are remembered. */
const MAX = 1_000

export class ServerRequests {
  /** By what tells ids apart: `1` and `"1"` are two. */
  private open: Map<string, RequestId> | undefined

  get ids(): ReadonlyArray<RequestId> {
    return Array.from(this.open?.values() ?? [])
  }

  /** The upstream says something. */
  heard(frames: Buffer): void {
    if (!mayHoldRequest(frames)) return
    const open = (this.open ??= new Map<string, RequestId>())
    for (const { id, method } of messages(frames)) {
      if (method === undefined || id === undefined || id === null) continue
      open.set(JSON.stringify(id), id)
      const [oldest] = open.keys()
      if (open.size > MAX && oldest !== undefined) open.delete(oldest)
    }
  }

  /** Whether a response of the client's answers one of them; from then on it does no more. */
  settle({ id }: Message): boolean {
    return this.open !== undefined && this.open.delete(JSON.stringify(id))
  }

  clear(): void {
    this.open = undefined
  }
}
