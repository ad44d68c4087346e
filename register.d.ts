// For `node --import fusion-sqlite/register`: from there on node:sqlite is this package, on every
// thread of the process. There is nothing to import from it.
import './index.js'
