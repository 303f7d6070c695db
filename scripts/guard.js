// Preloaded into child processes: the script that started them holds their standard input open. When the script
// ends, even by SIGKILL, the input ends and so do they.
process.stdin.on("end", () => process.kill(process.pid, "SIGKILL")).resume()
process.stdin.unref()
