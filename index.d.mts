// Types of the package for `import`; index.d.ts holds them.
export * from './index.js'

declare const fusionSqlite: typeof import('./index.js')
export default fusionSqlite
