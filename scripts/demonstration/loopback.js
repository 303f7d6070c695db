// Preloaded into the demo server, which listens on all interfaces and, given port 0, does not say which port it
// got: with this it listens on loopback only, and says where in the words of `shadowcat forward`.
import { Server } from "node:net"

const { listen } = Server.prototype

Server.prototype.listen = function (port, ...rest) {
  this.once("listening", () => console.error(`listening on http://127.0.0.1:${this.address().port}/mcp`))
  return listen.call(this, port, "127.0.0.1", ...rest)
}
