import * as all from 'fusion-sqlite'
import { HardenedDatabase, engineInfo } from 'fusion-sqlite'
import exercise from './exercise.cjs'

if (all.default.HardenedDatabase !== HardenedDatabase) throw new Error('import and require have different classes')
await exercise({ HardenedDatabase, engineInfo }, process.argv[2])
