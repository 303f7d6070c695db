/** The requests of the server that the client has not answered. */
import { mayHoldRequest, messages } from "../Protocol/SseFrames.js"
import type { Message, RequestId } from "../Protocol.js"

/** The maximum number of stored requests. The oldest is evicted first. */
const MAX_REQUESTS = 1_000

export class ServerRequests {
  /** The requests by their id as JSON, because `1` and `"1"` differ. Created with the first request. */
  private open: Map<string, RequestId> | undefined

  get ids(): ReadonlyArray<RequestId> {
    return Array.from(this.open?.values() ?? [])
  }

  /** Notes the requests in frames from the upstream. */
  note(frames: Buffer): void {
    if (!mayHoldRequest(frames)) return
    const open = (this.open ??= new Map<string, RequestId>())
    for (const { id, method } of messages(frames)) {
      if (method === undefined || id === undefined || id === null) continue
      open.set(JSON.stringify(id), id)
      const [oldest] = open.keys()
      if (open.size > MAX_REQUESTS && oldest !== undefined) open.delete(oldest)
    }
  }

  /** Notes a response of the client. Returns true if it answers one of the requests. */
  settle({ id }: Message): boolean {
    return this.open !== undefined && this.open.delete(JSON.stringify(id))
  }

  clear(): void {
    this.open = undefined
  }
}
