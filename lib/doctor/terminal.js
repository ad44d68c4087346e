'use strict'

// What a person sees: text on standard output, progress on standard error. Colours, and a bar that
// moves, on a terminal only.
//
// Each line goes through `Terminal.#written`: what a name, a value or a message could do to a
// terminal is escaped (lib/shown.js), and no code is left but those of `style`.

const { randomUUID } = require('node:crypto')
const { createInterface } = require('node:readline/promises')
const { stripVTControlCharacters } = require('node:util')
const { shown } = require('../shown.js')
const { number } = require('./format.js')

/** https://en.wikipedia.org/wiki/ANSI_escape_code#Select_Graphic_Rendition_parameters */
const STYLES = { bold: [1, 22], dim: [2, 22], red: [31, 39], green: [32, 39], yellow: [33, 39], cyan: [36, 39] }

const HIDE_CURSOR = '\x1b[?25l'
const SHOW_CURSOR = '\x1b[?25h'
const CLEAR_LINE = '\r\x1b[2K'

/** Columns of running text. */
const WIDEST = 96
const BAR = 24
/** Milliseconds between two lines about one stage where there is no terminal. */
const SPARSELY = 10_000

class Terminal {
  /** Stands for ESC in the codes of `style` until a line is written: no text can contain it. */
  #mark = randomUUID()
  /** The last progress line that was printed where lines cannot be overwritten (SPARSELY). */
  #printed = { stage: '', at: 0 }
  #bar = false

  /** @param {{ stdin, stdout, stderr, env }} streams those of a process; `json`: no text on stdout */
  constructor({ stdin, stdout, stderr, env }, { json = false } = {}) {
    this.stdin = stdin
    this.stdout = stdout
    this.stderr = stderr
    this.json = json
    this.colours = Boolean(stdout.isTTY) && !env.NO_COLOR && env.TERM !== 'dumb'
    this.moves = Boolean(stderr.isTTY) && env.TERM !== 'dumb'
    this.barColours = this.moves && !env.NO_COLOR
    this.width = Math.min(stdout.columns || 80, WIDEST)
  }

  /** Whether there is a person to ask. */
  get interactive() {
    return !this.json && Boolean(this.stdin.isTTY && this.stdout.isTTY)
  }

  style(name, text) {
    const [on, off] = STYLES[name]
    return this.colours ? `${this.#mark}[${on}m${text}${this.#mark}[${off}m` : text
  }

  /** `text` as it may be written. */
  #written(text) {
    return shown(text).replaceAll(this.#mark, '\x1b')
  }

  /** How many columns `text` takes. */
  #columns(text) {
    return stripVTControlCharacters(this.#written(text)).length
  }

  /** Prints a line; nothing where JSON is wanted. */
  line(text = '') {
    this.clear()
    if (!this.json) this.stdout.write(`${this.#written(text)}\n`)
  }

  /** Prints `text` in lines of the terminal's width, those after the first indented. */
  paragraph(text, indent = 0, hanging = indent) {
    const margin = ' '.repeat(hanging)
    let line = ' '.repeat(indent)
    for (const word of text.split(' ')) {
      if (line.trim() !== '' && this.#columns(line) + this.#columns(word) + 1 > this.width) {
        this.line(line)
        line = margin
      }
      line += line.trim() === '' ? word : ` ${word}`
    }
    this.line(line)
  }

  /** Prints columns `name value`, for facts. */
  fact(name, value) {
    this.line(`  ${this.style('dim', name.padEnd(16))} ${value}`)
  }

  /** A function for the option `progress` of a task. */
  progress() {
    return ({ stage, done, total }) => {
      if (this.moves) this.#draw(stage, done, total)
      else this.#print(stage, done, total)
    }
  }

  #draw(stage, done, total) {
    if (!this.#bar) this.stderr.write(HIDE_CURSOR)
    this.#bar = true
    const width = (this.stderr.columns || 80) - 1
    const share = total > 0 ? Math.min(done / total, 1) : 0
    let text = shown(stage)
    if (total > 0) {
      const full = Math.round(share * BAR)
      const bar = `${'█'.repeat(full)}${'░'.repeat(BAR - full)}`
      text = `${bar} ${String(Math.floor(share * 100)).padStart(3)} %  ${text}  ${number(done)} of ${number(total)}`
    } else if (done > 0) {
      text = `${text}  ${number(done)}`
    }
    text = text.slice(0, width)
    this.stderr.write(CLEAR_LINE + (this.barColours ? text.replace(/^█+/, (bar) => `\x1b[36m${bar}\x1b[39m`) : text))
  }

  #print(stage, done, total) {
    const now = Date.now()
    if (stage === this.#printed.stage && now - this.#printed.at < SPARSELY) return
    const first = stage !== this.#printed.stage
    this.#printed = { stage, at: now }
    const share = total > 0 && !first ? ` ${Math.floor((done / total) * 100)} %` : ' …'
    this.stderr.write(`${shown(stage)}${share}\n`)
  }

  /** Removes the progress bar and shows the cursor again. */
  clear() {
    if (!this.#bar) return
    this.#bar = false
    this.stderr.write(CLEAR_LINE + SHOW_CURSOR)
  }

  /** A message about the command itself, to standard error. */
  complain(text) {
    this.clear()
    this.stderr.write(`fusion-sqlite: ${shown(text)}\n`)
  }

  /** Asks; anything but a yes is a no. */
  async ask(question, signal) {
    this.clear()
    const lines = createInterface({ input: this.stdin, output: this.stdout })
    // Ctrl-C at the prompt is the reader's, and is to be what it is elsewhere.
    lines.on('SIGINT', () => process.emit('SIGINT'))
    try {
      return /^y(es)?$/i.test((await lines.question(this.#written(`${question} [y/N] `), { signal })).trim())
    } finally {
      lines.close()
    }
  }
}

module.exports = { Terminal }
