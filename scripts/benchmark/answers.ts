/** What the servers of the bench say, in the least time: no message is parsed. */

// `tools/call` answers carry the 64 bytes that the calls carry.
const echo = "x".repeat(64)

// Answers carry the id of their request: a proxy may look at it.
const idOf = (message: string): string => /"id":\s*("[^"]*"|-?\d+)/.exec(message)?.[1] ?? "null"

export const isCall = (message: string): boolean => message.includes('"tools/call"')

export const isInitialize = (message: string): boolean => message.includes('"initialize"')

export const answerCall = (message: string): string =>
  `{"jsonrpc":"2.0","id":${idOf(message)},"result":{"content":[{"type":"text","text":"${echo}"}]}}`

export const answerInitialize = (message: string): string => {
  const version = /"protocolVersion":\s*("[^"]*")/.exec(message)?.[1] ?? '"2025-11-25"'
  const result = `{"protocolVersion":${version},"capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"0"}}`
  return `{"jsonrpc":"2.0","id":${idOf(message)},"result":${result}}`
}
