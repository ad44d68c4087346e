// The class that a test names, in whichever process.
import type { Open } from './fusion-store.ts'

export const KINDS = ['node:sqlite', 'DatabaseSync', 'HardenedDatabase'] as const
export type Kind = (typeof KINDS)[number]

export async function openWith(kind: string): Promise<Open> {
  if (kind === 'node:sqlite') return (await import('node:sqlite')).DatabaseSync
  const ours = await import('../../index.js')
  return kind === 'HardenedDatabase' ? ours.HardenedDatabase : ours.DatabaseSync
}
