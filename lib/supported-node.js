'use strict'

// Loaded before everything else, by Nodes that know little: this file is written in ES5.

var version = process.versions.node
var parts = version.split('.')

if (Number(parts[0]) < 22 || (Number(parts[0]) === 22 && Number(parts[1]) < 4)) {
  throw new Error(
    'fusion-sqlite needs Node 22.4 or newer; this is Node ' +
      version +
      '. Update Node: each release from 22.4 on runs all of the package, but for fusion-sqlite/register, ' +
      'which needs 22.15 or newer.',
  )
}
