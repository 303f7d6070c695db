import { build } from "esbuild"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const fromHere = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url))

/** The files that child processes run. */
export interface Programs {
  readonly upstream: string
  readonly relay: string
  readonly stdioServer: string
  readonly preload: string
  /** For servers that would listen on all interfaces, and that do not say which port they got. */
  readonly loopback: string
  readonly shadowcat: string
}

/**
 * Bundles the bench's own programs into `folder`, as shadowcat itself is bundled: under tsx they would start
 * slower and hold more memory than what they are compared with.
 */
export const buildPrograms = async (folder: string): Promise<Programs> => {
  await build({
    entryPoints: ["upstream", "relay", "stdioServer", "preload"].map((name) => fromHere(`./${name}.ts`)),
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    minify: true,
    format: "esm",
    platform: "node",
    target: "node20",
    logLevel: "warning",
    // undici is CommonJS, whose `require` an ES module lacks.
    banner: {
      js: 'import{createRequire as benchRequire}from"node:module";const require=benchRequire(import.meta.url);'
    }
  })
  return {
    upstream: join(folder, "upstream.mjs"),
    relay: join(folder, "relay.mjs"),
    stdioServer: join(folder, "stdioServer.mjs"),
    preload: join(folder, "preload.mjs"),
    loopback: fromHere("../loopback.js"),
    shadowcat: fromHere("../../dist/shadowcat.js")
  }
}

export const isBuilt = (program: string): boolean => existsSync(program)
