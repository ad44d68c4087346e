// For a bundler: an application that may name the binary.
const { NAMED } = process.env
const { DatabaseSync } = NAMED ? require('fusion-sqlite/with-binding')(NAMED) : require('fusion-sqlite')
console.log(new DatabaseSync(':memory:').prepare('SELECT sqlite_version() AS version').get().version)
