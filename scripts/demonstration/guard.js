// Preloaded into the servers of the demo: they go when it goes, even by SIGKILL, which closes this pipe.
process.stdin.on("end", () => process.kill(process.pid, "SIGKILL")).resume()
process.stdin.unref()
