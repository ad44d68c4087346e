// Pages of a database that no process has open, or whose processes stand still: what is on them,
// and bytes over them.

import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs'

const SIZE = 4096
const INTERIOR = 5
const LEAF = 13

/** A varint (https://sqlite.org/fileformat2.html#varint) of up to 53 bits, and where it ends. */
function varint(bytes: Buffer, at: number): [value: number, end: number] {
  let value = 0
  for (;;) {
    const byte = bytes[at++]!
    value = value * 128 + (byte & 0x7f)
    if (byte < 0x80) return [value, at]
  }
}

const pageOf = (file: Buffer, page: number) => file.subarray((page - 1) * SIZE, page * SIZE)

/** The leaf pages of the table b-tree at `root`, in the order of their keys. */
function leavesOf(file: Buffer, root: number): number[] {
  const page = pageOf(file, root)
  if (page[0] !== INTERIOR) return [root]
  const cells = Array.from({ length: page.readUInt16BE(3) }, (_, i) => page.readUInt16BE(12 + 2 * i))
  const children = [...cells.map((at) => page.readUInt32BE(at)), page.readUInt32BE(8)]
  return children.flatMap((child) => leavesOf(file, child))
}

/** The leaf pages of a table, in the order of their keys. */
export function leaves(file: string, root: number): number[] {
  return leavesOf(readFileSync(file), root)
}

/** The rowids on pages of a table. */
export function rowids(file: string, pages: number[]): number[] {
  const bytes = readFileSync(file)
  return pages.flatMap((number) => {
    const page = pageOf(bytes, number)
    if (page[0] !== LEAF) throw new Error(`page ${number} is no leaf of a table`)
    return Array.from({ length: page.readUInt16BE(3) }, (_, i) => {
      const [, end] = varint(page, page.readUInt16BE(8 + 2 * i))
      return varint(page, end)[0]
    })
  })
}

/** Writes bytes that no page begins with over `pages`. */
export function destroy(file: string, pages: number[]): void {
  const fd = openSync(file, 'r+')
  for (const page of pages) writeSync(fd, Buffer.alloc(SIZE, 0xa5), 0, SIZE, (page - 1) * SIZE)
  fsyncSync(fd)
  closeSync(fd)
}
