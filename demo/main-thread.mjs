// What the main thread takes, apart from the process's other threads.

/** Starts to measure; the function that it returns gives the microseconds of CPU since then. */
export function mainThreadTime() {
  // Older Nodes cannot count a thread apart: then the writer thread counts, too.
  const usage = process.threadCpuUsage ?? process.cpuUsage
  const start = usage.call(process)
  return () => {
    const { user, system } = usage.call(process, start)
    return user + system
  }
}
