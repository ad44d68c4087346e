'use strict'

// The SQL of the log's table and of the change counter, which src/agent_log/table.rs holds.

const { binding } = require('./native.js')

const [AGENT_LOG_SCHEMA, BUMP] = binding.logSql()

module.exports = { AGENT_LOG_SCHEMA, BUMP }
