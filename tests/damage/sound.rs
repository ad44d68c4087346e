//! A database before the damage: its bytes, its WAL, its rows, its layout.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use fusion_sqlite::recovery::salvage::{SchemaEntry, Snapshot};
use rusqlite::{Connection, Result};

use super::layout::Layout;
use super::schemas::{APPLICATION_ID, USER_VERSION};
use super::truth::{self, Former, Rows, Table};

/// What a file is like.
pub struct Format {
    pub page_size: usize,
    /// `PRAGMA encoding`.
    pub encoding: &'static str,
    /// `PRAGMA auto_vacuum`.
    pub auto_vacuum: &'static str,
    /// Bytes that pages end with and that are not SQLite's.
    pub reserved: u8,
}

/// How a database is made.
pub trait Plan {
    fn name(&self) -> &str;
    fn format(&self) -> Format;
    /// Makes the schema.
    fn create(&self, connection: &Connection) -> Result<()>;
    /// Inserts the rows of a range.
    fn fill(&self, connection: &Connection, rows: Range<i64>) -> Result<()>;
    /// Carried out once half of the rows are there.
    fn change(&self, connection: &Connection) -> Result<()>;
    /// Carried out before the last twentieth of the rows comes.
    fn free(&self, connection: &Connection) -> Result<()>;
    /// Counts that queries must give, and the queries that give them from the rows themselves.
    fn queries(&self) -> Vec<(String, String)>;
}

/// A sound database. The last twentieth of its rows came through a WAL.
pub struct Sound {
    pub name: String,
    /// The file as it is in the end, everything checkpointed.
    pub file: Vec<u8>,
    pub layout: Layout,
    /// What it says of itself.
    pub snapshot: Snapshot,
    /// Its tables.
    pub tables: Vec<Table>,
    /// Its rows.
    pub rows: Rows,
    /// Rows that were deleted or updated away, and are not among [`Self::rows`].
    pub former: Former,
    /// The file before the last transactions.
    pub earlier: Vec<u8>,
    /// The WAL of the last transactions.
    pub wal: Vec<u8>,
    /// The WAL of another file with pages of this size.
    pub foreign_wal: Vec<u8>,
    /// The last transactions; the first is the one before them, whose pages are in [`Self::earlier`].
    pub commits: Vec<Commit>,
    /// `sqlite_sequence`.
    pub sequences: Vec<(String, i64)>,
    /// No row refers to one that is not there.
    pub keeps_foreign_keys: bool,
    /// Queries of full-text indexes, and what they are to agree with.
    pub queries: Vec<(String, String)>,
}

/// What a transaction left.
pub struct Commit {
    /// Where in the WAL it ends.
    pub end: usize,
    /// The rows after it.
    pub rows: Rows,
    /// `sqlite_sequence` after it.
    pub sequences: Vec<(String, i64)>,
}

const TRANSACTIONS: i64 = 4;

impl Sound {
    /// Makes the database of `plan` with `rows` rows, in `folder`.
    pub fn make(plan: &dyn Plan, rows: i64, folder: &Path) -> Result<Self> {
        // Locks are of one kind in a process from its first connection on.
        fusion_sqlite::engine::init().expect("this SQLite is fit to be used");
        let format = plan.format();
        let path = folder.join(format!("{}.db", plan.name()));
        let wal_path = folder.join(format!("{}.db-wal", plan.name()));
        let connection = Connection::open(&path)?;
        if format.reserved > 0 {
            reserve(&connection, format.reserved);
        }
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch(&format!(
            "PRAGMA page_size = {}; PRAGMA encoding = '{}'; PRAGMA auto_vacuum = {};
             PRAGMA synchronous = OFF; PRAGMA user_version = {USER_VERSION};
             PRAGMA application_id = {APPLICATION_ID};",
            format.page_size, format.encoding, format.auto_vacuum,
        ))?;
        let before = rows - rows / 20;
        connection.execute_batch("BEGIN")?;
        plan.create(&connection)?;
        // Rows of the parts take turns, so that pages of all tables lie among each other.
        fill(plan, &connection, 0..before / 2)?;
        connection.execute_batch("COMMIT")?;
        let mut former = Former::new();
        remember(&mut former, truth::read(&connection)?);
        connection.execute_batch("BEGIN")?;
        plan.change(&connection)?;
        connection.execute_batch("COMMIT; BEGIN")?;
        remember(&mut former, truth::read(&connection)?);
        fill(plan, &connection, before / 2..before)?;
        connection.execute_batch("COMMIT")?;
        remember(&mut former, truth::read(&connection)?);
        connection.execute_batch("BEGIN")?;
        plan.free(&connection)?;
        connection
            .execute_batch("COMMIT; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;")?;
        let earlier = std::fs::read(&path).expect("the file was just written");

        let commit = |end: usize| {
            Ok::<_, rusqlite::Error>(Commit {
                end,
                rows: truth::read(&connection)?,
                sequences: sequences(&connection)?,
            })
        };
        let mut commits = vec![commit(0)?];
        let step = (rows - before) / TRANSACTIONS;
        for transaction in 0..TRANSACTIONS {
            let start = before + transaction * step;
            connection.execute_batch("BEGIN")?;
            fill(plan, &connection, start..start + step)?;
            connection.execute_batch("COMMIT")?;
            let size = std::fs::metadata(&wal_path).expect("there is a WAL").len();
            commits.push(commit(size as usize)?);
        }
        let wal = std::fs::read(&wal_path).expect("there is a WAL");
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        let file = std::fs::read(&path).expect("the file was just written");

        let now = truth::read(&connection)?;
        for (table, rows) in &mut former {
            for row in now.get(table).into_iter().flatten() {
                rows.remove(row);
            }
        }
        let layout = Layout::of(&file, &connection)?;
        for (table, rows) in &layout.rows {
            let Some(read) = now.get(table) else { continue };
            assert_eq!(rows.len(), read.len(), "rows of {table} that the layout found");
        }
        Ok(Self {
            name: plan.name().to_owned(),
            snapshot: snapshot(&connection, &file)?,
            file,
            layout,
            tables: truth::tables(&connection)?,
            rows: now,
            former,
            earlier,
            wal,
            foreign_wal: foreign_wal(format.page_size, folder)?,
            commits,
            sequences: sequences(&connection)?,
            keeps_foreign_keys: keeps_foreign_keys(&connection),
            queries: plan.queries(),
        })
    }

    /// Bytes a page.
    pub fn page_size(&self) -> usize {
        self.layout.page_size
    }
}

/// Has pages end with bytes that are not SQLite's.
fn reserve(connection: &Connection, bytes: u8) {
    let mut bytes = i32::from(bytes);
    // SAFETY: the connection is open, and this file control reads and writes one int.
    unsafe {
        rusqlite::ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            rusqlite::ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut bytes).cast(),
        );
    }
}

/// A reference to what can be referred to by none is an error.
fn keeps_foreign_keys(connection: &Connection) -> bool {
    let violations = connection.prepare("PRAGMA foreign_key_check").and_then(|mut check| {
        let mut violations = check.query([])?;
        Ok(violations.next()?.is_some())
    });
    violations.is_ok_and(|any| !any)
}

fn sequences(connection: &Connection) -> Result<Vec<(String, i64)>> {
    if !connection.table_exists(None, "sqlite_sequence")? {
        return Ok(Vec::new());
    }
    let mut statement =
        connection.prepare("SELECT name, seq FROM sqlite_sequence ORDER BY name")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn foreign_wal(page_size: usize, folder: &Path) -> Result<Vec<u8>> {
    let connection = Connection::open(folder.join("foreign.db"))?;
    connection.execute_batch(&format!(
        "PRAGMA page_size = {}; PRAGMA journal_mode = WAL; CREATE TABLE foreigners(name TEXT, age INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO foreigners SELECT 'foreigner ' || i, i FROM n;",
        page_size
    ))?;
    Ok(std::fs::read(folder.join("foreign.db-wal")).expect("there is a WAL"))
}

fn fill(plan: &dyn Plan, connection: &Connection, rows: Range<i64>) -> Result<()> {
    let mut start = rows.start;
    while start < rows.end {
        // An even number, since some parts take every other row.
        let end = (start + 20).min(rows.end);
        plan.fill(connection, start..end)?;
        start = end;
    }
    Ok(())
}

fn remember(former: &mut Former, rows: Rows) {
    for (table, rows) in rows {
        former.entry(table).or_default().extend(rows);
    }
}

/// What a database says of itself, taken with SQL and from its header.
fn snapshot(connection: &Connection, file: &[u8]) -> Result<Snapshot> {
    let mut schema = connection
        .prepare("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid")?;
    let entries = schema.query_map([], |row| {
        Ok(SchemaEntry {
            kind: row.get(0)?,
            name: row.get(1)?,
            table: row.get(2)?,
            root: row.get(3)?,
            sql: row.get(4)?,
        })
    })?;
    let number = |pragma: &str| {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0))
    };
    Ok(Snapshot {
        page_size: number("page_size")? as u32,
        reserved: file[20],
        encoding: file[59],
        auto_vacuum: number("auto_vacuum")? as u8,
        user_version: number("user_version")? as i32,
        application_id: number("application_id")? as i32,
        schema_cookie: number("schema_version")? as u32,
        schema: entries.collect::<Result<_>>()?,
        taken_ms: 0,
    })
}
