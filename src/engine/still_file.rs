//! A database in WAL mode that SQLite cannot read without making something next to it that stays: one
//! that this process may only read, where SQLite could make neither the `-wal` nor the `-shm` that it
//! takes for that (on a read-only mount, in the folder of another user), and one with a `-wal` and no
//! `-shm`, which SQLite would make and leave (a copy, what is left of a crash).
//!
//! A [`StillFile`] is the file with the committed frames of its `-wal` over it, as SQLite reads the
//! two. It makes nothing next to the file, writes nothing and takes no lock, so that it sees no
//! consistent state while another process writes: what was read counts only if
//! [`StillFile::is_current`] says so afterwards. It is used only where SQLite itself would have to make
//! something. Where a `-shm` can be read, SQLite need not: then it takes locks, and reads one state. Who
//! has a database in WAL mode open without a `-shm` holds its lock (`PRAGMA locking_mode = EXCLUSIVE`):
//! then SQLite waits for that.
//!
//! The file is read through SQLite's handle, so that no lock of this process is dropped; SQLite takes
//! none on a `-wal`. Any thread, one at a time. Memory: one entry a page of the WAL.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::{OpenFlags, ffi};

use super::cause::{EXECUTE, READ, WRITE, access};
use super::rolled_back::journal_path;
use super::sqlite_file::Handle;
use super::{
    Connection, DatabaseWithWal, Error, FileId, NoProgress, PageSource, PrivateFile, Result, Wal,
    locks, sidecar_path,
};

/// Where a header says how the file is to be read, and what it says of one in WAL mode
/// (<https://sqlite.org/fileformat2.html#file_format_version_numbers>).
const READ_VERSION_AT: u64 = 19;
const WAL_VERSION: u8 = 2;

/// Whether this process may not write to the database at `path`, or may make nothing next to it.
pub fn is_read_only(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    access(path, WRITE).is_err()
        || access(folder.unwrap_or(Path::new(".")), WRITE | EXECUTE).is_err()
}

/// What the system says of a database and of what lies next to it: another one after each write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    path: PathBuf,
    files: [Option<(FileId, u64, SystemTime)>; 3],
}

impl Marks {
    /// Those of the database at `path`.
    pub fn of(path: &Path) -> Self {
        let mark = |name: PathBuf| {
            let metadata = std::fs::metadata(&name).ok()?;
            Some((FileId::of(&name).ok()?, metadata.len(), metadata.modified().ok()?))
        };
        let files = [path.to_path_buf(), Wal::path(path), journal_path(path)].map(mark);
        Self { path: path.to_path_buf(), files }
    }

    /// Whether nothing was written since.
    pub fn are_current(&self) -> bool {
        Self::of(&self.path) == *self
    }
}

/// Whether a process, this one included, has a lock on the database.
fn is_locked(file: FileId) -> bool {
    let file = (file.device, file.inode);
    #[cfg(unix)]
    if locks::descriptor(file).is_some() {
        return true;
    }
    locks::is_locked_by_others(file, 0, 0)
}

/// See the module.
pub struct StillFile {
    /// Owns what the handle points to. It only reads.
    connection: Connection,
    content: DatabaseWithWal<Handle, PrivateFile>,
    marks: Marks,
}

impl std::fmt::Debug for StillFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StillFile").field("marks", &self.marks).finish_non_exhaustive()
    }
}

impl StillFile {
    /// The database at `path`; none where SQLite can read it without making anything that stays.
    ///
    /// # Errors
    /// SQLite's; those of reading.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        Self::read(path).map_err(|error| error.at(path))
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let (wal, shm) = (Wal::path(path), sidecar_path(path, "-shm"));
        let may_write = !is_read_only(path);
        // Windows notes the time of a write when the writer closes the file.
        let would_leave_index = cfg!(unix) && wal.exists() && !shm.exists();
        if may_write && !would_leave_index || wal.exists() && access(&shm, READ).is_ok() {
            return Ok(None);
        }
        let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, Duration::ZERO)?;
        let database = Handle::of(&connection, ffi::SQLITE_FCNTL_FILE_POINTER)?
            .ok_or_else(|| Error::fusion("ERR_INVALID_STATE", "the database has no file"))?;
        if may_write && connection.file().is_none_or(|file| is_locked(file.id)) {
            return Ok(None);
        }
        let marks = Marks::of(path);
        let mut version = [0];
        database.read_at(&mut version, READ_VERSION_AT)?;
        if !wal.exists() && version != [WAL_VERSION] {
            return Ok(None);
        }
        let wal = wal.exists().then(|| PrivateFile::open(&wal)).transpose()?;
        let content = DatabaseWithWal::new(database, wal, &NoProgress)?;
        Ok(Some(Self { connection, content, marks }))
    }

    /// The path as SQLite resolved it.
    pub fn path(&self) -> &Path {
        self.connection.path()
    }

    /// The database file, without its WAL.
    pub fn database(&self) -> &dyn PageSource {
        self.content.database()
    }

    /// The WAL.
    pub fn wal(&self) -> Option<&dyn PageSource> {
        self.content.wal().map(|wal| -> &dyn PageSource { wal })
    }

    /// Whether what was read so far is of one state of the database: no process has written to it.
    pub fn is_current(&self) -> bool {
        self.marks.are_current()
    }
}

impl PageSource for StillFile {
    fn size(&self) -> Result<u64> {
        self.content.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.content.read_at(buffer, offset)
    }
}
