// The tests mean something only under the Node that the lock file names: when the install script of
// the devDependency `node` is skipped, the system's Node would run them in silence.

import test from 'ava'

test('tests run under Node 24, or under the newest where that was asked for', (t) => {
  t.is(process.versions.node.split('.')[0], process.env.FUSION_SQLITE_NODE ?? '24')
})

test('this Node has a SQLite with the WAL-reset fix', (t) => {
  const [major = 0, minor = 0, patch = 0] = (process.versions.sqlite ?? '').split('.').map(Number)
  t.true(major * 1_000_000 + minor * 1_000 + patch >= 3_051_003)
})
