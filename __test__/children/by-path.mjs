// Appends by path and has nothing else to do.
import { appendAgentLogs } from '../../index.js'

await appendAgentLogs(process.argv[2], [{ taskId: 'T', text: 'x', type: 'text' }])
