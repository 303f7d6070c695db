import { join } from "node:path"
import { request } from "undici"
import type { Child, Children } from "./children.js"
import type { Plan } from "./measure.js"
import { jsonTool, sseTool } from "./messages.js"
import type { Path } from "./paths.js"
import { Peers } from "./peers.js"
import type { Programs } from "./programs.js"
import { Clients } from "./sessions.js"
import { runWrk } from "./wrk.js"

/** A path that is up: where it listens, and its proxy if it has one. */
export interface Running {
  readonly url: string
  readonly proxy?: Child
}

/** A path under load: the same process and the same sessions from the first round to the last. */
export interface Warm extends Running {
  readonly sessions: ReadonlyArray<string>
}

export const connections = 64

/** What measures take their samples with. */
export class Bench {
  readonly peers: Peers
  readonly #warm = new Map<Path, Warm>()
  #memoryFiles = 0

  private constructor(
    readonly plan: Plan,
    readonly programs: Programs,
    readonly children: Children,
    readonly folder: string,
    readonly upstreamUrl: string
  ) {
    this.peers = new Peers(children, programs.preload)
  }

  static async start(plan: Plan, programs: Programs, children: Children, folder: string): Promise<Bench> {
    const upstream = children.start("upstream", process.execPath, [
      "--import",
      programs.preload,
      programs.upstream
    ])
    return new Bench(plan, programs, children, folder, await listening(upstream))
  }

  /** Starts a process of its own for one sample of a path, and ends it after. */
  async fresh<A>(path: Path, use: (running: Running, memoryFile: string) => Promise<A>): Promise<A> {
    const memoryFile = join(this.folder, `memory-${this.#memoryFiles++}.jsonl`)
    const running = await this.#start(path, memoryFile)
    try {
      return await use(running, memoryFile)
    } catch (error) {
      throw explained(error, running)
    } finally {
      if (running.proxy !== undefined) await this.children.stop(running.proxy)
    }
  }

  /** The process of a path that all load is put on; the first call starts it and warms it up. */
  async warm(path: Path): Promise<Warm> {
    const known = this.#warm.get(path)
    if (known !== undefined) {
      if (known.proxy?.running === false) throw new Error(`${path.name} ended: ${known.proxy.said}`)
      return known
    }
    const running = await this.#start(path)
    const clients = new Clients(running.url)
    try {
      const sessions = await clients.open(connections)
      const tools = [jsonTool, sseTool]
      for (const tool of tools) await clients.check(sessions[0] ?? "", tool)
      const warm = { ...running, sessions }
      await this.load(warm, tools, connections, this.plan.warmUpSeconds)
      this.#warm.set(path, warm)
      return warm
    } catch (error) {
      if (running.proxy !== undefined) await this.children.stop(running.proxy)
      throw error
    } finally {
      await clients.end()
    }
  }

  /** Loads a warm path over as many of its sessions as there are connections. */
  async load(warm: Warm, tools: ReadonlyArray<string>, connections: number, seconds: number) {
    const sessions = warm.sessions.slice(0, connections)
    try {
      return await runWrk(this.children, this.folder, {
        url: warm.url,
        sessions,
        tools,
        connections,
        seconds
      })
    } catch (error) {
      throw explained(error, warm)
    }
  }

  /** What the upstream has counted: DELETEs of sessions that it knew, and the streams open now. */
  async counted(what: "deleted" | "streams"): Promise<number> {
    const response = await request(new URL("/stats", this.upstreamUrl))
    const stats = await response.body.json()
    const count: unknown = typeof stats === "object" && stats !== null ? Reflect.get(stats, what) : undefined
    if (typeof count === "number") return count
    throw new Error(`the upstream does not say how many are ${what}`)
  }

  async #start(path: Path, memoryFile?: string): Promise<Running> {
    if (path.proxy === undefined) return { url: this.upstreamUrl }
    const args = await path.proxy(this)
    const proxy = this.children.start(
      path.name,
      process.execPath,
      ["--expose-gc", "--import", this.programs.preload, ...args],
      memoryFile === undefined ? {} : { BENCH_MEMORY_FILE: memoryFile }
    )
    try {
      return { url: await listening(proxy), proxy }
    } catch (error) {
      proxy.kill()
      throw error
    }
  }
}

/** A proxy that is gone explains whatever its clients met. */
const explained = (error: unknown, { proxy }: Running): unknown =>
  error instanceof Error && proxy?.running === false && proxy.said !== ""
    ? new Error(`${error.message}; ${proxy.name} has ended: ${proxy.said}`)
    : error

/** Waits for the line by which every server here says where it listens. */
export const listening = (server: Child): Promise<string> =>
  server.saying(/listening on (http:\/\/127\.0\.0\.1:\d+\/\S*)\s/, 15_000)
