// For `node --import fusion-sqlite/register`, as register.d.ts.
import './index.js'
