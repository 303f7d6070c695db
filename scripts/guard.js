// Preloaded into child processes. The script that started a child holds its standard input open. When the script ends,
// even by SIGKILL, the input ends, and the child kills itself.
process.stdin.on("end", () => process.kill(process.pid, "SIGKILL")).resume()
process.stdin.unref()
