// The results as Markdown.

import os from 'node:os'
import { cells } from './cells.mjs'
import { columns } from './columns.mjs'

const format = (number) => number.toLocaleString('en-US')
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`

export function machine() {
  const model = os.cpus()[0]?.model.trim() ?? 'unknown'
  return `Node ${process.versions.node}, ${os.availableParallelism()} cores (${model}), ${os.type()} ${os.release()}`
}

/** Adds one run to the sums of its cell and column. */
export function add(results, run) {
  const key = `${run.cell}/${run.column}`
  if (!results.has(key)) {
    results.set(key, {
      runs: 0,
      faults: 0,
      rows: 0,
      lost: 0,
      doubled: 0,
      disordered: 0,
      failed: 0,
      damaged: 0,
      crashes: new Map(),
      violations: new Map(),
      observations: new Map(),
      remarks: new Set(),
      skipped: null,
      peak: {},
    })
  }
  const sum = results.get(key)
  if (run.skipped) {
    sum.skipped = run.skipped
    return
  }
  sum.runs++
  for (const name of ['faults', 'rows', 'lost', 'doubled', 'disordered', 'failed', 'damaged'])
    sum[name] += run[name] ?? 0
  for (const signal of run.crashes ?? []) sum.crashes.set(signal, (sum.crashes.get(signal) ?? 0) + 1)
  for (const text of run.violations) if (!sum.violations.has(text)) sum.violations.set(text, run.seed)
  for (const text of run.observations) if (!sum.observations.has(text)) sum.observations.set(text, run.seed)
  for (const text of run.remarks) sum.remarks.add(text)
  for (const [what, value] of Object.entries(run.peak ?? {})) sum.peak[what] = Math.max(sum.peak[what] ?? 0, value)
}

function verdict(sum, column) {
  if (sum === undefined) return ''
  if (sum.runs === 0) return `not run: ${sum.skipped}`
  const bad = []
  if (sum.lost > 0) bad.push(`${format(sum.lost)} rows lost`)
  if (sum.doubled > 0) bad.push(`${format(sum.doubled)} rows twice`)
  if (sum.disordered > 0) bad.push(`${format(sum.disordered)} rows out of order`)
  if (sum.damaged > 0) bad.push(`damaged in ${sum.damaged} of ${sum.runs} runs`)
  for (const [signal, count] of sum.crashes) bad.push(`${count} × ${signal}`)
  const size = `${format(sum.rows)} rows, ${format(sum.faults)} faults`
  const failed = sum.failed > 0 ? `, ${format(sum.failed)} calls failed` : ''
  if (sum.violations.size > 0) return `**broken**: ${bad.join(', ') || 'see below'} (${size}${failed})`
  if (bad.length > 0 || sum.observations.size > 0) {
    const what = bad.join(', ') || 'see below'
    return column.name === 'node' ? `**${what}** (${size}${failed})` : `${what}; not promised (${size}${failed})`
  }
  return `kept: ${size}${failed}`
}

export function matrixReport({ results, rounds, minutes, command, machine: where }) {
  const there = (list, at) => list.filter(({ name }) => [...results.keys()].some((key) => key.split('/')[at] === name))
  const rows = there(cells, 0)
  const shown = there(columns, 1)
  const lines = [
    `\`${command}\`: ${rounds} ${rounds === 1 ? 'round' : 'rounds'} in ${minutes.toFixed(1)} minutes. ${where}.`,
    '',
    `| while agents append | ${shown.map(({ title }) => title).join(' | ')} |`,
    `| --- | ${shown.map(() => '---').join(' | ')} |`,
  ]
  for (const cell of rows) {
    const verdicts = shown.map((column) => verdict(results.get(`${cell.name}/${column.name}`), column))
    lines.push(`| ${cell.title} (\`${cell.name}\`) | ${verdicts.join(' | ')} |`)
  }
  const sums = [...results].filter(([key]) => !key.endsWith('/node'))
  const peak = (what) => Math.max(0, ...sums.map(([, sum]) => sum.peak[what] ?? 0))
  const total = (what) => sums.reduce((sum, [, result]) => sum + result[what], 0)
  lines.push(
    '',
    `With this package: ${format(total('rows'))} acknowledged rows, ${format(total('faults'))} faults. A process had at most ${mebibytes(peak('rss'))} resident, ${peak('descriptors')} descriptors, ${peak('threads')} threads.`,
  )
  const list = (title, which, keys) => {
    const found = keys.flatMap(([key, sum]) =>
      [...sum[which]].map(([text, seed]) => `- \`${key}\`, seed ${seed}: ${text}`),
    )
    if (found.length > 0) lines.push('', title, '', ...found)
  }
  list('**Broken promises:**', 'violations', [...results])
  list('Not promised, and seen:', 'observations', sums)
  return lines.join('\n')
}

export function soakReport({ samples, seed, rows, faults, kills, checks, violations, minutes, bounds }, command) {
  const lines = [
    `\`${command}\`: ${minutes.toFixed(1)} minutes, seed ${seed}, ${format(rows)} acknowledged rows checked, ${format(faults)} faults, ${format(kills)} of them SIGKILLs, ${format(checks)} checks of the whole database. ${machine()}.`,
    '',
    '| minute | resident, the process that lives | resident, most | descriptors | threads | database | -wal | -shm | files |',
    '| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
  ]
  const step = Math.max(1, Math.ceil(samples.length / 20))
  for (const [index, sample] of samples.entries()) {
    if (index % step !== 0 && index !== samples.length - 1) continue
    const kib = (bytes) => `${format(Math.round(bytes / 1024))} KiB`
    lines.push(
      `| ${sample.minute.toFixed(1)} | ${mebibytes(sample.rss)} | ${mebibytes(sample.most)} | ${sample.descriptors} | ${sample.threads} | ${kib(sample.database)} | ${kib(sample.wal)} | ${kib(sample.shm)} | ${sample.files} |`,
    )
  }
  lines.push('', `Bounds: ${bounds}.`)
  lines.push('', violations.length === 0 ? 'Within the bounds.' : '**Broken promises:**')
  for (const text of violations) lines.push(`- ${text}`)
  return lines.join('\n')
}
