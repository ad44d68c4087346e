// Bars for a terminal: what each way costs a row.

const WIDTH = 44
const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']

function bar(value, most) {
  const eighths = Math.max(1, Math.round((value / most) * WIDTH * 8))
  return '█'.repeat(eighths >> 3) + EIGHTHS[eighths & 7]
}

const shown = (value) => value.toLocaleString('en-US', { maximumFractionDigits: value < 10 ? 1 : 0 })

/** A title, then a bar for each of `values`, by name, and how many times the first is the last. */
export function bars(title, unit, values) {
  const entries = Object.entries(values)
  const most = Math.max(...entries.map(([, value]) => value))
  const names = Math.max(...entries.map(([name]) => name.length))
  const lines = entries.map(([name, value]) => `  ${name.padEnd(names)}  ${bar(value, most)} ${shown(value)} ${unit}`)
  const [[, first], [, last]] = [entries[0], entries.at(-1)]
  return [`${title}, a row (${shown(first / last)} times less)`, ...lines].join('\n')
}
