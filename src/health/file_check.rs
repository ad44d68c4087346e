//! The check of a whole database file, beyond what its pages show.
//!
//! | finding | detected by |
//! |---|---|
//! | the WAL was deleted | a `-shm` without a `-wal`: SQLite deletes the `-shm` first, and creates the `-wal` first |
//! | the file was replaced | this process has another file open by the same path |
//! | the file was cut short | pages that are neither in the file nor in its WAL |
//! | the WAL is another file's | damage that disappears when the file is read without its WAL, and a contradiction between the two ([`foreign_wal`]) |
//! | the owner of the WAL is unknown | the same damage without a contradiction |
//! | a transaction was interrupted | a hot rollback journal; the database is read as a rollback would leave it |
//!
//! The check does not write, checkpoint, roll back or recover: [`Access`] says how the file is
//! opened.
//!
//! Called on the thread of the check.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};

use super::finding::{CheckKind, Finding, Health};
use super::foreign_wal;
use super::health_cache::remember;
use super::inspect::{self, execute, inspect};
use super::is_unsafe_to_write;
use super::settled::Before;
use crate::engine::{
    Access, Class, Connection, DatabaseFile, Error, Extent, FileId, HotJournal, Progress, Reader,
    Result, Wal, advise, check_length, open_file, or_failed, refused_side_file, sidecar_path,
};

/// How long SQLite waits for a lock at a time. The task is asked in between whether to go on.
const SLICE: Duration = Duration::from_millis(50);

/// Pages copied in one step of the backup API.
const PAGES: std::ffi::c_int = 1000;

/// The first statements on each connection of a check. None of them reads the file.
const SETTINGS: &str = "PRAGMA wal_autocheckpoint = 0; PRAGMA mmap_size = 0; \
                        PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON";

/// Checks the file at `path`, an absolute path without symbolic links. While the file is locked,
/// waits at most for `patience`.
///
/// # Errors
/// `task`'s; errors that are neither damage nor contention: no such file, no permission, a failed
/// read.
pub(super) fn examine(
    path: &Path,
    kind: CheckKind,
    patience: Duration,
    task: &dyn Progress,
) -> Result<Health> {
    or_failed(path, || examined(path, kind, patience, task))
}

fn examined(
    path: &Path,
    kind: CheckKind,
    patience: Duration,
    task: &dyn Progress,
) -> Result<Health> {
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

/// Whether the pages of the file do not form a database. Damage in a full-text index, or an index
/// whose entries differ from its table's rows, does not show that pages come from another file.
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

/// SQLite's lines of a finding that may be damage.
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

/// Repeats `look` while the file is locked, at most for `patience`.
fn patiently(
    patience: Duration,
    task: &dyn Progress,
    look: impl Fn() -> Result<Health>,
) -> Result<Health> {
    let deadline = Instant::now() + patience;
    loop {
        task.check_cancelled()?;
        let health = look()?;
        if !health.is_locked() || Instant::now() >= deadline {
            return Ok(health);
        }
        // SQLite's busy handler does not wait for every kind of lock.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns `SQLITE_BUSY` while connections of this process have a `-wal` or `-shm` open that is no
/// longer at its path. SQLite maps the `-shm` once for each process. So a new connection would read
/// the new WAL with the index of the old one, and report false damage.
fn left_behind(path: &Path) -> Option<Error> {
    let file = DatabaseFile::opened(FileId::of(path).ok()?)?;
    (file.is_being_reopened() || file.check_sidecars().is_err()).then(|| {
        let message = "the -wal or -shm of the database was replaced while it was open, and \
                       connections of this process still have the old one open";
        Error::sqlite(ffi::SQLITE_BUSY, message).at(path)
    })
}

fn with_wal(
    path: &Path,
    kind: CheckKind,
    patience: Duration,
    task: &dyn Progress,
) -> Result<Health> {
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
        // Another connection has written since, so the result may mix two versions.
        let error = Error::sqlite(ffi::SQLITE_BUSY, "a transaction began during the check");
        return inspect::unreadable(path, kind, error.at(path));
    }
    if let Some(HotJournal { bytes, pages: changed_pages }) = connection.hot_journal() {
        health.findings.insert(0, Finding::HotJournal { bytes, changed_pages });
    }
    Ok(health.judged())
}

/// Copies a database that has a rollback journal. A check of the file itself would hold a SHARED
/// lock, and no connection could commit during the check. The copy is an unnamed temporary database
/// of SQLite. Returns `None` in WAL mode, where readers do not block writers; with a hot journal,
/// while which no other connection writes; and if SQLite cannot copy the file, because a check of
/// such a file is short.
fn copied(
    connection: &Reader,
    path: &Path,
    patience: Duration,
    task: &dyn Progress,
) -> Result<Option<Connection>> {
    let is_in_the_way = connection.takes_locks()
        && matches!(connection.is_wal(), Ok(false))
        // The copy of an empty database would not be empty.
        && connection.extent().is_ok_and(|extent| extent.pages > 0);
    if !is_in_the_way {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let copy = Connection::open(Path::new(""), flags, Duration::ZERO)?;
    copy.sql()?.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    let mut ended = Ok(());
    let mut each = |_| {
        ended = task.check_cancelled();
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

/// As [`look`], on `copy`, a copy of the database that `connection` has open.
fn look_at_copy(
    connection: &Connection,
    copy: &Connection,
    kind: CheckKind,
    task: &dyn Progress,
) -> Result<Health> {
    let truncated = truncated(connection)?;
    execute(copy, SETTINGS)?;
    let mut health = inspect(copy, kind, task)?;
    health.path = connection.path().to_path_buf();
    health.findings.splice(0..0, truncated);
    Ok(health.judged())
}

/// Returns the proof that the WAL belongs to another file, if there is one.
fn foreign(path: &Path, task: &dyn Progress) -> Result<Option<String>> {
    let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, SLICE)?;
    connection.checkpoint_on_close(false);
    execute(&connection, SETTINGS)?;
    // SQLite opens the WAL at the first read. The read may fail, as the WAL and the file mismatch.
    drop(execute(&connection, "BEGIN; SELECT count(*) FROM sqlite_schema"));
    foreign_wal::proof(&connection, task)
}

/// Checks the file without its WAL. Takes no lock, so a concurrent checkpoint may cause a false
/// report of damage. Its only effect is that the WAL is kept.
pub(super) fn without_wal(path: &Path, task: &dyn Progress) -> Result<Health> {
    let connection = Reader::without_wal(path, SLICE)?;
    execute(&connection, SETTINGS)?;
    look(&connection, CheckKind::Quick, task)
}

/// Detects missing pages, and runs SQLite's checks.
pub(super) fn look(
    connection: &Connection,
    kind: CheckKind,
    task: &dyn Progress,
) -> Result<Health> {
    let truncated = truncated(connection)?;
    let mut health = inspect(connection, kind, task)?;
    if let Some(finding) = truncated {
        health.findings.insert(0, finding);
    }
    Ok(health.judged())
}

/// Detects missing pages. SQLite refuses to read a file that is shorter than its header says,
/// unless `PRAGMA writable_schema` is on. So this sets the pragma, and SQLite checks the remaining
/// pages.
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
        // `inspect` meets the same error, and classifies it.
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

/// Whether this process has another file open by the same path, whose `-wal` or `-shm` is there.
pub(super) fn replaced(path: &Path) -> Option<Finding> {
    let id = FileId::of(path).ok()?;
    let others = DatabaseFile::open_by(path);
    let is_shared = others.iter().any(|file| file.id != id && file.may_have_left());
    is_shared.then(|| Finding::Replaced {
        lines: vec![
            "this process has another file open by the same path: the file was replaced, and the \
             -wal next to it belongs to the old file"
                .to_owned(),
        ],
    })
}

/// Detects that the WAL was deleted, and commits with it. Must be called before the file is opened:
/// opening creates a new WAL.
pub fn deleted_wal(path: &Path) -> Option<Finding> {
    let shm = sidecar_path(path, "-shm");
    if !shm.exists() || Wal::path(path).exists() {
        return None;
    }
    if !matches!(Access::of(path), Ok(Access::Alone)) {
        // The file is in no WAL mode, and asking for more would roll its journal back.
        return None;
    }
    // The WAL index holds the number of lost frames, unless a connection still has it open.
    let frames = match Alone::with(path) {
        Ok(Some(alone)) if !alone.is_wal() => return None,
        Ok(Some(_alone)) => frames_only_in_wal(&shm),
        // A failed read: the next check tries again.
        Err(error) if error.class() == Class::Io => return None,
        Ok(None) | Err(_) => None,
    };
    (frames != Some(0)).then_some(Finding::WalDeleted { frames })
}

/// Frames listed in the WAL index that no checkpoint has copied into the file
/// (<https://sqlite.org/walformat.html#the_wal_index_header>). `None` if the index header is
/// invalid. Read as a plain file, because no connection has it open: see [`Alone`].
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

/// The only connection to a WAL database, in this process and all others. It holds SQLite's
/// EXCLUSIVE lock on the file, so no other connection can open it meanwhile. It reads the WAL
/// without the `-shm`, and neither checkpoints nor deletes a file when it is closed.
pub(super) struct Alone {
    pub connection: Connection,
}

impl Alone {
    /// Opens it; `None` if another connection has the file open.
    ///
    /// # Errors
    /// SQLite's, except corruption, which the caller's check reports.
    pub fn with(path: &Path) -> Result<Option<Self>> {
        let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
        connection.checkpoint_on_close(false);
        execute(&connection, SETTINGS)?;
        // Set before the first read, so that SQLite takes the lock when it opens the WAL.
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

    /// Whether the file is in WAL mode. Also `true` if its mode cannot be read.
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
    return crate::engine::canonicalize(path);
    #[cfg(not(unix))]
    return std::fs::metadata(path).and_then(|_| std::path::absolute(path));
}

/// Size of a file in bytes, by `stat`; 0 if there is no such file.
pub(super) fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
