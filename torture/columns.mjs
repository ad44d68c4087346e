// Who uses the database in a run: the columns of the table.

/**
 * `first` and `second` write all the time; `visitor` opens, writes and closes. `kind` is the library of a process,
 * `inside` the node:sqlite that is in it as well.
 */
export const columns = [
  {
    name: 'alone',
    title: 'this package alone',
    first: { kind: 'package' },
    second: { kind: 'package' },
    visitor: { kind: 'package' },
    operator: 'package',
  },
  {
    name: 'elsewhere',
    title: 'node:sqlite in another process',
    first: { kind: 'package' },
    second: { kind: 'node' },
    visitor: { kind: 'node' },
    operator: 'package',
  },
  {
    name: 'registered',
    title: 'in the same process, with register',
    first: { kind: 'package', inside: 'registered' },
    second: { kind: 'package', inside: 'registered' },
    visitor: { kind: 'node', registered: true },
    operator: 'package',
  },
  {
    name: 'unregistered',
    title: 'in the same process, without',
    first: { kind: 'package', inside: 'plain' },
    second: { kind: 'package', inside: 'plain' },
    visitor: { kind: 'package' },
    operator: 'package',
  },
  {
    name: 'node',
    title: 'plain node:sqlite',
    first: { kind: 'node' },
    second: { kind: 'node' },
    visitor: { kind: 'node' },
    operator: 'node',
  },
]

/** The kinds of writers, by the letter in an agent's name. */
export const writers = {
  p: 'the package',
  n: 'node:sqlite',
  r: 'node:sqlite by register',
  o: "Node's own, protected",
}

/**
 * Whether a writer's acknowledged rows are promised. In a process without `register` a closed descriptor drops the
 * locks of node:sqlite, which can damage the file for all. node:sqlite, registered or not, does not look whether its
 * file is still at the path, nor heals.
 */
export function promised(cell, column, writer) {
  if (column.name === 'node') return false
  if (cell.closesDescriptors && column.name === 'unregistered') return false
  return writer === 'p' || !cell.movesFiles
}
