//! The journal mode of a database file: WAL, into which a hardened connection puts it, or the
//! rollback journal in which a program keeps it.
//!
//! | the connection asks for | the file is in WAL mode | the file has a rollback journal |
//! |---|---|---|
//! | [`JournalMode::Wal`] | stays | is put into WAL mode, unless this process *keeps* the file or only reads it |
//! | [`JournalMode::Keep`] | stays | stays, and this process keeps it from here on |
//!
//! A process keeps a file that a connection opened with [`JournalMode::Keep`], or whose mode a
//! program changed by `PRAGMA journal_mode`, so that no other open of this process undoes that: a
//! change of mode needs the file for itself and rewrites its header. It ends with the process, or
//! when the file is found in WAL mode.
//!
//! Any thread. Sources: <https://sqlite.org/pragma.html#pragma_journal_mode>,
//! <https://sqlite.org/wal.html#activating_and_configuring_wal_mode>.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use parking_lot::Mutex;
use rusqlite::ffi;

use super::profile::is_readonly;
use super::{Connection, DatabaseFile, Error, FileId, Result, file_system};

/// What a connection asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalMode {
    /// WAL.
    Wal,
    /// What the file has.
    Keep,
}

/// A file's identity and creation time: the system may give the inode of a deleted file to another
/// file.
type Place = (PathBuf, Option<SystemTime>);

/// Files that this process keeps in rollback mode.
static KEPT: Mutex<Option<HashMap<FileId, Place>>> = Mutex::new(None);

/// After so many files those that are gone are forgotten.
const MANY: usize = 1024;

fn kept<R>(body: impl FnOnce(&mut HashMap<FileId, Place>) -> R) -> R {
    let mut kept = KEPT.lock();
    body(kept.get_or_insert_with(HashMap::new))
}

/// Whether this process keeps `file` in rollback mode.
fn is_kept(file: &DatabaseFile) -> bool {
    kept(|kept| kept.get(&file.id).is_some_and(|place| *place == (file.path.clone(), file.made())))
}

fn keep(file: &DatabaseFile, yes: bool) {
    kept(|kept| {
        if !yes {
            kept.remove(&file.id);
            return;
        }
        if kept.len() >= MANY {
            kept.retain(|id, (path, _)| FileId::of(path).is_ok_and(|now| now == *id));
        }
        kept.insert(file.id, (file.path.clone(), file.made()));
    });
}

impl Connection {
    /// Whether the main database is in WAL mode.
    ///
    /// # Errors
    /// SQLite's.
    pub fn is_wal(&self) -> Result<bool> {
        mode(self, "PRAGMA main.journal_mode").map(|mode| mode.eq_ignore_ascii_case("wal"))
    }

    /// Whether the connection keeps its lock on the file (`PRAGMA locking_mode = EXCLUSIVE`).
    ///
    /// # Errors
    /// SQLite's.
    pub fn is_exclusive(&self) -> Result<bool> {
        mode(self, "PRAGMA main.locking_mode").map(|mode| mode.eq_ignore_ascii_case("exclusive"))
    }

    /// The program may have changed the journal mode on this connection, which has a file.
    ///
    /// # Errors
    /// SQLite's.
    pub fn mode_may_have_changed(&self) -> Result<()> {
        let Some(file) = self.file() else { return Ok(()) };
        let keeps = !self.is_wal()?;
        if is_kept(file) != keeps {
            keep(file, keeps);
            file.connection_set.have_changed_mode();
            if !keeps {
                file.connection_set.have_read(&file.path);
            }
        }
        Ok(())
    }

    /// Puts the file into WAL mode although this process keeps it in another.
    ///
    /// # Errors
    /// `ERR_FUSION_OPTIONS_CONFLICT` where another connection of this process has it open;
    /// `ERR_FUSION_NOT_WAL`.
    pub fn insist_on_wal(&self) -> Result<()> {
        let Some(file) = self.file() else { return Ok(()) };
        if self.is_wal()? {
            return Ok(());
        }
        if !is_alone(file) && !is_readonly(self) {
            return Err(Error::fusion(
                "ERR_FUSION_OPTIONS_CONFLICT",
                "this process has the file open already and keeps its rollback journal \
                 (journalMode 'keep', or PRAGMA journal_mode): use the same option everywhere, or \
                 close the other handles first",
            )
            .at(&file.path));
        }
        enter_wal(self)
    }
}

/// Gives the file of `connection` the mode that is asked for.
///
/// # Errors
/// `ERR_FUSION_NOT_WAL`; SQLite's.
pub(super) fn apply(connection: &Connection, wanted: JournalMode) -> Result<()> {
    let Some(file) = connection.file() else { return Ok(()) };
    if connection.is_wal()? {
        keep(file, false);
        return Ok(());
    }
    if wanted == JournalMode::Keep {
        keep(file, true);
        return Ok(());
    }
    // An empty file that no other connection of this process has open is a new file, which may have
    // the inode of an earlier one.
    let is_new = is_alone(file) && connection.sizes()?.0 == Some(0);
    if is_readonly(connection) || is_kept(file) && !is_new { Ok(()) } else { enter_wal(connection) }
}

/// Whether one connection of this process has `file` open.
fn is_alone(file: &DatabaseFile) -> bool {
    file.connections.load(Ordering::Acquire) <= 1
}

fn mode(connection: &Connection, sql: &str) -> Result<String> {
    connection
        .sql()?
        .query_row(sql, [], |row| row.get(0))
        .map_err(|error| Error::from(error).at(connection.path()))
}

/// Sets WAL mode and checks the result: the PRAGMA may return another mode.
fn enter_wal(connection: &Connection) -> Result<()> {
    let path = connection.path();
    let before = mode(connection, "PRAGMA main.journal_mode")?;
    if is_readonly(connection) {
        return Err(Error::fusion(
            "ERR_FUSION_NOT_WAL",
            format!(
                "the database is in journal mode {before} and was opened read-only, so that it \
                 cannot be put into WAL mode. Open it once for writing, or leave journalMode out"
            ),
        )
        .at(path));
    }
    match mode(connection, "PRAGMA main.journal_mode = WAL") {
        Ok(after) if after.eq_ignore_ascii_case("wal") => {
            if let Some(file) = connection.file() {
                keep(file, false);
                file.connection_set.have_changed_mode();
            }
            Ok(())
        }
        Ok(after) => Err(Error::fusion(
            "ERR_FUSION_NOT_WAL",
            format!(
                "the database stayed in journal mode {after}: SQLite cannot have shared memory \
                 for it there ({}). Move it to a local disk",
                file_system::describe(path)
            ),
        )
        .at(path)),
        Err(error) => {
            let lead = match error.errcode & 0xff {
                ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => format!(
                    "the database is in journal mode {before} and could not be put into WAL \
                     mode, because another connection, of this process or another, had it in use \
                     for longer than the busy timeout. Close that one first, or open the file \
                     with journalMode 'keep'"
                ),
                _ => format!(
                    "the database is in journal mode {before} and could not be put into WAL mode \
                     ({})",
                    file_system::describe(path)
                ),
            };
            Err(error.explained("ERR_FUSION_NOT_WAL", &lead))
        }
    }
}
