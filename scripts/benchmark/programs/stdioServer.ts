/**
 * The server that stdio proxies start: a minimal MCP server over standard input and output, which exits at the end of
 * its input. Its reads and writes are synchronous, because the event loops of many idle children would cost more than
 * the proxies.
 */
import { readSync, writeSync } from "node:fs"
import { answerCall, answerInitialize, isCall, isInitialize } from "./answers.js"

const answer = (message: string) => {
  if (isCall(message)) writeSync(1, answerCall(message) + "\n")
  else if (isInitialize(message)) writeSync(1, answerInitialize(message) + "\n")
}

const chunk = Buffer.allocUnsafe(64 * 1024)
let rest = ""
for (let length = readSync(0, chunk); length > 0; length = readSync(0, chunk)) {
  const lines = (rest + chunk.toString("latin1", 0, length)).split("\n")
  rest = lines.pop() ?? ""
  for (const line of lines) answer(line)
}
