// Medians and ranges as Markdown tables, and the targets.

import os from 'node:os'
import path from 'node:path'

const names = {
  a: "(a) Fusion 0.13's way",
  b: '(b) JavaScript buffer, 50 rows or 2 s',
  c: '(c) better-sqlite3, 1,000 rows a transaction',
  d: '(d) fusion-sqlite, 1,000 entries a call',
  d1: '(d) fusion-sqlite, one entry a call',
  e: '(e) the limit: Rust, no Node',
  none: 'control: nothing written',
}

const decimals = (value) => (value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 4)
const number = (value) => value.toLocaleString('en-US', { maximumFractionDigits: decimals(Math.abs(value)) })

const median = (numbers) => {
  const sorted = numbers.toSorted((x, y) => x - y)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** A column: the title and where a run keeps its value. */
const columns = [
  ['main thread, CPU ns/row', 'cpuNsPerRow'],
  ['in calls, wall ns/row', 'wallNsPerRow'],
  ['rows/s until durable', 'rowsPerSecond'],
  ['loop delay p99 ms', 'delayP99Ms'],
  ['max ms', 'delayMaxMs'],
  ['WAL bytes/row', 'walBytesPerRow'],
  ['syncs/row', 'syncsPerRow'],
]

const table = (first, titles, lines) =>
  [`| ${first} | ${titles.join(' | ')} |`, `|---|${'--:|'.repeat(titles.length)}`, ...lines].join('\n')

export function report(list, runs, failures, settings, seconds) {
  const raw = (key, field) =>
    (runs.get(key) ?? []).map((run) => run[field]).filter((value) => value !== undefined && value !== null)
  /** As measured; a paced run's CPU less what the producers and the measuring take without a write. */
  const values = (key, field) => {
    const [letter, rate] = key.split('@')
    const control = field === 'cpuNsPerRow' && rate && letter !== 'none' ? raw(`none@${rate}`, field) : []
    return control.length === 0 ? raw(key, field) : raw(key, field).map((value) => Math.max(0, value - median(control)))
  }
  const middle = (key, field) => (values(key, field).length > 0 ? median(values(key, field)) : null)

  const cell = (key, field) => {
    const all = values(key, field)
    if (all.length === 0) return 'n/a'
    const [low, high] = [Math.min(...all), Math.max(...all)]
    return all.length > 1 ? `${number(median(all))} (${number(low)}–${number(high)})` : number(low)
  }
  const line = (title, key, fields) =>
    failures.has(key) && runs.get(key).length === 0
      ? `| ${title} | failed |${' |'.repeat(fields.length - 1)}`
      : `| ${title} | ${fields.map((field) => cell(key, field)).join(' | ')} |`

  const of = (scenario) => list.filter((configuration) => configuration.scenario === scenario)
  const fields = columns.map(([, field]) => field)
  const titles = columns.map(([title]) => title)
  const sections = [
    `Median (lowest–highest) of ${settings.repetitions} interleaved runs, each in its own process. ` +
      `Node ${process.version}, ${process.platform}-${process.arch}, ${os.cpus().length} CPUs (${os.cpus()[0]?.model.trim()}), ` +
      `rows from ${path.basename(settings.input)}, ${Math.round(seconds)} s in all.`,
  ]
  if (of('saturated').length > 0) {
    sections.push(
      '### Saturated: four producers, as fast as rows are taken',
      table(
        '',
        titles,
        of('saturated').map(({ key }) => line(names[key], key, fields)),
      ),
    )
  }
  for (const rate of new Set(of('paced').map(({ job }) => job.rate))) {
    const lines = of('paced')
      .filter(({ job }) => job.rate === rate)
      .map(({ key }) =>
        line(names[key.split('@')[0]].replace(', 1,000 entries a call', ', one entry a call'), key, fields),
      )
    sections.push(
      `### Paced: ${number(rate)} entries a second from four producers`,
      `CPU is net of the control's, which pays for the producers' timers and for measuring.`,
      table('', titles, lines),
    )
  }
  if (of('cost').length > 0) {
    sections.push(
      '### What the calling thread pays',
      table(
        '',
        ['in the call, wall ns/row', 'main thread, CPU ns/row'],
        of('cost').map(({ key, job }) => line(job.cost, key, ['wallNsPerRow', 'cpuNsPerRow'])),
      ),
    )
  }
  if (of('agents').length > 0) {
    sections.push(
      '### Event-loop delay under 20 agents × 100 entries a second',
      table(
        '',
        ['p50 ms', 'p99 ms', 'max ms'],
        of('agents').map(({ key, job }) =>
          line(job.idle ? 'idle' : '20 agents', key, ['delayP50Ms', 'delayP99Ms', 'delayMaxMs']),
        ),
      ),
    )
  }

  const results = targets(middle)
  if (results.length > 0) {
    sections.push(
      '### Targets',
      table(
        'medians compared',
        ['target', 'measured', ''],
        results.map(
          ({ name, wanted, measured, met, unit }) =>
            `| ${name} | ${wanted} | ${number(measured)}${unit} | ${met ? 'pass' : 'miss'} |`,
        ),
      ),
    )
  }
  if (failures.size > 0) {
    sections.push(
      '### Failed',
      ...[...failures].map(([key, reason]) => `- ${key}: ${reason.split('\n').slice(-12).join('\n  ')}`),
    )
  }
  return { markdown: `${sections.join('\n\n')}\n`, missed: results.filter(({ met }) => !met).length }
}

/** The ratios that this package promises, of one run's medians; those whose sides were both measured. */
function targets(middle) {
  const results = []
  const compare = (name, [key, field], [otherKey, otherField], limit, { least = false } = {}) => {
    const [ours, other] = [middle(key, field), middle(otherKey, otherField)]
    if (ours === null || other === null) return
    const measured = ours / other
    results.push({
      name,
      wanted: least ? `at least ${limit}` : `at most ${limit}`,
      measured,
      unit: '',
      met: least ? measured >= limit : measured <= limit,
    })
  }
  compare(
    'appendAgentLogs with 1,000 entries against node:sqlite `run()` in one transaction, wall in the call',
    ['ours-batch', 'wallNsPerRow'],
    ['node-batch', 'wallNsPerRow'],
    0.125,
  )
  compare(
    'the same, CPU of the main thread with receipts and commits',
    ['ours-batch', 'cpuNsPerRow'],
    ['node-batch', 'cpuNsPerRow'],
    0.125,
  )
  compare(
    "appendAgentLog against node:sqlite's one-row commit, wall in the call",
    ['ours-single', 'wallNsPerRow'],
    ['node-single', 'wallNsPerRow'],
    0.25,
  )
  compare('the same, CPU of the main thread', ['ours-single', 'cpuNsPerRow'], ['node-single', 'cpuNsPerRow'], 0.25)
  compare('rows/s, (d) against (e)', ['d', 'rowsPerSecond'], ['e', 'rowsPerSecond'], 0.9, { least: true })
  compare('WAL bytes a row, (d) against (a), saturated', ['d', 'walBytesPerRow'], ['a', 'walBytesPerRow'], 0.1)
  compare('syncs a row, (d) against (a), saturated', ['d', 'syncsPerRow'], ['a', 'syncsPerRow'], 0.01)
  compare('WAL bytes a row, (d) against (a), 20/s', ['d@20', 'walBytesPerRow'], ['a@20', 'walBytesPerRow'], 0.3)
  compare('syncs a row, (d) against (a), 20/s', ['d@20', 'syncsPerRow'], ['a@20', 'syncsPerRow'], 0.1)

  const [busy, idle] = [middle('agents', 'delayP99Ms'), middle('idle', 'delayP99Ms')]
  if (busy !== null && idle !== null) {
    results.push({
      name: 'event-loop p99 delay, 20 agents × 100/s above idle',
      wanted: 'at most 1 ms',
      measured: busy - idle,
      unit: ' ms',
      met: busy - idle <= 1,
    })
  }
  return results
}
