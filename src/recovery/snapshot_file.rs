//! The schema of a database, kept beside it in `<database>-schema` for the day on which the file
//! no longer tells it: its first page overwritten, or the b-tree of `sqlite_schema` lost.
//!
//! One line `fusion-sqlite schema 1 <checksum>`, then a [`Snapshot`] as JSON. The file is replaced
//! by a rename and never written to in place; whoever reads it takes it whole or not at all
//! ([`load`]). It is small and cheap, and a help rather than a promise: where it cannot be written
//! (a read-only folder) nothing fails.
//!
//! What it says of pages are the *numbers* of the roots. They change with the schema's cookie and
//! never without it, so that a snapshot with the database's cookie is exact, and an older one is
//! right about every table that was not made, dropped or moved by VACUUM since. What a root page
//! *holds* is not kept: it changes with any insert, no cookie tells, and a salvager that believed
//! a stale list of children would put rows into the wrong table, where one that matches records to
//! the schema finds the same pages without it.
//!
//! A [`Note`] goes with it once a check has found the file sound: the next process need not check
//! a file that is unchanged since.
//!
//! [`Keeper`] decides when: the file's writer asks it after checkpoints, when the file has just
//! been shown to be sound, and at its end.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::ffi;
use serde::{Deserialize, Serialize};

use super::partial::{Partial, system};
use super::reader::{self, Encoding};
use super::salvage::{SchemaEntry, Snapshot};
use crate::engine::{
    Connection, Error, Likeness, Result, beside, errstr, not_a_file, open_file, rename, sync,
};
use crate::health::{self, Note};

/// How the file begins.
const MAGIC: &str = "fusion-sqlite schema 1 ";

/// A larger file is not ours: SQLite's largest schemas have a few thousand entries.
const LARGEST: u64 = 64 << 20;

/// The shortest time between two looks at the schema.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    #[serde(flatten)]
    snapshot: Snapshot,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checked: Option<Note>,
}

/// Where the snapshot of `database` is.
pub fn path(database: &Path) -> PathBuf {
    beside(database, "-schema")
}

/// The snapshot kept beside `database`; none where there is none, or it is not whole.
pub fn load(database: &Path) -> Option<Snapshot> {
    Some(read(database)?.snapshot)
}

/// The note beside `database` that a check found it sound. Whether it still holds is not looked at.
pub fn note(database: &Path) -> Option<Note> {
    read(database)?.checked
}

fn read(database: &Path) -> Option<Content> {
    let mut text = String::new();
    open_file(&path(database)).ok()?.take(LARGEST).read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once('\n')?;
    let sum = u64::from_str_radix(head.strip_prefix(MAGIC)?, 16).ok()?;
    if sum != checksum(body.as_bytes()) {
        return None;
    }
    let content: Content = serde_json::from_str(body).ok()?;
    is_plausible(&content.snapshot).then_some(content)
}

fn is_plausible(snapshot: &Snapshot) -> bool {
    let sizes = 512..=65_536;
    sizes.contains(&snapshot.page_size)
        && snapshot.page_size.is_power_of_two()
        && (1..=3).contains(&snapshot.encoding)
        && snapshot.auto_vacuum <= 2
        && snapshot
            .schema
            .iter()
            .all(|entry| matches!(entry.kind.as_str(), "table" | "index" | "view" | "trigger"))
}

/// 64-bit FNV-1a: enough to tell a file that was cut or scribbled on.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Puts `snapshot` beside `database`, in place of an earlier one. Only a snapshot of a database
/// that is sound belongs there.
///
/// # Errors
/// The system's, as SQLite's `SQLITE_CANTOPEN` or `SQLITE_IOERR_WRITE`.
pub fn write(database: &Path, snapshot: &Snapshot) -> Result<()> {
    put(database, &Content { snapshot: snapshot.clone(), checked: None })
}

/// Takes the note beside `database` back: there is reason to doubt the file.
///
/// # Errors
/// As [`write`](fn@write).
pub fn doubt(database: &Path) -> Result<()> {
    match read(database) {
        Some(Content { snapshot, checked: Some(_) }) => write(database, &snapshot),
        _ => Ok(()),
    }
}

fn put(database: &Path, content: &Content) -> Result<()> {
    let target = path(database);
    if let Ok(metadata) = fs::symlink_metadata(&target)
        && !metadata.is_file()
    {
        return Err(not_a_file(&target, &metadata));
    }
    let partial = Partial::new(&target, database)?;
    let new = partial.file("schema");
    let failed = |error| system(ffi::SQLITE_IOERR_WRITE, &target, &error);
    let mut body = serde_json::to_string(content).map_err(|error| failed(error.into()))?;
    body.push('\n');
    let mut file = Likeness::of(database).create(&new).map_err(failed)?;
    writeln!(file, "{MAGIC}{:016x}", checksum(body.as_bytes()))
        .and_then(|()| file.write_all(body.as_bytes()))
        .and_then(|()| sync(&file))
        .map_err(failed)?;
    rename(&new, &target).map_err(failed)
}

/// What `connection` sees of its main database as a whole. Inside a transaction it is of that
/// transaction's moment.
///
/// # Errors
/// SQLite's; damage of the schema is `SQLITE_CORRUPT`.
pub fn take(connection: &Connection) -> Result<Snapshot> {
    let at = |error: rusqlite::Error| Error::from(error).at(connection.path());
    let sql = connection.sql()?;
    // All of it is of one moment.
    let transaction = if connection.is_autocommit() {
        Some(sql.unchecked_transaction().map_err(at)?)
    } else {
        None
    };
    let number = |pragma: &str| -> Result<i64> {
        sql.query_row(&format!("PRAGMA main.{pragma}"), [], |row| row.get(0)).map_err(at)
    };
    let of_size = |pragma: &str| Ok::<_, Error>(u32::try_from(number(pragma)?).unwrap_or(0));
    let of_sign = |pragma: &str| Ok::<_, Error>(i32::try_from(number(pragma)?).unwrap_or(0));
    let schema = entries(connection)?;
    let snapshot = Snapshot {
        page_size: of_size("page_size")?,
        reserved: reserved(connection)?,
        encoding: reader::header(connection)?.encoding.map_or(1, Encoding::number),
        auto_vacuum: u8::try_from(number("auto_vacuum")?).unwrap_or(0),
        user_version: of_sign("user_version")?,
        application_id: of_sign("application_id")?,
        schema_cookie: cookie(number("schema_version")?),
        schema,
        taken_ms: u64::try_from(
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
        )
        .unwrap_or(u64::MAX),
    };
    if let Some(transaction) = transaction {
        transaction.finish().map_err(at)?;
    }
    Ok(snapshot)
}

/// The rows of `sqlite_schema`, in their order.
///
/// # Errors
/// SQLite's.
pub(super) fn entries(connection: &Connection) -> Result<Vec<SchemaEntry>> {
    let at = |error: rusqlite::Error| Error::from(error).at(connection.path());
    let mut statement = connection
        .sql()?
        .prepare(
            "SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema ORDER BY rowid",
        )
        .map_err(at)?;
    let entries = statement.query_map([], |row| {
        Ok(SchemaEntry {
            kind: row.get(0)?,
            name: row.get(1)?,
            table: row.get(2)?,
            root: row.get::<_, Option<u32>>(3)?.unwrap_or(0),
            sql: row.get(4)?,
        })
    });
    entries.and_then(Iterator::collect).map_err(at)
}

/// The schema's cookie is 32 bits; `PRAGMA schema_version` takes them for a signed number.
fn cookie(version: i64) -> u32 {
    u32::try_from(version).unwrap_or(version as i32 as u32)
}

/// Bytes at the end of each page that are not SQLite's
/// (<https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlreservebytes>).
fn reserved(connection: &Connection) -> Result<u8> {
    connection.sql()?;
    let mut bytes: std::ffi::c_int = -1;
    // SAFETY: the connection is open, and this file control reads and writes one int; a negative
    // one asks and sets nothing.
    let rc = unsafe {
        ffi::sqlite3_file_control(
            connection.raw(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut bytes).cast(),
        )
    };
    match rc {
        ffi::SQLITE_OK => Ok(u8::try_from(bytes).unwrap_or(0)),
        _ => Err(Error::sqlite(rc, errstr(rc)).at(connection.path())),
    }
}

/// What a database was when its snapshot was written: three numbers of its header.
type Mark = (u32, i32, i32);

/// Keeps the snapshot of one database up to date. Used by the thread that cares for the file.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Of what is in the file; none: not looked at yet.
    written: Option<Mark>,
    /// When it was last looked at, and how many commits this process had then made.
    looked: Option<(Instant, u32)>,
    /// The note that was in the file then.
    noted: Option<Note>,
}

impl Keeper {
    /// Whether there may be something new to see `commits` commits after the file was opened.
    /// Cheap, to be asked before anything is opened for a look.
    pub fn is_stale(&self, commits: u32) -> bool {
        self.looked.is_none_or(|(_, seen)| seen != commits)
    }

    /// Whether a check has found the database sound since.
    pub fn lacks_note(&self, database: &Path) -> bool {
        health::note(database).is_some_and(|note| self.noted.as_ref() != Some(&note))
    }

    /// The same as [`Self::is_stale`], and whether the last look was long enough ago.
    pub fn is_due(&self, commits: u32, now: Instant) -> bool {
        self.is_stale(commits)
            && self.looked.is_none_or(|(at, _)| now.duration_since(at) >= LOOK_EVERY)
    }

    /// Writes the snapshot of the database that `connection` has open, and that is sound, if its
    /// schema is another than the one last written. Three numbers are read to tell; only the first
    /// look reads the schema. What fails is tried again at the next look.
    pub fn look(&mut self, connection: &Connection, commits: u32) {
        self.looked = Some((Instant::now(), commits));
        // Nobody is to be told: see the module's documentation.
        drop(self.refresh(connection));
    }

    fn refresh(&mut self, connection: &Connection) -> Result<()> {
        let path = connection.path();
        let is_noted = !self.lacks_note(path);
        if is_noted && self.written.is_some() && self.written == Some(mark(connection)?) {
            return Ok(());
        }
        let note = health::note(path);
        let snapshot = take(connection)?;
        let now = (snapshot.schema_cookie, snapshot.user_version, snapshot.application_id);
        // Before there is a table there is nothing to save, but perhaps something to lose: the
        // snapshot of a database that was emptied by accident.
        if !snapshot.schema.is_empty() {
            let (kept, checked) = read(path).map(|it| (it.snapshot, it.checked)).unzip();
            let checked = checked.flatten().filter(|noted| noted.holds(path));
            let is_new = kept.as_ref().is_none_or(|kept| supersedes(&snapshot, kept));
            if is_new || checked.is_none() && note.is_some() {
                let snapshot = kept.filter(|_| !is_new).unwrap_or(snapshot);
                put(path, &Content { snapshot, checked: checked.or_else(|| note.clone()) })?;
            }
        }
        self.written = Some(now);
        self.noted = note;
        Ok(())
    }
}

/// Whether `new` says something that `kept` does not. Entries that are gone while the cookie is the
/// same were not dropped but lost.
fn supersedes(new: &Snapshot, kept: &Snapshot) -> bool {
    let head = |it: &Snapshot| Snapshot { schema: Vec::new(), taken_ms: 0, ..it.clone() };
    head(new) != head(kept) || !new.schema.iter().all(|entry| kept.schema.contains(entry))
}

fn mark(connection: &Connection) -> Result<Mark> {
    let sql = connection.sql()?;
    let number = |pragma: &str| -> Result<i64> {
        sql.query_row(&format!("PRAGMA main.{pragma}"), [], |row| row.get(0))
            .map_err(|error| Error::from(error).at(connection.path()))
    };
    let signed = |number: i64| i32::try_from(number).unwrap_or(0);
    Ok((
        cookie(number("schema_version")?),
        signed(number("user_version")?),
        signed(number("application_id")?),
    ))
}
