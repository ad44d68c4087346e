import 'fusion-sqlite/register'
import withBinding from 'fusion-sqlite/with-binding'
import fusionSqlite, { HardenedDatabase, engineInfo } from 'fusion-sqlite'

export async function typed(file: string): Promise<number> {
  using db = new HardenedDatabase(file)
  const receipt: Promise<{ committed: number }> = db.appendAgentLogs([{ taskId: 'T', text: 'typed', type: 'text' }])
  const kept: boolean = db.appendAgentLog({ taskId: 'T', text: 'x', type: 'tool' })
  const lock: 'ofd' | 'posix' | 'windows' = engineInfo().lockKind
  const again: typeof fusionSqlite = withBinding('unused.node')
  return (await receipt).committed + Number(kept) + lock.length + Object.keys(again).length
}
