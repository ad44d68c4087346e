#!/usr/bin/env node
'use strict'

const { inspect } = require('node:util')
const { FAILED } = require('../lib/doctor/exit-codes.js')
const { main } = require('../lib/doctor/main.js')
const { shownLines } = require('../lib/shown.js')

async function run() {
  try {
    process.exitCode = await main(process.argv.slice(2), process)
  } catch (error) {
    // Node's own code for an uncaught error is 1, which means repaired.
    process.stderr.write(`${shownLines(inspect(error))}\n`)
    process.exitCode = FAILED
  }
}

run()
