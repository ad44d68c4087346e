//! The check of a database file together with its WAL and journal: faults that the pages alone do
//! not show.
//!
//! | finding | detected by |
//! |---|---|
//! | the WAL was deleted | a `-shm` without a `-wal`, which SQLite creates first and removes last |
//! | the file was replaced | this process has another file open by the same path |
//! | the file is truncated | pages that are neither in the file nor in its WAL |
//! | the WAL is another file's | damage only together with the WAL, and a proof ([`foreign_wal`]) |
//! | the WAL may be another file's | damage only together with the WAL, without a proof |
//! | a transaction was interrupted | a hot rollback journal; the database is read through it |
//!
//! The check does not change the files: it neither writes, checkpoints, rolls back nor recovers.
//! [`Access`] decides how the file is opened.
//!
//! Called on the thread of the check.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};

use super::finding::{Finding, Health, Kind};
use super::foreign_wal;
use super::inspect::{self, execute, inspect};
use super::is_unsafe_to_write;
use super::last::remember;
use super::settled::Before;
use crate::engine::{
    Access, Class, Connection, DatabaseFile, Error, Extent, FileId, HotJournal, Reader, Result,
    Task, Wal, advise, beside, check_length, open_file, or_failed, refused_side_file,
};

/// How long SQLite waits for a lock at a time; in between the task may cancel.
const SLICE: Duration = Duration::from_millis(50);

/// Pages that are copied at a time.
const PAGES: std::ffi::c_int = 1000;

/// The settings of every connection of a check. None of them reads the file.
const SETTINGS: &str = "PRAGMA wal_autocheckpoint = 0; PRAGMA mmap_size = 0; \
                        PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON";

/// Checks the file at `path`, an absolute path without symbolic links. Waits for a lock on it for
/// at most `patience`.
///
/// # Errors
/// `task`'s; errors that are neither damage nor contention: no such file, no permission, a failed
/// read.
pub(super) fn examine(
    path: &Path,
    kind: Kind,
    patience: Duration,
    task: &dyn Task,
) -> Result<Health> {
    or_failed(path, || examined(path, kind, patience, task))
}

fn examined(path: &Path, kind: Kind, patience: Duration, task: &dyn Task) -> Result<Health> {
    let started = Instant::now();
    let before = Before::of(path);
    let deleted = deleted_wal(path);
    let mut health = patiently(patience, task, || match left_behind(path) {
        Some(error) => inspect::unreadable(path, kind, error),
        None => with_wal(path, kind, patience, task),
    })?;
    let wal_bytes = size(&Wal::path(path));
    if wal_bytes > 0 && is_broken(&health) {
        let alone = without_wal(path, task)?;
        if !is_broken(&alone) && !alone.is_locked() {
            let lines = health.findings.iter().flat_map(lines_of).cloned().collect();
            health.findings = vec![match foreign(path, task)? {
                Some(proof) => {
                    let lines = std::iter::once(proof).chain(lines).collect();
                    Finding::StaleWal { bytes: wal_bytes, lines }
                }
                None => Finding::UnclearWal { bytes: wal_bytes, lines },
            }];
            health.findings.extend(alone.findings);
            (health.pages, health.page_size) = (alone.pages, alone.page_size);
        }
    }
    health.findings.extend(deleted);
    health.findings.extend(refused_side_file(path).map(|refusal| {
        let lines = vec![refusal.advice()];
        Finding::RefusedFile { file: refusal.path, lines }
    }));
    health.findings.extend(replaced(path));
    health.elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
    let health = health.judged();
    if !health.is_locked()
        && let Ok(id) = FileId::of(path)
    {
        before.ended(id, path, health.ok && health.findings.is_empty());
        if let Some(file) = DatabaseFile::opened(id) {
            if is_unsafe_to_write(&health) {
                file.suspect();
            }
            remember(&file, health.clone());
        }
    }
    Ok(health)
}

/// Whether a finding shows that pages of the file do not belong together. A damaged full-text
/// index, or an index that merely differs from its table, does not show that.
pub(super) fn is_broken(health: &Health) -> bool {
    health.findings.iter().any(|finding| {
        matches!(
            finding,
            Finding::TableDamage { .. }
                | Finding::Freelist { .. }
                | Finding::Header { .. }
                | Finding::NotADatabase { .. }
                | Finding::Truncated { .. }
                | Finding::StaleWal { .. }
                | Finding::UnclearWal { .. }
                | Finding::Unreadable { .. }
        ) || matches!(finding, Finding::IndexDamage { pages, .. } if !pages.is_empty())
    })
}

/// SQLite's lines about a finding that is damage.
pub(super) fn lines_of(finding: &Finding) -> &[String] {
    match finding {
        Finding::IndexDamage { lines, .. }
        | Finding::FtsDamage { lines, .. }
        | Finding::FtsStale { lines, .. }
        | Finding::Freelist { lines, .. }
        | Finding::TableDamage { lines, .. }
        | Finding::Header { lines }
        | Finding::StaleWal { lines, .. }
        | Finding::UnclearWal { lines, .. }
        | Finding::Unreadable { lines, .. }
        | Finding::Truncated { lines, .. }
        | Finding::Replaced { lines }
        | Finding::NotADatabase { lines, .. } => lines,
        Finding::ForeignKeyViolations { .. }
        | Finding::ConstraintViolations { .. }
        | Finding::WalDeleted { .. }
        | Finding::HotJournal { .. }
        | Finding::RefusedFile { .. }
        | Finding::Locked { .. } => &[],
    }
}

/// Repeats `look` while the file is locked, for at most `patience`.
fn patiently(
    patience: Duration,
    task: &dyn Task,
    look: impl Fn() -> Result<Health>,
) -> Result<Health> {
    let deadline = Instant::now() + patience;
    loop {
        task.go_on()?;
        let health = look()?;
        if !health.is_locked() || Instant::now() >= deadline {
            return Ok(health);
        }
        // SQLite does not wait for every kind of lock.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `SQLITE_BUSY` while connections of this process have a replaced `-wal` or `-shm` open. SQLite
/// maps the `-shm` once for each process: a connection opened now would read the new WAL with the
/// old WAL-index, and report damage that the file does not have.
fn left_behind(path: &Path) -> Option<Error> {
    let file = DatabaseFile::opened(FileId::of(path).ok()?)?;
    (file.is_being_reopened() || file.check_beside().is_err()).then(|| {
        let message = "the -wal or -shm of the database was replaced while it was open, and \
                       connections of this process still have the old one open";
        Error::sqlite(ffi::SQLITE_BUSY, message).at(path)
    })
}

fn with_wal(path: &Path, kind: Kind, patience: Duration, task: &dyn Task) -> Result<Health> {
    if let Err(error) = check_length(path) {
        return inspect::unreadable(path, kind, error);
    }
    let connection = match Reader::open(path, SLICE) {
        Ok(connection) => connection,
        Err(error) => return inspect::unreadable(path, kind, advise(error, path)),
    };
    execute(&connection, SETTINGS)?;
    let mut health = match copied(&connection, path, patience, task)? {
        Some(copy) => look_at_copy(&connection, &copy, kind, task),
        None => look(&connection, kind, task),
    }
    .map_err(|error| advise(error, path))?;
    if !connection.is_current() {
        // Another connection has written since: the check must be repeated.
        let error = Error::sqlite(ffi::SQLITE_BUSY, "a transaction began during the check");
        return inspect::unreadable(path, kind, error.at(path));
    }
    if let Some(HotJournal { bytes, pages: changed_pages }) = connection.hot_journal() {
        health.findings.insert(0, Finding::HotJournal { bytes, changed_pages });
    }
    Ok(health.judged())
}

/// A private copy of a database with a rollback journal: a check of the file itself would block
/// every commit until it ends. SQLite writes the copy to an unnamed temporary file. Returns `None`,
/// so that the file itself is checked, in WAL mode, where readers do not block writers; with a hot
/// journal, because no connection can write before its rollback; and if SQLite cannot copy the
/// file, because the check of it then ends soon.
fn copied(
    connection: &Reader,
    path: &Path,
    patience: Duration,
    task: &dyn Task,
) -> Result<Option<Connection>> {
    let is_in_the_way = connection.takes_locks()
        && matches!(connection.is_wal(), Ok(false))
        // An empty database would get a copy that is not empty.
        && connection.extent().is_ok_and(|extent| extent.pages > 0);
    if !is_in_the_way {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let copy = Connection::open(Path::new(""), flags, Duration::ZERO)?;
    copy.sql()?.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    let mut ended = Ok(());
    let mut each = |_| {
        ended = task.go_on();
        ended.clone()
    };
    let outcome = connection.copy_to(&copy, PAGES, Some(patience.max(SLICE)), &mut each);
    ended?;
    match outcome {
        Ok(()) => Ok(Some(copy)),
        Err(error) if error.class() == Class::Io => Err(error.at(path)),
        Err(_) => Ok(None),
    }
}

/// As [`look`], on `copy`, the copy of the database that `connection` has open.
fn look_at_copy(
    connection: &Connection,
    copy: &Connection,
    kind: Kind,
    task: &dyn Task,
) -> Result<Health> {
    let truncated = truncated(connection)?;
    execute(copy, SETTINGS)?;
    let mut health = inspect(copy, kind, task)?;
    health.path = connection.path().to_path_buf();
    health.findings.splice(0..0, truncated);
    Ok(health.judged())
}

/// The proof that the WAL is another file's, if any.
fn foreign(path: &Path, task: &dyn Task) -> Result<Option<String>> {
    let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, SLICE)?;
    connection.checkpoint_on_close(false);
    execute(&connection, SETTINGS)?;
    // SQLite opens the WAL at the first read. The read may fail: the file is damaged with its WAL.
    drop(execute(&connection, "BEGIN; SELECT count(*) FROM sqlite_schema"));
    foreign_wal::proof(&connection, task)
}

/// Checks the file without its WAL. It takes no lock, so a concurrent checkpoint may yield a false
/// positive, whose only effect is that the WAL is kept.
pub(super) fn without_wal(path: &Path, task: &dyn Task) -> Result<Health> {
    let connection = Reader::without_wal(path, SLICE)?;
    execute(&connection, SETTINGS)?;
    look(&connection, Kind::Quick, task)
}

/// Checks for missing pages, then runs SQLite's check of the rest.
pub(super) fn look(connection: &Connection, kind: Kind, task: &dyn Task) -> Result<Health> {
    let truncated = truncated(connection)?;
    let mut health = inspect(connection, kind, task)?;
    if let Some(finding) = truncated {
        health.findings.insert(0, finding);
    }
    Ok(health.judged())
}

/// The finding that pages are missing, if any. SQLite refuses to read a file that is shorter than
/// its header says, unless `writable_schema` is on; this sets it, so that the rest can be checked.
fn truncated(connection: &Connection) -> Result<Option<Finding>> {
    let finding = |extent: Extent, lines: Vec<String>| Finding::Truncated {
        missing_pages: extent.missing,
        lines,
    };
    let error = match connection.extent() {
        Ok(extent) if extent.missing == 0 => return Ok(None),
        Ok(extent) => {
            let line = format!(
                "{} of {} pages are neither in the file nor in its -wal",
                extent.missing, extent.pages
            );
            return Ok(Some(finding(extent, vec![line])));
        }
        Err(error) if error.class() == Class::Corrupt => error,
        // `inspect` meets the same error and classifies it.
        Err(_) => return Ok(None),
    };
    match connection.extent_by_header()? {
        Some(extent) if extent.missing > 0 => {
            execute(connection, "PRAGMA writable_schema = ON")?;
            Ok(Some(finding(extent, vec![error.message])))
        }
        _ => Ok(None),
    }
}

/// The finding that this process has another file open by the same path, whose `-wal` or `-shm` may
/// still be there.
pub(super) fn replaced(path: &Path) -> Option<Finding> {
    let id = FileId::of(path).ok()?;
    let others = DatabaseFile::open_by(path);
    let is_shared = others.iter().any(|file| file.id != id && file.may_have_left());
    is_shared.then(|| Finding::Replaced {
        lines: vec![
            "this process has another file open by the same path: the file was replaced, and its \
             -wal belongs to the old file"
                .to_owned(),
        ],
    })
}

/// The finding that the WAL was deleted with commits in it. Called before the file is opened,
/// because opening creates a new WAL.
pub fn deleted_wal(path: &Path) -> Option<Finding> {
    let shm = beside(path, "-shm");
    if !shm.exists() || Wal::path(path).exists() {
        return None;
    }
    if !matches!(Access::of(path), Ok(Access::Alone)) {
        // The file may have a hot journal, which a connection that reads more would roll back.
        return None;
    }
    // The WAL-index has the number of lost frames, unless a connection still uses it.
    let frames = match Alone::with(path) {
        Ok(Some(alone)) if !alone.is_wal() => return None,
        Ok(Some(_alone)) => frames_only_in_wal(&shm),
        // The next check tries again.
        Err(error) if error.class() == Class::Io => return None,
        Ok(None) | Err(_) => None,
    };
    (frames != Some(0)).then_some(Finding::WalDeleted { frames })
}

/// Frames that the WAL-index counts and that no checkpoint has copied into the file
/// (<https://sqlite.org/walformat.html#the_wal_index_header>). `None` if the WAL-index is not
/// valid. It is read with file calls, because no connection has it open: see [`Alone`].
fn frames_only_in_wal(shm: &Path) -> Option<u64> {
    const HEADER: usize = 48;
    const IS_INIT: usize = 12;
    const MX_FRAME: usize = 16;
    const BACKFILLED: usize = 2 * HEADER;
    let mut index = [0; BACKFILLED + 4];
    open_file(shm).ok()?.read_exact(&mut index).ok()?;
    let word = |at: usize| {
        let bytes: [u8; 4] = index.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_ne_bytes(bytes)))
    };
    let is_whole = index.get(..HEADER) == index.get(HEADER..BACKFILLED);
    let is_used = index.get(IS_INIT).is_some_and(|init| *init != 0);
    if !is_whole || !is_used {
        return None;
    }
    Some(word(MX_FRAME)?.saturating_sub(word(BACKFILLED)?))
}

/// A connection to a WAL database with SQLite's exclusive lock on the file: no other connection, in
/// this process or another, has the file open while it lives. It reads the WAL, but does not use
/// the `-shm`. Closing it neither checkpoints nor removes a file.
pub(super) struct Alone {
    pub connection: Connection,
}

impl Alone {
    /// `None` if another connection has the file open.
    ///
    /// # Errors
    /// SQLite's, except for damage.
    pub fn with(path: &Path) -> Result<Option<Self>> {
        let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
        connection.checkpoint_on_close(false);
        execute(&connection, SETTINGS)?;
        // Before the first read, in which SQLite takes the lock and opens the WAL.
        execute(&connection, "PRAGMA locking_mode = EXCLUSIVE")?;
        let read = connection
            .sql()?
            .query_row("PRAGMA schema_version", [], |_| Ok(()))
            .map_err(|error| Error::from(error).at(path));
        match read {
            Err(error) if error.class() == Class::Transient => Ok(None),
            Err(error) if error.class() != Class::Corrupt => Err(error),
            _ => Ok(Some(Self { connection })),
        }
    }

    /// Whether the file is in WAL mode, or its mode cannot be read.
    fn is_wal(&self) -> bool {
        let mode = self.connection.sql().map_or(None, |sql| {
            sql.pragma_query_value(Some("main"), "journal_mode", |row| row.get::<_, String>(0)).ok()
        });
        mode.is_none_or(|mode| mode.eq_ignore_ascii_case("wal"))
    }
}

/// `path` as SQLite resolves it: on unix without symbolic links.
pub(super) fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    #[cfg(unix)]
    return std::fs::canonicalize(path);
    #[cfg(not(unix))]
    return std::fs::metadata(path).and_then(|_| std::path::absolute(path));
}

/// Size of a file in bytes, by `stat`; 0 if there is no file.
pub(super) fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
