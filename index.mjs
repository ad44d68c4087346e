import fusionSqlite from './index.js';

export const { DatabaseSync, StatementSync } = fusionSqlite;
export default fusionSqlite;
