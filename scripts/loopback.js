// Preloaded into servers that listen on all interfaces and do not print their port. Makes them listen on loopback only
// and print their URL in the format of `shadowcat forward`.
import { Server } from "node:net"

const { listen } = Server.prototype

Server.prototype.listen = function (port, ...rest) {
  this.once("listening", () => console.error(`listening on http://127.0.0.1:${this.address().port}/mcp`))
  // Some servers pass a host name, which is a string, before the callback.
  return listen.call(this, port, "127.0.0.1", ...rest.filter((argument) => typeof argument !== "string"))
}
