// Loaded by AVA into each test file's process. The package's events and promises keep no process
// alive, by design, so that a test that only waits for one would end before it comes.

import { registerCompletionHandler } from 'ava'

const alive = setInterval(() => {}, 2 ** 30)
registerCompletionHandler(() => clearInterval(alive))
