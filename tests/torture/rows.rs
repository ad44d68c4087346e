//! Rows that say of themselves whether they are all there: transactions of SQL, each with a number
//! and a count, and appends to the log of [`BATCH`] rows each.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusion_sqlite::agent_log::{self, Answer, Entries, Event, Listener, Log, LogOptions};
use fusion_sqlite::engine::{Connection, Error, JournalMode, Profile, Synchronous};
use rusqlite::OpenFlags;

/// The database.
pub const NAME: &str = "fusion.db";

/// Rows of an append.
pub const BATCH: u64 = 20;

/// How long something is waited for that happens.
pub const WAIT: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
    CREATE TABLE __meta (key TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE total (value INTEGER NOT NULL);
    INSERT INTO total VALUES (0);
    CREATE TABLE parts (number INTEGER, of INTEGER, part INTEGER, pad BLOB);
    CREATE INDEX byNumber ON parts (number, part);
    CREATE TABLE agentLogEntries (
      id INTEGER PRIMARY KEY AUTOINCREMENT, taskId TEXT NOT NULL, timestamp TEXT NOT NULL,
      text TEXT NOT NULL, type TEXT NOT NULL, detail TEXT, agent TEXT);
    CREATE INDEX byTask ON agentLogEntries (taskId, id);
    CREATE VIRTUAL TABLE words USING fts5(text, content='agentLogEntries', content_rowid='id');
    CREATE TRIGGER inserted AFTER INSERT ON agentLogEntries BEGIN
      INSERT INTO words (rowid, text) VALUES (new.id, new.text);
    END;";

/// The rows of a database: transactions and appends are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rows {
    pub transactions: u64,
    pub appends: u64,
    /// What the application calls it: tells databases from each other.
    pub version: u32,
}

/// Makes a database with these transactions at `path`, with plain SQLite, closed.
pub fn make(path: &Path, journal: &str, rows: Rows) {
    let sql = rusqlite::Connection::open(path).unwrap();
    sql.execute_batch(&format!(
        "PRAGMA journal_mode = {journal}; PRAGMA user_version = {}; BEGIN; {SCHEMA} COMMIT",
        rows.version
    ))
    .unwrap();
    for number in 1..=rows.transactions {
        sql.execute_batch(&transaction(number)).unwrap();
    }
    appends(&sql, rows.appends);
}

/// Writes what the first `count` appends of the log would.
pub fn appends(sql: &rusqlite::Connection, count: u64) {
    for number in 1..=count {
        sql.execute_batch("BEGIN").unwrap();
        for row in 1..=BATCH {
            let insert = "INSERT INTO agentLogEntries (taskId, timestamp, text, type) \
                          VALUES ('FN-1', '2026', ?1, 'text')";
            sql.execute(insert, [text(number, row)]).unwrap();
        }
        sql.execute_batch("COMMIT").unwrap();
    }
}

/// Transaction `number`: 1 to 4 rows with up to some pages each, and the total.
pub fn transaction(number: u64) -> String {
    let of = number % 4 + 1;
    format!(
        "BEGIN IMMEDIATE;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {of})
         INSERT INTO parts SELECT {number}, {of}, i, randomblob({number} * 977 % 3 * 2000 + 300)
         FROM n;
         UPDATE total SET value = value + 1;
         COMMIT"
    )
}

fn text(number: u64, row: u64) -> String {
    format!("append {number} row {row}")
}

/// An append.
pub fn append(number: u64) -> Entries {
    let mut entries = Entries::default();
    for row in 1..=BATCH {
        let text = text(number, row);
        entries.push([
            Some(b"FN-1"),
            Some(b"2026"),
            Some(text.as_bytes()),
            Some(b"text"),
            None,
            None,
        ]);
    }
    entries
}

/// The number that a query answers.
///
/// # Errors
/// SQLite's.
pub fn number(sql: &rusqlite::Connection, query: &str) -> rusqlite::Result<u64> {
    let number: i64 = sql.query_row(query, [], |row| row.get(0))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// What the database holds.
///
/// # Errors
/// That it cannot be read, is damaged, or has a part of something.
pub fn of(sql: &rusqlite::Connection) -> Result<Rows, String> {
    let failed = |error: rusqlite::Error| format!("it cannot be read: {error}");
    let check: String =
        sql.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(failed)?;
    if check != "ok" {
        return Err(format!("integrity_check: {check}"));
    }
    let number = |query: &str| number(sql, query).map_err(failed);
    let total = number("SELECT value FROM total")?;
    let version = number("PRAGMA user_version")?;
    let transactions = number("SELECT count(DISTINCT number) FROM parts")?;
    let highest = number("SELECT ifnull(max(number), 0) FROM parts")?;
    let halves = number(
        "SELECT count(*) FROM (SELECT 1 FROM parts GROUP BY number HAVING count(*) <> max(of))",
    )?;
    if halves > 0 || transactions != total || highest != total {
        return Err(format!(
            "half a transaction: {halves} without all their rows, {transactions} transactions up \
             to number {highest}, and a total of {total}"
        ));
    }
    let mut statement =
        sql.prepare("SELECT text FROM agentLogEntries ORDER BY id").map_err(failed)?;
    let mut texts = statement.query([]).map_err(failed)?;
    let mut rows = 0;
    while let Some(row) = texts.next().map_err(failed)? {
        let found: String = row.get(0).map_err(failed)?;
        let expected = text(rows / BATCH + 1, rows % BATCH + 1);
        if found != expected {
            return Err(format!("the log has {found:?} where {expected:?} belongs"));
        }
        rows += 1;
    }
    if rows % BATCH != 0 {
        return Err(format!("half an append: {rows} rows"));
    }
    let version = u32::try_from(version).unwrap_or(0);
    Ok(Rows { transactions, appends: rows / BATCH, version })
}

/// What a file holds, as plain SQLite finds it.
///
/// # Errors
/// As [`of`].
pub fn at(path: &Path) -> Result<Rows, String> {
    let sql = rusqlite::Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(|error| format!("it cannot be opened: {error}"))?;
    sql.busy_timeout(Duration::from_secs(5)).map_err(|error| error.to_string())?;
    of(&sql)
}

/// A connection of the package's and the file's log.
pub struct Open {
    pub connection: Connection,
    pub log: Log,
    pub events: Receiver<String>,
}

struct Events(Mutex<mpsc::Sender<String>>);

impl Listener for Events {
    fn event(&self, event: &Event) {
        // The program may have ended already.
        drop(self.0.lock().unwrap().send(format!("{event:?}")));
    }
}

/// A profile for short waits.
pub fn profile(synchronous: Synchronous, journal_mode: JournalMode) -> Profile {
    let busy_timeout = Duration::from_millis(300);
    Profile { synchronous, journal_mode, busy_timeout, ..Profile::default() }
}

impl Open {
    /// Opens the database, and its log.
    ///
    /// # Errors
    /// The package's.
    pub fn new(path: &Path, profile: Profile) -> Result<Self, Error> {
        let connection = Connection::open_hardened(path, OpenFlags::default(), &profile)?;
        let (sender, events) = mpsc::channel();
        let options = LogOptions { profile, ..LogOptions::default() };
        let file = Arc::clone(connection.file().unwrap());
        let log = agent_log::open(&file, options, false, Arc::new(Events(Mutex::new(sender))))?;
        Ok(Self { connection, log, events })
    }

    /// Carries transaction `number` out.
    ///
    /// # Errors
    /// The package's; the transaction is rolled back.
    pub fn transaction(&self, number: u64) -> Result<(), Error> {
        let sql = self.connection.sql()?;
        let done = sql.execute_batch(&transaction(number));
        let done = done.map_err(|_| self.connection.last_error().at(self.connection.path()));
        if !self.connection.is_autocommit() {
            // Where that fails SQLite has rolled it back, or does so at the next use.
            drop(sql.execute_batch("ROLLBACK"));
        }
        done
    }

    /// Hands an append to the log.
    pub fn append(&self, number: u64) -> Receiver<Answer> {
        let (sender, answer) = mpsc::channel();
        let reply = Box::new(move |outcome| drop(sender.send(outcome)));
        self.log.append(append(number), reply).unwrap();
        answer
    }

    /// Closes both, and waits until the log has ended.
    ///
    /// # Errors
    /// Why the log did not end in order.
    pub fn close(mut self) -> Result<(), Error> {
        let (sender, ended) = mpsc::channel();
        self.log.when_ended(move |result| drop(sender.send(result)));
        self.log.release();
        let result = ended.recv_timeout(WAIT).expect("the log ends");
        drop(self.connection);
        result
    }
}

/// The database below a folder.
pub fn path(folder: &Path) -> PathBuf {
    std::fs::canonicalize(folder).unwrap().join(NAME)
}
