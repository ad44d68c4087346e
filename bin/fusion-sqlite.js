#!/usr/bin/env node
'use strict'

const { main } = require('../lib/doctor/main.js')

async function run() {
  process.exitCode = await main(process.argv.slice(2), process)
}

run()
