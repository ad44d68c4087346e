/**
 * For `node --import fusion-sqlite/register`: from here on node:sqlite is this package, on every
 * thread of the process. Exports nothing.
 */
