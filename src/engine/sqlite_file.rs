//! The bytes of a database that may be in use, and locks on it, through SQLite's own handles.
//!
//! SQLite hands out the file handles of a connection (`SQLITE_FCNTL_FILE_POINTER` and
//! `SQLITE_FCNTL_JOURNAL_POINTER`, <https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html>),
//! and their methods read and lock without asking what the file holds. That is what a repair
//! needs: SQL fails on a damaged header, and any other descriptor on the file would drop the
//! process's POSIX locks when it is closed.
//!
//! While a [`CommitLock`] lives no other connection commits, checkpoints or resets the WAL; readers go
//! on. In WAL mode it has the WAL's write and checkpoint locks, with a rollback journal SHARED and
//! RESERVED on the file.
//!
//! The connection behind a [`SqliteFile`] runs one statement, at the beginning: the read that opens
//! the WAL. From then on its pager has no transaction. The locks that are taken and released here,
//! past the pager, are not locks that the pager holds itself (in WAL mode it holds SHARED on the
//! file, otherwise nothing): it finds its own locks as it left them.
//!
//! Any thread, one at a time. Each wait asks its [`Progress`] whether to go on.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};

use super::empty_wal::{self, HiddenWal};
use super::{
    Class, Connection, DatabaseFile, Error, PageSource, Progress, Result, Stage, check_files,
    errstr, refused_side_file,
};

/// Locks of the WAL's index (<https://sqlite.org/walformat.html#wal_locks>).
const WRITE: c_int = 0;
const CHECKPOINT: c_int = 1;

/// Bytes of the first region of the WAL's index, as SQLite maps it.
const SHM_REGION: c_int = 32_768;

/// Bytes of the WAL's index that change with every commit: one copy of its header
/// (<https://sqlite.org/walformat.html#the_wal_index_header>). With a rollback journal as many of
/// the file's own header, from the change counter on.
const GENERATION: usize = 48;

/// Where a database's header has its change counter (<https://sqlite.org/fileformat2.html>, 1.3.6).
const CHANGE_COUNTER: u64 = 24;

/// Where a database's header has the page size (<https://sqlite.org/fileformat2.html>, 1.3.2).
const PAGE_SIZE_FIELD: u64 = 16;

/// Where in that header its counter of commits is (`iChange`), in the machine's byte order.
const CHANGE: std::ops::Range<usize> = 8..12;

/// Where the number of frames that count is (`mxFrame`), likewise.
const FRAMES: std::ops::Range<usize> = 16..20;

/// The shortest pause between two attempts at a lock.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The longest pause between two attempts at a lock.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// A database file, and its WAL, as an open connection of SQLite's sees them.
pub struct SqliteFile {
    connection: Connection,
    database: Handle,
    wal: Option<Handle>,
    /// The file's first page could not be read.
    is_blind: bool,
    /// A [`CommitLock`] exists: two on one handle would release each other's locks.
    locked: Cell<bool>,
}

impl fmt::Debug for SqliteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteFile").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// Checks that `connection`, which has read the file and may write to it, may write to the WAL index, too.
///
/// If SQLite cannot open a `-shm` for writing, for whatever reason, it opens it for reading, and refuses
/// every write until the process closes its last connection to the file.
///
/// # Errors
/// `SQLITE_READONLY`.
pub(super) fn check_index(connection: &Connection) -> Result<()> {
    // Without an open WAL there is no index, and xShmMap would make one.
    let is_wal = Handle::of(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER)?.is_some();
    let file = Handle::of(connection, ffi::SQLITE_FCNTL_FILE_POINTER)?;
    if !is_wal || !file.is_some_and(|file| file.is_shm_read_only()) {
        return Ok(());
    }
    let message = "its -shm was opened for reading only, because the system failed the open for \
                   writing, and stays so until this process has closed every connection to the \
                   file. Close those, and open it again";
    Err(Error::sqlite(ffi::SQLITE_READONLY, message).at(connection.path()))
}

/// The state of a database at a moment: two are equal exactly if no commit came in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    header: [u8; GENERATION],
    /// The file's size; `None` in WAL mode, where checkpoints change it.
    size: Option<u64>,
}

impl Generation {
    /// Frames of the WAL that count; 0 without a WAL.
    pub(super) fn frames(&self) -> u32 {
        let frames = self.header.get(FRAMES).filter(|_| self.size.is_none());
        frames.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
    }

    /// The page size of the WAL in bytes; `None` for a WAL without frames.
    pub fn wal_page_size(&self) -> Option<u32> {
        let [.., size_0, size_1] = *self.header.first_chunk::<16>()?;
        // 65,536 is stored as 1.
        let size = match u16::from_ne_bytes([size_0, size_1]) {
            1 => 65_536,
            size => u32::from(size),
        };
        (self.frames() > 0).then_some(size)
    }
}

impl SqliteFile {
    /// Opens the database at `path`, whatever it holds, by an absolute or relative path that is
    /// no URI. SQLite opens its WAL, except that of an empty file. An empty WAL of a file that
    /// cannot be read is opened, too (see [`empty_wal`]).
    ///
    /// Closing never checkpoints and never removes a WAL.
    ///
    /// # Errors
    /// `SQLITE_BUSY` where it is locked until `until`; `SQLITE_CANTOPEN`, `SQLITE_READONLY`: locks
    /// need files that may be written to; SQLite's; `task`'s. Damage is not an error.
    pub fn open(path: &Path, until: Instant, task: &dyn Progress) -> Result<Self> {
        check_files(path)?;
        if let Some(refusal) = refused_side_file(path) {
            return Err(refusal.error(path));
        }
        let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
        connection.checkpoint_on_close(false);
        let database = Handle::of(&connection, ffi::SQLITE_FCNTL_FILE_POINTER)?
            .ok_or_else(|| Error::fusion("ERR_INVALID_STATE", "the database has no file"))?;
        let is_blind = patiently(path, until, task, || {
            let read = connection
                .sql()?
                .query_row("PRAGMA schema_version", [], |_| Ok(()))
                .map_err(|error| Error::from(error).at(path));
            match read {
                Err(error) if error.class() == Class::Transient => Ok(None),
                Err(error) if error.class() != Class::Corrupt => Err(error),
                Err(_) => match empty_wal::unseen(&connection)? {
                    HiddenWal::None => Ok(Some(true)),
                    HiddenWal::Filled => Ok(None),
                    HiddenWal::Empty => {
                        empty_wal::materialize(&connection, &database)
                            .map_err(|error| error.at(path))?;
                        Ok(None)
                    }
                },
                Ok(()) => Ok(Some(false)),
            }
        })?;
        // Outside a transaction a rollback journal is closed, so an open journal file is a WAL.
        let wal = Handle::of(&connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER)?;
        Ok(Self { connection, database, wal, is_blind, locked: Cell::new(false) })
    }

    /// The path as SQLite resolved it.
    pub fn path(&self) -> &Path {
        self.connection.path()
    }

    /// The file that it has open.
    pub fn file(&self) -> Option<&Arc<DatabaseFile>> {
        self.connection.file()
    }

    /// The database file. What is read without a [`CommitLock`] may be torn.
    pub fn database(&self) -> &impl PageSource {
        &self.database
    }

    /// Its WAL, where there is one. What is read without a [`CommitLock`] may be torn.
    pub fn wal(&self) -> Option<&impl PageSource> {
        self.wal.as_ref()
    }

    /// Keeps every other connection from committing, from checkpointing and from resetting the WAL.
    /// Readers go on.
    ///
    /// # Errors
    /// `SQLITE_BUSY` where another connection writes until `until`, or this has a lock already;
    /// SQLite's; `task`'s.
    pub fn hold(&self, until: Instant, task: &dyn Progress) -> Result<CommitLock<'_>> {
        patiently(self.path(), until, task, || {
            if self.locked.get() {
                return Ok(None);
            }
            let held = if self.wal.is_some() { self.database.lock_wal() } else { self.try_file() }?;
            self.locked.set(held);
            let hold = held.then_some(CommitLock { file: self });
            if let (Some(_), Some(wal), true) = (&hold, &self.wal, self.is_blind) {
                // A checkpoint may have truncated the WAL since.
                empty_wal::keep_revealed(&self.database, wal)
                    .map_err(|error| error.at(self.path()))?;
            }
            Ok(hold)
        })
    }

    fn try_file(&self) -> Result<bool> {
        for level in [ffi::SQLITE_LOCK_SHARED, ffi::SQLITE_LOCK_RESERVED] {
            let got = self.database.lock(level);
            if !matches!(got, Ok(true)) {
                self.database.unlock_all();
                return got;
            }
        }
        Ok(true)
    }

    /// The database's state now. Reliable only while no connection can commit: under a [`CommitLock`],
    /// or while a connection of the caller has a write transaction.
    ///
    /// # Errors
    /// SQLite's.
    pub fn generation(&self) -> Result<Generation> {
        if self.wal.is_some() {
            return self.database.wal_generation();
        }
        let mut header = [0; GENERATION];
        self.database.read_at(&mut header, CHANGE_COUNTER)?;
        Ok(Generation { header, size: Some(self.database.size()?) })
    }

    /// The WAL index's counter of changes (`iChange`), which grows with each commit of any process
    /// while a connection has the database open; `None` without a WAL. Checkpoints do not change
    /// it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn commits(&self) -> Result<Option<u32>> {
        if self.wal.is_none() {
            return Ok(None);
        }
        let header = self.database.shm_header()?;
        let count = header.get(CHANGE).and_then(|bytes| bytes.try_into().ok());
        Ok(count.map(u32::from_ne_bytes))
    }
}

/// While this lives no other connection commits or checkpoints. See [`SqliteFile::hold`].
#[derive(Debug)]
pub struct CommitLock<'a> {
    file: &'a SqliteFile,
}

impl<'a> CommitLock<'a> {
    /// What is held.
    pub fn file(&self) -> &'a SqliteFile {
        self.file
    }

    /// Writes `page_size` into the file's header, if that has another valid page size, and returns
    /// the two bytes before and after. For headers that SQLite cannot read: when it opens a file it
    /// takes the connection's page size from these two bytes alone, if they are a valid page size.
    ///
    /// # Errors
    /// Those of writing.
    pub fn set_page_size(&self, page_size: u32) -> Result<Option<PageSizePatch>> {
        // 65,536 is stored as 1.
        let [.., high, low] = u32::to_be_bytes(if page_size == 65_536 { 1 } else { page_size });
        let field = [high, low];
        let mut before = [0; 2];
        self.file.database.read_at(&mut before, PAGE_SIZE_FIELD)?;
        let stored = u16::from_be_bytes(before);
        if before == field || !(stored == 1 || (stored >= 512 && stored.is_power_of_two())) {
            return Ok(None);
        }
        self.file.database.write_at(&field, PAGE_SIZE_FIELD)?;
        Ok(Some(PageSizePatch { before, now: field }))
    }

    /// Undoes [`Self::set_page_size`], unless the header has changed since.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn restore_page_size(&self, field: PageSizePatch) -> Result<()> {
        let mut now = [0; 2];
        self.file.database.read_at(&mut now, PAGE_SIZE_FIELD)?;
        if now == field.now {
            self.file.database.write_at(&field.before, PAGE_SIZE_FIELD)?;
        }
        Ok(())
    }
}

/// What [`CommitLock::set_page_size`] changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSizePatch {
    before: [u8; 2],
    now: [u8; 2],
}

impl Drop for CommitLock<'_> {
    fn drop(&mut self) {
        let live = self.file;
        if live.wal.is_some() {
            live.database.unlock_wal();
        } else {
            live.database.unlock_all();
        }
        live.locked.set(false);
        // As after a transaction, wakes the threads of this process that wait for the write lock.
        super::with_sync_call(live.connection.file().map(|file| &file.turn), || ());
    }
}

/// The stage that is reported once a wait for a lock takes long.
pub const WAITING: Stage = Stage { name: "waiting for a lock", done: 0, total: 0 };

/// Repeats `attempt` until it returns a value or an error, or `until` has passed.
pub(super) fn patiently<T>(
    path: &Path,
    until: Instant,
    task: &dyn Progress,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        task.check_cancelled()?;
        if let Some(done) = attempt()? {
            return Ok(done);
        }
        if pause == FIRST_PAUSE
            && let Some(refusal) = refused_side_file(path)
        {
            // No lock can be taken on this file, so waiting is useless.
            return Err(refusal.error(path));
        }
        if pause == LONGEST_PAUSE {
            task.stage(WAITING);
        }
        if Instant::now() >= until {
            let message = "another connection has the database locked";
            return Err(Error::sqlite(ffi::SQLITE_BUSY, message).at(path));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A file handle that belongs to an open connection, which the [`SqliteFile`] around it owns.
///
/// Invariants, by construction in [`SqliteFile::open`]: `methods` is the handle's own table, and the
/// handle is open as long as the connection. The connection is closed only when the [`SqliteFile`] is
/// dropped, after every lock that borrows it. The connection is `!Sync`, so one thread uses the
/// handle at a time. The methods require no more: they have their own mutexes for data that they
/// share with other handles of the file. The same holds in a [`super::PageSnapshot`], which reads and does
/// not lock.
pub(super) struct Handle {
    file: *mut ffi::sqlite3_file,
    methods: *const ffi::sqlite3_io_methods,
}

impl Handle {
    /// The handle that the file control `operation` returns; `None` where the file is not open.
    pub(super) fn of(connection: &Connection, operation: c_int) -> Result<Option<Self>> {
        connection.sql()?;
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        // SAFETY: the connection is open, and these two file controls write one pointer.
        let rc = unsafe {
            ffi::sqlite3_file_control(
                connection.raw(),
                c"main".as_ptr(),
                operation,
                (&raw mut file).cast(),
            )
        };
        if rc != ffi::SQLITE_OK {
            return Err(Error::sqlite(rc, errstr(rc)).at(connection.path()));
        }
        if file.is_null() {
            return Ok(None);
        }
        // SAFETY: SQLite's pager owns the structure, zeroed at least where the file is not open.
        Ok(unsafe { Self::from_open(file) })
    }

    /// The handle of a file that SQLite's VFS has opened; `None` if `xOpen` failed.
    ///
    /// # Safety
    /// `file` points to the memory that `xOpen` was given, and stays valid for as long as the
    /// handle is used.
    pub(super) unsafe fn from_open(file: *mut ffi::sqlite3_file) -> Option<Self> {
        // SAFETY: see above; what xOpen has not set is zeroed.
        let methods = unsafe { (*file).pMethods };
        (!methods.is_null()).then_some(Self { file, methods })
    }

    /// Closes what [`Self::from_open`] was made of.
    ///
    /// # Safety
    /// Nothing uses the handle, or another of the same file structure, from here on.
    pub(super) unsafe fn close(&mut self) {
        if let Some(close) = self.methods().xClose {
            // SAFETY: the file is open, and closed once, see above.
            unsafe { close(self.file) };
        }
    }

    fn methods(&self) -> &ffi::sqlite3_io_methods {
        // SAFETY: the table is a static of the VFS.
        unsafe { &*self.methods }
    }

    fn done(&self, rc: c_int) -> Result<()> {
        if rc == ffi::SQLITE_OK { Ok(()) } else { Err(Error::sqlite(rc, errstr(rc))) }
    }

    /// `false`: another connection has the lock.
    fn got(&self, rc: c_int) -> Result<bool> {
        match rc & 0xff {
            ffi::SQLITE_BUSY => Ok(false),
            _ => self.done(rc).map(|()| true),
        }
    }

    pub(super) fn lock(&self, level: c_int) -> Result<bool> {
        let Some(lock) = self.methods().xLock else { return Err(unsupported()) };
        // SAFETY: the handle is open, see the type. xLock requires SHARED before RESERVED, which is
        // the order of the calls in `try_file`; `empty_wal` takes SHARED alone. The pager does not
        // lock meanwhile, since the connection runs no SQL. The pager does not know of this lock:
        // it assumes that it has none, which is the state that `unlock_all` restores.
        let rc = unsafe { lock(self.file, level) };
        self.got(rc)
    }

    pub(super) fn unlock_all(&self) {
        if let Some(unlock) = self.methods().xUnlock {
            // SAFETY: the handle is open, see the type; NONE is one of the two levels that xUnlock
            // takes, and no change where nothing is held.
            unsafe { unlock(self.file, ffi::SQLITE_LOCK_NONE) };
        }
    }

    /// The WAL's write and checkpoint locks, or none: `false`.
    pub(super) fn lock_wal(&self) -> Result<bool> {
        if !self.lock_shm(WRITE)? {
            return Ok(false);
        }
        // A checkpointer that resets the WAL holds the checkpoint lock while it waits for the write
        // lock. Holding the write lock while waiting for the checkpoint lock would be a deadlock
        // until a timeout.
        let both = self.lock_shm(CHECKPOINT);
        if !matches!(both, Ok(true)) {
            self.unlock_shm(WRITE);
        }
        both
    }

    pub(super) fn unlock_wal(&self) {
        self.unlock_shm(CHECKPOINT);
        self.unlock_shm(WRITE);
    }

    /// Whether the mapped WAL index is read-only.
    fn is_shm_read_only(&self) -> bool {
        let Some(map) = self.methods().xShmMap else { return false };
        let mut region: *mut c_void = ptr::null_mut();
        // SAFETY: as in `shm_header`.
        let rc = unsafe { map(self.file, 0, SHM_REGION, 0, &raw mut region) };
        rc & 0xff == ffi::SQLITE_READONLY
    }

    /// Maps the WAL's index for a handle whose pager has no WAL open; `false`: another connection
    /// is doing that now. Call [`Self::unmap_shm`] in either case, and after an error.
    pub(super) fn map_shm(&self) -> Result<bool> {
        let Some(map) = self.methods().xShmMap else { return Err(unsupported()) };
        let mut region: *mut c_void = ptr::null_mut();
        // SAFETY: the handle is open, see the type; the method writes one pointer. The index is
        // extended as SQLite does when it opens a WAL: SQLite clears an index that no connection
        // has mapped, and the next reader rebuilds an index that is all zeros.
        let rc = unsafe { map(self.file, 0, SHM_REGION, 1, &raw mut region) };
        self.got(rc)
    }

    /// Undoes [`Self::map_shm`]. No lock of the index is held.
    pub(super) fn unmap_shm(&self) {
        if let Some(unmap) = self.methods().xShmUnmap {
            // SAFETY: the handle is open, see the type. Its pager has no WAL open, so that nothing
            // of this connection uses the index; it stays for others (0: it is not deleted).
            unsafe { unmap(self.file, 0) };
        }
    }

    fn lock_shm(&self, slot: c_int) -> Result<bool> {
        let Some(lock) = self.methods().xShmLock else { return Err(unsupported()) };
        // SAFETY: the handle is open, see the type, and has the shared memory mapped, since its WAL
        // is open and was read, or by `map_shm`. The slot is not held by this handle: its pager has
        // no transaction and carries out no checkpoint, and no `CommitLock` exists while one is made
        // (`SqliteFile::locked`).
        let rc =
            unsafe { lock(self.file, slot, 1, ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE) };
        self.got(rc)
    }

    fn unlock_shm(&self, slot: c_int) {
        if let Some(lock) = self.methods().xShmLock {
            // SAFETY: as in `lock_shm`; the slot is held by this handle.
            unsafe { lock(self.file, slot, 1, ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE) };
        }
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let (Some(write), Ok(length), Ok(offset)) = (
            self.methods().xWrite,
            c_int::try_from(bytes.len()),
            ffi::sqlite3_int64::try_from(offset),
        ) else {
            return Err(unsupported());
        };
        // SAFETY: the handle is open, see the type, and for writing, or this fails; the method
        // reads `length` bytes.
        let rc = unsafe { write(self.file, bytes.as_ptr().cast(), length, offset) };
        self.done(rc)
    }

    /// What the WAL's index says.
    pub(super) fn wal_generation(&self) -> Result<Generation> {
        Ok(Generation { header: self.shm_header()?, size: None })
    }

    /// The first bytes of the WAL's index.
    fn shm_header(&self) -> Result<[u8; GENERATION]> {
        let Some(map) = self.methods().xShmMap else { return Err(unsupported()) };
        let mut region: *mut c_void = ptr::null_mut();
        // SAFETY: the handle is open, see the type. The region is mapped already, so that this
        // answers with its address and neither extends nor writes anything.
        let rc = unsafe { map(self.file, 0, SHM_REGION, 0, &raw mut region) };
        self.done(rc)?;
        if region.is_null() {
            return Err(Error::sqlite(ffi::SQLITE_IOERR_SHMMAP, "the WAL's index is not mapped"));
        }
        let mut header = [0; GENERATION];
        let region = region.cast::<u8>();
        for (at, byte) in header.iter_mut().enumerate() {
            // SAFETY: the region has 32 KiB, is mapped until the connection is closed, and is
            // shared with other processes, hence the volatile reads; the caller of `generation`
            // ensures that no connection writes to the header meanwhile.
            *byte = unsafe { region.add(at).read_volatile() };
        }
        Ok(header)
    }
}

fn unsupported() -> Error {
    Error::sqlite(ffi::SQLITE_NOLFS, "SQLite's file system interface has no such lock")
}

impl PageSource for Handle {
    fn size(&self) -> Result<u64> {
        let Some(size) = self.methods().xFileSize else { return Err(unsupported()) };
        let mut bytes: ffi::sqlite3_int64 = 0;
        // SAFETY: the handle is open, see the type; the method writes one integer.
        let rc = unsafe { size(self.file, &raw mut bytes) };
        self.done(rc)?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let Some(read) = self.methods().xRead else { return Err(unsupported()) };
        let (Ok(length), Ok(offset)) =
            (c_int::try_from(buffer.len()), ffi::sqlite3_int64::try_from(offset))
        else {
            return Err(Error::sqlite(ffi::SQLITE_IOERR_READ, "no file is that long"));
        };
        // SAFETY: the handle is open, see the type; the method fills `length` bytes of the
        // buffer.
        let rc = unsafe { read(self.file, buffer.as_mut_ptr().cast(), length, offset) };
        if rc != ffi::SQLITE_IOERR_SHORT_READ {
            self.done(rc)?;
            return Ok(buffer.len());
        }
        let left = self.size()?.saturating_sub(u64::try_from(offset).unwrap_or(0));
        Ok(buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX)))
    }
}
