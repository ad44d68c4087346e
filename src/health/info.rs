//! A description of a database file, read without changing it: the processes that have it open, the
//! values of its header, the size of its WAL, and the backups and copies next to it.
//!
//! Sizes and times come from `stat`. SQLite reads the contents, on a connection that neither writes
//! nor checkpoints. Any thread; waits for a lock for at most [`PATIENCE`].

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::open_handles::{Holders, holders};
use super::page_map::Pages;
use crate::engine::{
    self, Error, FileId, FileSystem, LockKind, NoProgress, PageSnapshot, PageSource, Reader,
    Result, Wal, canonicalize, hard_links, is_mount_root, lock_kind, sidecar_path,
};

/// How long to wait for a locked file.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Description of a database file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileInfo {
    /// The path, symbolic links resolved.
    pub path: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Last modification of the file, in milliseconds since 1970-01-01 UTC; `None` if the file
    /// system does not record it.
    pub modified: Option<u64>,
    /// Number of hard links. More than one is dangerous: each name has its own WAL.
    pub hard_links: u64,
    /// Whether the file itself is a mount point. Processes outside the mount use another WAL.
    pub file_mount: bool,
    /// The file system.
    pub file_system: Option<FileSystemInfo>,
    /// The kind of this process's file locks: `ofd`, `posix` or `windows`.
    pub lock_kind: &'static str,
    /// The processes that have it open.
    pub holders: Holders,
    /// The `-wal`; `None` if there is no such file.
    pub wal: Option<WalInfo>,
    /// Bytes of the `-shm`; `None` if there is no such file.
    pub shm_bytes: Option<u64>,
    /// Bytes of the `-journal`; `None` if there is no such file. A journal that is not empty
    /// belongs to an open or an interrupted transaction, or is persistent.
    pub journal_bytes: Option<u64>,
    /// The database's own values; `None` if SQLite could not read it.
    pub database: Option<DatabaseInfo>,
    /// Why SQLite could not read it.
    pub error: Option<FileError>,
    /// Version of this process's SQLite.
    pub sqlite_version: &'static str,
    /// Backups and copies of the database in its folder.
    pub sidecars: Vec<SidecarFile>,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSystemInfo {
    /// Its type: `ext4`, `nfs`.
    pub name: String,
    /// A network file system: other machines may write to it, so it must not hold a database.
    pub network: bool,
}

/// A `-wal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WalInfo {
    /// Bytes of the file. A restart of the WAL does not shorten it.
    pub bytes: u64,
    /// Frames in use, one page each; `None` if SQLite could not read the WAL.
    pub frames: Option<u64>,
    /// How many of them are checkpointed.
    pub checkpointed: Option<u64>,
}

/// Values that SQLite reads from a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseInfo {
    /// `PRAGMA journal_mode`.
    pub journal_mode: String,
    /// Bytes per page.
    pub page_size: u64,
    /// Pages, those in the WAL included.
    pub pages: u64,
    /// How many of them are on the freelist.
    pub free_pages: u64,
    /// `UTF-8`, `UTF-16le` or `UTF-16be`.
    pub encoding: String,
    /// `none`, `full` or `incremental`.
    pub auto_vacuum: &'static str,
    /// `PRAGMA user_version`.
    pub user_version: i64,
    /// `PRAGMA application_id`.
    pub application_id: i64,
    /// `PRAGMA schema_version`: the number of schema changes.
    pub schema_version: i64,
    /// Version of the SQLite that wrote to the file last, for example `3.54.1`; `None` if the
    /// header does not record it.
    pub last_writer: Option<String>,
}

/// Why SQLite could not read the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileError {
    /// As [`Error::code`].
    pub code: &'static str,
    /// As [`Error::errcode`].
    pub errcode: i32,
    /// As [`Error::message`].
    pub message: String,
}

/// A backup or copy of a database in its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarFile {
    /// Its path.
    pub path: String,
    /// Its kind.
    pub kind: BesideKind,
    /// Its size in bytes.
    pub bytes: u64,
    /// As [`FileInfo::modified`].
    pub modified: Option<u64>,
    /// The next repair or restore deletes it: the database holds all of its rows, and enough newer
    /// copies are kept ([`engine::bound`]).
    pub removable: bool,
}

/// Kind of a backup or copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BesideKind {
    /// A backup.
    Backup,
    /// The saved copy of its schema.
    Snapshot,
    /// A damaged original, the file before a restore, or a WAL of another database. Kept, because
    /// it may hold rows that exist nowhere else.
    Preserved,
}

/// Describes the database at `path`. `keep` is the number of copies of each kind that are kept
/// although the database holds all of their rows.
///
/// # Errors
/// `SQLITE_CANTOPEN` if there is no such file; `ERR_FUSION_SQLITE_VERSION`. If the file cannot be
/// read as a database, that is reported in [`FileInfo::error`].
pub fn file_info(path: &Path, keep: u32) -> Result<FileInfo> {
    crate::engine::init()?;
    let cannot = |error: std::io::Error| {
        Error::sqlite(rusqlite::ffi::SQLITE_CANTOPEN, error.to_string()).at(path)
    };
    let path = &canonicalize(path).map_err(cannot)?;
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(cannot(std::io::Error::other("it is not a file")));
    }
    // Read before this process opens the file.
    let holders = holders(path);
    let id = FileId::of(path).map_err(cannot)?;
    let (database, frames, error) = match read(path) {
        Ok((database, frames)) => (Some(database), frames, None),
        Err(error) => (None, None, Some(error)),
    };
    Ok(FileInfo {
        path: path.to_string_lossy().into_owned(),
        bytes: metadata.len(),
        modified: modified(&metadata),
        hard_links: hard_links(path).map_err(cannot)?,
        file_mount: is_mount_root(path),
        file_system: FileSystem::of(path)
            .ok()
            .map(|it| FileSystemInfo { name: it.name, network: it.network }),
        lock_kind: match lock_kind() {
            LockKind::Ofd => "ofd",
            LockKind::Posix => "posix",
            LockKind::Windows => "windows",
        },
        holders,
        wal: length(&Wal::path(path)).map(|bytes| WalInfo {
            bytes,
            frames: frames.map(|(frames, _)| frames),
            checkpointed: frames.map(|(_, checkpointed)| checkpointed),
        }),
        shm_bytes: length(&sidecar_path(path, "-shm")),
        journal_bytes: length(&sidecar_path(path, "-journal")),
        database,
        error: error.map(|error| FileError {
            code: error.code,
            errcode: error.errcode,
            message: error.message,
        }),
        sqlite_version: rusqlite::version(),
        sidecars: sidecar_files(path, id, keep),
    })
}

fn length(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.len())
}

fn modified(metadata: &std::fs::Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Frames in use and how many of them are checkpointed.
type Frames = (u64, u64);

/// Reads the database's values and the WAL's frames with SQLite.
fn read(path: &Path) -> Result<(DatabaseInfo, Option<Frames>)> {
    let reader = Reader::open(path, PATIENCE)?;
    let connection = reader.connection();
    let sql = connection.sql()?;
    // One read transaction for all values. The read of schema_version begins it.
    sql.execute_batch("PRAGMA query_only = 1; BEGIN")?;
    let number = |name: &str| -> Result<i64> {
        Ok(sql.query_row(&format!("PRAGMA main.{name}"), [], |row| row.get(0))?)
    };
    let schema_version = number("schema_version")?;
    let database = DatabaseInfo {
        journal_mode: sql.query_row("PRAGMA main.journal_mode", [], |row| row.get(0))?,
        page_size: count(number("page_size")?),
        pages: count(number("page_count")?),
        free_pages: count(number("freelist_count")?),
        encoding: sql.query_row("PRAGMA main.encoding", [], |row| row.get(0))?,
        auto_vacuum: match number("auto_vacuum")? {
            0 => "none",
            1 => "full",
            _ => "incremental",
        },
        user_version: number("user_version")?,
        application_id: number("application_id")?,
        schema_version,
        last_writer: last_writer(path).ok().flatten(),
    };
    sql.execute_batch("COMMIT")?;
    Ok((database, connection.wal_frames()))
}

/// The version number that SQLite stores in the header of each file that it writes to
/// (<https://sqlite.org/fileformat2.html>, 1.3.17).
fn last_writer(path: &Path) -> Result<Option<String>> {
    let view = PageSnapshot::open(path, Instant::now() + PATIENCE, &NoProgress)?;
    let wal = view.wal().map(|wal| wal as &dyn PageSource);
    let number = Pages::new(view.database(), wal, &NoProgress)?.last_writer();
    let version = format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000);
    Ok((number >= 3_000_000).then_some(version))
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The backups and copies of the database in its folder, ordered by kind and path.
fn sidecar_files(path: &Path, id: FileId, keep: u32) -> Vec<SidecarFile> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let name = name.to_string_lossy();
    let removable: Vec<PathBuf> = engine::removable(path, keep)
        .into_iter()
        .flat_map(|copy| [Some(copy.path), copy.wal])
        .flatten()
        .collect();
    let mut found: Vec<SidecarFile> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let kind = belongs(entry.file_name().to_string_lossy().strip_prefix(&*name)?)?;
            let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            // A hard link to the database itself.
            if FileId::of(&entry.path()).is_ok_and(|it| it == id) {
                return None;
            }
            Some(SidecarFile {
                path: entry.path().to_string_lossy().into_owned(),
                kind,
                bytes: metadata.len(),
                modified: modified(&metadata),
                removable: removable.contains(&entry.path()),
            })
        })
        .collect();
    found.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
    found
}

/// Kind of the file whose name is the database's name and `suffix`; `None` for other files.
fn belongs(suffix: &str) -> Option<BesideKind> {
    if suffix == "-schema" {
        return Some(BesideKind::Snapshot);
    }
    if let Some(rest) = suffix.strip_prefix(".backup") {
        let generation = rest.strip_prefix('.').is_some_and(|number| number.parse::<u32>().is_ok());
        return (rest.is_empty() || generation).then_some(BesideKind::Backup);
    }
    engine::is_kept(suffix).then_some(BesideKind::Preserved)
}
