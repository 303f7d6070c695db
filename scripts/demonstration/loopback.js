// Preloaded into servers of others, which listen on all interfaces and, given port 0, do not say which port they
// got: with this they listen on loopback only, and say where in the words of `shadowcat forward`.
import { Server } from "node:net"

const { listen } = Server.prototype

Server.prototype.listen = function (port, ...rest) {
  this.once("listening", () => console.error(`listening on http://127.0.0.1:${this.address().port}/mcp`))
  // Some name a host, which is text, before a callback.
  return listen.call(this, port, "127.0.0.1", ...rest.filter((argument) => typeof argument !== "string"))
}
