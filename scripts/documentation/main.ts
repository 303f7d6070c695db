/** Updates the options tables of README.md. */
import { readFileSync, writeFileSync } from "node:fs"
import { withOptions } from "./readme.js"

const file = new URL("../../README.md", import.meta.url)
writeFileSync(file, withOptions(readFileSync(file, "utf8")))
