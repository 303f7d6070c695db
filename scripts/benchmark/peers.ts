import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Children } from "./children.js"

const cache = fileURLToPath(new URL("../../node_modules/.cache/benchmark", import.meta.url))

const patienceMs = 180_000

/** Proxies of others: each comes from npm when a run first needs it, into a folder of its own, and stays there. */
export class Peers {
  readonly #folders = new Map<string, Promise<string>>()

  constructor(
    private readonly children: Children,
    private readonly preload: string
  ) {}

  /** A file of a package, which is named with its exact version. */
  async program(pack: string, file: string): Promise<string> {
    const folder = this.#folders.get(pack) ?? this.#install(pack)
    this.#folders.set(pack, folder)
    return join(await folder, "node_modules", pack.slice(0, pack.lastIndexOf("@")), file)
  }

  async #install(pack: string): Promise<string> {
    const folder = join(cache, pack)
    const stamp = join(folder, "installed")
    if (existsSync(stamp)) return folder
    // What an interrupted installation has left npm may take for complete.
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    const options =
      "--no-save --ignore-scripts --no-audit --no-fund --loglevel error --fetch-retry-mintimeout 1000"
    const npm = this.children.start(
      "npm",
      "npm",
      ["install", ...options.split(" "), "--prefix", folder, pack],
      // npm, too, goes when the bench goes.
      { NODE_OPTIONS: `--import ${this.preload}` }
    )
    if (!(await npm.exitedWithin(patienceMs))) npm.kill()
    await npm.exited
    if (npm.exitCode !== 0) {
      const why = npm.said.replaceAll(/\s+/g, " ").slice(0, 300)
      throw new Error(`${pack} could not be installed: ${why}`)
    }
    writeFileSync(stamp, "")
    return folder
  }
}
