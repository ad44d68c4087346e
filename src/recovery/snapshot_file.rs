//! The sidecar file `<database>-schema`: a copy of the database's schema. The salvager uses it if
//! page 1 is overwritten, or the b-tree of `sqlite_schema` is lost.
//!
//! The file is one line `fusion-sqlite schema 1 <checksum>`, then a [`Snapshot`] as JSON. It is
//! replaced by a rename and never written in place, and [`load`] ignores it unless its checksum
//! matches. It is optional: if it cannot be written (a read-only folder), no operation fails.
//!
//! The snapshot has the page *numbers* of the roots. They never change without the schema cookie,
//! so a snapshot with the database's cookie is exact. An older snapshot is right about every table
//! that was not made, dropped or moved by VACUUM since. The *content* of the root pages is not
//! kept: it changes with any insert, without a change of the cookie. With a stale list of children
//! the salvager would put rows into the wrong table; it finds the same pages by matching records to
//! the schema.
//!
//! Once a check has found the file sound, the file also has a [`Note`]: the next process need not
//! check a file that is unchanged since.
//!
//! [`Keeper`] decides when the file is written. The database's writer calls it after checkpoints,
//! when a check has just found the file sound, and when the writer ends.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::ffi;
use serde::{Deserialize, Serialize};

use super::reader::{self, Encoding};
use super::salvage::{SchemaEntry, Snapshot};
use super::work_dir::{WorkDir, system};
use crate::engine::{
    Connection, Error, Likeness, Result, errstr, not_a_file, open_file, rename, sidecar_path, sync,
};
use crate::health::{self, Note};

/// The first bytes of the file.
const MAGIC: &str = "fusion-sqlite schema 1 ";

/// Maximum size of the file in bytes. A larger one is not this module's: the largest schemas have a
/// few thousand entries.
const LARGEST: u64 = 64 << 20;

/// The shortest time between two reads of the schema.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    #[serde(flatten)]
    snapshot: Snapshot,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checked: Option<Note>,
}

/// The path of the snapshot file of `database`.
pub fn path(database: &Path) -> PathBuf {
    sidecar_path(database, "-schema")
}

/// The snapshot of `database`. `None` if there is no snapshot file, or it is damaged.
pub fn load(database: &Path) -> Option<Snapshot> {
    Some(read(database)?.snapshot)
}

/// The note that a check found `database` sound. It may be out of date: see [`Note::holds`].
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

/// 64-bit FNV-1a. It detects a file that was truncated or overwritten.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Writes `snapshot` to the snapshot file of `database`, in place of an earlier one. The database
/// must be sound.
///
/// # Errors
/// The operating system's, as `SQLITE_CANTOPEN` or `SQLITE_IOERR_WRITE`.
pub fn write(database: &Path, snapshot: &Snapshot) -> Result<()> {
    put(database, &Content { snapshot: snapshot.clone(), checked: None })
}

/// Removes the note that a check found `database` sound: the file has become suspect.
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
    let partial = WorkDir::new(&target, database)?;
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

/// Takes a snapshot of the main database of `connection`. Inside a transaction it is the snapshot
/// of that transaction.
///
/// # Errors
/// SQLite's; damage of the schema is `SQLITE_CORRUPT`.
pub fn take(connection: &Connection) -> Result<Snapshot> {
    let at = |error: rusqlite::Error| Error::from(error).at(connection.path());
    let sql = connection.sql()?;
    // One read transaction, so that all values are of the same moment.
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

/// The schema cookie has 32 bits, which `PRAGMA schema_version` returns as a signed number.
fn cookie(version: i64) -> u32 {
    u32::try_from(version).unwrap_or(version as i32 as u32)
}

/// The number of reserved bytes at the end of each page
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

/// The three header fields by which a changed schema is detected: schema cookie, user version,
/// application id.
type Mark = (u32, i32, i32);

/// Keeps the snapshot of one database up to date. Used by the thread of the database's writer.
#[derive(Debug, Default)]
pub struct Keeper {
    /// The mark of the schema in the file; `None`: not read yet.
    written: Option<Mark>,
    /// When the schema was last read, and the number of commits of this process at that time.
    looked: Option<(Instant, u32)>,
    /// The note that was in the file at that time.
    noted: Option<Note>,
}

impl Keeper {
    /// Whether the schema may have changed, `commits` commits after the file was opened. Cheap: it
    /// reads no file, and is meant to be called before a connection is opened.
    pub fn is_stale(&self, commits: u32) -> bool {
        self.looked.is_none_or(|(_, seen)| seen != commits)
    }

    /// Whether a check has found the database sound since the schema was last read.
    pub fn lacks_note(&self, database: &Path) -> bool {
        health::note(database).is_some_and(|note| self.noted.as_ref() != Some(&note))
    }

    /// [`Self::is_stale`], and the schema was last read at least a minute ago.
    pub fn is_due(&self, commits: u32, now: Instant) -> bool {
        self.is_stale(commits)
            && self.looked.is_none_or(|(at, _)| now.duration_since(at) >= LOOK_EVERY)
    }

    /// Writes a snapshot of the sound database that `connection` has open, if its schema differs
    /// from the one last written. Three header fields decide that; the schema itself is read only
    /// the first time and after a change. After an error the next call tries again.
    pub fn look(&mut self, connection: &Connection, commits: u32) {
        self.looked = Some((Instant::now(), commits));
        // The file is optional, so an error is ignored: see the module's documentation.
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
        // An empty schema is not saved. It could replace the snapshot of a database that was
        // emptied by accident.
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

/// Whether `new` has something that `kept` lacks. An entry that is missing under the same cookie
/// was not dropped but lost, so it does not count as a change.
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
