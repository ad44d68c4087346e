#!/usr/bin/env node
'use strict'

const { FAILED } = require('../lib/doctor/exit-codes.js')
const { main } = require('../lib/doctor/main.js')

async function run() {
  try {
    process.exitCode = await main(process.argv.slice(2), process)
  } catch (error) {
    // Node's own code for what nobody caught is 1, which means repaired.
    console.error(error)
    process.exitCode = FAILED
  }
}

run()
