'use strict'

// The command line, taken apart and checked.

const { existsSync } = require('node:fs')
const { parseArgs } = require('node:util')

/** What makes a command line wrong, for its user. */
class UsageError extends Error {}

const json = { type: 'boolean', default: false }
const help = { type: 'boolean', short: 'h', default: false }

/**
 * By name: what it is for, its operands (those in brackets may be left out), its options for
 * `parseArgs` and what they are for. An option may replace the operands.
 */
const commands = {
  doctor: {
    purpose: 'check a database, explain what was found, and repair it if asked to',
    operands: ['FILE'],
    options: {
      quick: { type: 'boolean', default: false, purpose: 'do not compare indexes with their tables' },
      repair: { type: 'boolean', default: false, purpose: 'repair it without asking' },
      'allow-loss': {
        type: 'boolean',
        default: false,
        purpose: 'repair it even if SQLite can read rows of it that the repair lacks',
      },
      backup: { type: 'string', multiple: true, value: 'FILE', purpose: 'a backup that the repair may take rows from' },
      map: { type: 'string', value: 'OUT.svg', purpose: 'draw the file, page by page' },
    },
  },
  info: {
    purpose: 'who has a database open, and what can be said of it without changing it',
    operands: ['FILE'],
    options: {
      platform: {
        type: 'boolean',
        default: false,
        operands: ['[FOLDER]'],
        purpose: 'what the system answers in FOLDER (the current one unless given), for a report',
      },
    },
  },
  backup: {
    purpose: 'copy a database that may be in use; DEST is FILE.backup unless given',
    operands: ['FILE', '[DEST]'],
    options: {
      keep: { type: 'string', value: 'N', purpose: 'how many backups are kept; 2 unless given' },
      verify: {
        type: 'string',
        value: 'HOW',
        purpose: 'how the copy is checked: full (unless given), quick or none',
      },
    },
  },
  restore: {
    purpose: 'put a backup in the place of a database that may be in use',
    operands: ['FILE', 'FROM'],
    options: {
      verify: {
        type: 'string',
        value: 'HOW',
        purpose: 'how the backup is checked first: full (unless given), quick or none',
      },
    },
  },
  checkpoint: {
    purpose: 'check a database, then move what is in its WAL into the file',
    operands: ['FILE'],
    options: {
      mode: { type: 'string', value: 'MODE', purpose: 'passive, full, restart or truncate (unless given)' },
    },
  },
  recover: {
    purpose: 'read what can be read of a damaged database into a new one; SRC is not changed',
    operands: ['SRC', 'DST'],
    options: {
      backup: { type: 'string', multiple: true, value: 'FILE', purpose: 'a backup that rows may be taken from' },
    },
  },
}

function synopsis(name, flag) {
  const { operands, options } = commands[name]
  const own = flag === undefined ? operands : [`--${flag}`, ...options[flag].operands]
  return ['fusion-sqlite', name, ...own, '[options]'].join(' ')
}

/** The option that replaces the operands of the command `name`, or undefined. */
function replacing(name) {
  return Object.keys(commands[name].options).find((flag) => commands[name].options[flag].operands !== undefined)
}

/** The text of `--help`, for one command or for all. */
function usage(name) {
  const lines = []
  const option = (flag, purpose) => lines.push(`  ${flag.padEnd(18)}${purpose}`)
  if (name === undefined) {
    lines.push('Usage: fusion-sqlite COMMAND …', '')
    for (const [command, { purpose, operands }] of Object.entries(commands)) {
      lines.push(`  ${[command, ...operands].join(' ')}`, `      ${purpose}`)
    }
    lines.push('', 'fusion-sqlite COMMAND --help lists the options of a command.')
  } else {
    lines.push(`Usage: ${synopsis(name)}`)
    if (replacing(name) !== undefined) lines.push(`       ${synopsis(name, replacing(name))}`)
    lines.push('', `${name}: ${commands[name].purpose}.`, '')
    for (const [flag, { value, purpose }] of Object.entries(commands[name].options)) {
      option(value === undefined ? `--${flag}` : `--${flag} ${value}`, purpose)
    }
    option('--json', 'print one JSON object instead of text')
    option('--help', 'print this')
  }
  lines.push(
    '',
    'Exit codes: 0 healthy or done, 1 repaired, 2 damaged or rows are missing, 3 locked by another process,',
    '64 wrong usage, 66 no such file, 70 another failure, 130 cancelled.',
  )
  return lines.join('\n')
}

function oneOf(name, value, choices, fallback) {
  if (value === undefined) return fallback
  if (!choices.includes(value)) throw new UsageError(`--${name} takes ${choices.join(', ')}; not ${value}`)
  return value
}

function wholeNumber(name, value) {
  if (value === undefined) return undefined
  if (!/^\d{1,6}$/.test(value) || Number(value) < 2) {
    throw new UsageError(`--${name} takes a number from 2 on; not ${value}`)
  }
  return Number(value)
}

/**
 * `argv` without the program's name as `{ command, operands, …options }`, or `{ help }` with the
 * text to print, or `{ version: true }`.
 */
function parse(argv) {
  const [name, ...rest] = argv
  if (name === undefined) throw new UsageError('a command is missing')
  if (name === '--help' || name === '-h' || name === 'help')
    return { help: usage(rest[0] in commands ? rest[0] : undefined) }
  if (name === '--version' || name === '-v') return { version: true }
  if (!Object.hasOwn(commands, name)) {
    const hint = existsSync(name) ? `; to check the file of that name: fusion-sqlite doctor ${name}` : ''
    throw new UsageError(`there is no command ${name}${hint}`)
  }
  const { options } = commands[name]
  let parsed
  try {
    parsed = parseArgs({ args: rest, allowPositionals: true, options: { ...options, json, help } })
  } catch (error) {
    if (!error.code?.startsWith('ERR_PARSE_ARGS_')) throw error
    throw new UsageError(error.message.split('. To specify')[0])
  }
  const { positionals } = parsed
  const { help: helpIsWanted, ...values } = parsed.values
  if (helpIsWanted) return { help: usage(name) }
  const flag = parsed.values[replacing(name)] ? replacing(name) : undefined
  const wanted = flag === undefined ? commands[name].operands : options[flag].operands
  const least = wanted.filter((operand) => !operand.startsWith('[')).length
  if (positionals.length < least || positionals.length > wanted.length || positionals.includes('')) {
    throw new UsageError(`usage: ${synopsis(name, flag)}`)
  }
  return {
    ...values,
    command: name,
    operands: positionals,
    mode: oneOf('mode', values.mode, ['passive', 'full', 'restart', 'truncate'], 'truncate'),
    verify: values.verify === 'none' ? false : oneOf('verify', values.verify, ['full', 'quick', 'none'], 'full'),
    keep: wholeNumber('keep', values.keep),
  }
}

module.exports = { UsageError, parse, usage }
