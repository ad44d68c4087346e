import { HardenedDatabase, type EngineInfo, engineInfo } from 'fusion-sqlite'
import exercise from './exercise.cjs'

const info: EngineInfo = engineInfo()
if (info.sqliteVersion.length === 0) throw new Error('no version')
await exercise({ HardenedDatabase, engineInfo }, process.argv[2])
