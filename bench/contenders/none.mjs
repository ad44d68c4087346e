// The control: producers and timers as for the others, and nothing is written.

export const chunkSize = 1000

export function open() {
  let count = 0
  const append = () => {
    count += 1
  }
  return { append, appendMany: (rows) => rows.forEach(append), drain() {}, count: () => count, close() {} }
}
