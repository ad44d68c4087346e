//! The WAL index (`-shm`) of a file, and making SQLite rebuild it from the WAL.
//!
//! In the index every connection of every process finds the newest version of a page in the WAL. It
//! is a cache: after a crash SQLite rebuilds it from the WAL. But SQLite does so only if the
//! index's header is damaged. If the header is valid and the tables are not (a program wrote into
//! the file, or truncated it and let it grow again), reads of an intact database fail with
//! `SQLITE_CORRUPT` or `SQLITE_NOTADB`, in every process, until the last connection of all
//! processes is closed.
//!
//! [`rebuild`] invalidates such an index by clearing its header: the next reader, of any process,
//! then rebuilds it, as after a crash. `rebuild` holds the locks that SQLite's own recovery holds,
//! so that no connection writes or checkpoints meanwhile; readers keep their snapshots. First it
//! verifies that the WAL has every commit that the index has, because the rebuild would lose a
//! commit that the WAL lacks.
//!
//! Everything goes through SQLite's own file handles. Layouts:
//! <https://sqlite.org/walformat.html>. Runs on the thread that owns the connection.

use std::ffi::{c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use rusqlite::ffi;

use super::connection::LONGEST_TIMEOUT;
use super::locks::{PendingLock, is_locked_by_others};
use super::{Connection, Error, FileId, Result, errstr};

/// Bytes of the index that are mapped at once (`WALINDEX_PGSZ`).
const REGION: c_int = 32_768;
/// Words of one copy of the header; there are two, one behind the other.
const WORDS: usize = 12;
/// The locks of a writer, of a checkpointer and of recovery: first, and how many.
const WRITER_TO_RECOVERY: (c_int, c_int) = (0, 3);
const WRITER: (c_int, c_int) = (0, 1);
/// Bytes of the index's file that readers lock: the first, and how many
/// (<https://sqlite.org/walformat.html>, 2.3.2).
const READERS: (i64, i64) = (123, 5);
/// Word of the index that counts the frames which a checkpoint has copied (`nBackfill`).
const BACKFILLED: usize = 2 * WORDS;
/// The version of an index that is closed. SQLite's is 3007000, and all of its versions are of that
/// form.
const CLOSED: u32 = 0xf051_0000;
const WAL_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The shortest and the longest pause between two tries for the locks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What the index's header says of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IndexHeader {
    frames: u32,
    /// Pages of the database.
    pages: u32,
    page_size: usize,
    checksum: [u32; 2],
    salt: [u8; 8],
}

/// A file of SQLite's, while the connection that it belongs to is open.
struct Handle<'a> {
    raw: *mut ffi::sqlite3_file,
    methods: &'a ffi::sqlite3_io_methods,
}

/// Makes SQLite rebuild the WAL index of the main database of `connection`, if it has a WAL. Waits
/// up to `patience` for writers and checkpointers of all processes.
///
/// # Errors
/// * `SQLITE_BUSY`;
/// * `ERR_FUSION_WAL_LOST`: the WAL lacks a commit that the index has. The index is left as it is;
/// * SQLite's, where the file cannot be read afterwards.
pub fn rebuild(connection: &Connection, patience: Duration) -> Result<()> {
    let at = |error: Error| error.at(connection.path());
    // Opens the WAL and maps its index. The result is ignored: the index may be wrong.
    drop(read(connection));
    let expected = match with_wal(connection)? {
        Some((database, wal)) => void_index(&database, &wal, patience).map_err(at)?,
        None => None,
    };
    read(connection)?;
    let after = with_wal(connection)?;
    if let Some((database, _)) = &after {
        announce(database, patience).map_err(at)?;
    }
    if let Some(before) = expected
        && let Some((database, _)) = &after
        && let Some(after) = look(database).map_err(at)?
        // Other salts: the WAL was checkpointed and restarted meanwhile.
        && after.salt == before.salt
        && after.frames < before.frames
    {
        return Err(at(lost(before.frames, after.frames)));
    }
    Ok(())
}

/// Saves the commits of a WAL that is no longer at its path: checkpoints it through `connection`,
/// which has it open, and closes its index ([`close_index`]), whose file is `shm`. Returns whether
/// every frame of the WAL is in the database.
///
/// `is_untouched` returns whether the database file is as the WAL's own processes left it. It is
/// called, and the WAL is checkpointed, while no connection writes through that index and no
/// connection can be opened. A file that is longer than that WAL says was written to by other
/// processes. `done` is called before a connection can be opened.
///
/// If several processes have the WAL open, one of them checkpoints; the others find every frame
/// copied. A process that ends at any step releases its locks, and the next process repeats the
/// steps: the index stays in use until every frame is in the database.
///
/// # Errors
/// SQLite's; `SQLITE_BUSY`; `ERR_FUSION_WEDGED` where no process can be kept from opening the file:
/// locks are POSIX locks, and another process has the WAL open, too.
pub fn rescue(
    connection: &Connection,
    shm: Option<FileId>,
    patience: Duration,
    is_untouched: impl FnOnce() -> bool,
    done: impl FnOnce(),
) -> Result<bool> {
    let Some((database, wal)) = with_wal(connection)? else {
        return Ok(false);
    };
    if header(&database).map_err(|error| error.at(connection.path()))?.is_none() {
        return Ok(false);
    }
    let file = connection.file().map(|file| file.id);
    let _shut_out = ShutOut::begin(&database, file, patience)?;
    locked(&database, WRITER, patience, || {
        let Some(expected) = look(&database)? else {
            return Ok(false);
        };
        let is_saved = is_copied(&database, &expected)?
            || (is_untouched()
                && database.size()? <= u64::from(expected.pages) * expected.page_size as u64
                && is_whole(&wal, &expected)?
                && checkpoint(connection)?
                && is_copied(&database, &expected)?);
        if is_saved {
            close_index(&database)?;
            await_readers(shm, patience)?;
            done();
        }
        Ok(is_saved)
    })
    .map_err(|error| error.at(connection.path()))
}

/// Waits, up to `patience`, while the file of `connection` is in WAL mode, has no index at its
/// path, and is open in another process. `connection` has read nothing. In this state the sidecar
/// files were deleted while that process had them open. It saves its commits ([`rescue`]), which is
/// impossible once another WAL exists. A process that does not do so within `patience` is idle, or
/// does not use this package.
///
/// # Errors
/// SQLite's, of reading the header.
pub fn await_rescue(connection: &Connection, shm: &Path, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience.min(LONGEST_TIMEOUT);
    let Some(file) = connection.file().map(|file| (file.id.device, file.id.inode)) else {
        return Ok(());
    };
    while !shm.exists() && is_locked_by_others(file, 0, 0) && says_wal(connection)? {
        if Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(PAUSES.0 * 5);
    }
    Ok(())
}

/// Whether the header says that the file is in WAL mode
/// (<https://sqlite.org/fileformat2.html>, 1.3.3).
fn says_wal(connection: &Connection) -> Result<bool> {
    let mut header = [0; 20];
    match handle(connection, ffi::SQLITE_FCNTL_FILE_POINTER)? {
        Some(database) => Ok(database.read(&mut header, 0)? && header[18..] == [2, 2]),
        None => Ok(false),
    }
}

/// Closes the index of `connection` ([`close_index`]) if the index is no longer at its path while
/// the WAL still is. The next connection that opens the file makes another index for the same WAL,
/// and commits through two indexes would overwrite each other. `done` is called before a connection
/// can be opened.
///
/// # Errors
/// As [`rescue`].
pub fn retire(
    connection: &Connection,
    shm: Option<FileId>,
    patience: Duration,
    done: impl FnOnce(),
) -> Result<()> {
    let Some((database, _)) = with_wal(connection)? else {
        done();
        return Ok(());
    };
    let file = connection.file().map(|file| file.id);
    let _shut_out = ShutOut::begin(&database, file, patience)?;
    // Wait for a checkpoint of another process: it could overwrite newer pages in the database,
    // from a checkpoint through the next index, with older ones.
    locked(&database, WRITER_TO_RECOVERY, patience, || {
        if look(&database)?.is_some() {
            close_index(&database)?;
        }
        await_readers(shm, patience)?;
        done();
        Ok(())
    })
    .map_err(|error| error.at(connection.path()))
}

/// Whether every frame is in the database.
fn is_copied(database: &Handle<'_>, expected: &IndexHeader) -> Result<bool> {
    let copied = index(database)?
        .and_then(|words| words.get(BACKFILLED))
        .map_or(0, |word| word.load(Ordering::Acquire));
    Ok(copied >= expected.frames)
}

/// Whether `wal` has every frame of the index's header `expected`. A failed read is an error: it
/// says nothing about the frames.
fn is_whole(wal: &Handle<'_>, expected: &IndexHeader) -> Result<bool> {
    match check_wal(wal, expected) {
        Ok(()) => Ok(true),
        Err(error) if error.code == "ERR_FUSION_WAL_LOST" => Ok(false),
        Err(error) => Err(error),
    }
}

fn checkpoint(connection: &Connection) -> Result<bool> {
    // SAFETY: the connection is open and this thread's; null pointers request no counts.
    let rc = unsafe {
        ffi::sqlite3_wal_checkpoint_v2(
            connection.raw(),
            c"main".as_ptr(),
            ffi::SQLITE_CHECKPOINT_PASSIVE,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    match rc {
        ffi::SQLITE_OK => Ok(true),
        _ => Err(connection.last_error()),
    }
}

/// While this lives no process can open the database: this has SQLite's PENDING lock on the file.
/// Connections that have the file open in WAL mode do not need that lock.
enum ShutOut<'a> {
    Lock(#[cfg_attr(unix, expect(dead_code, reason = "held until it is dropped"))] PendingLock),
    /// Through SQLite, which has the SHARED lock, like each connection that has read in WAL mode.
    Sqlite {
        database: &'a Handle<'a>,
        unlock: unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int) -> c_int,
    },
}

impl<'a> ShutOut<'a> {
    /// Waits up to `patience` for connections that are being opened.
    fn begin(database: &'a Handle<'a>, file: Option<FileId>, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience.min(LONGEST_TIMEOUT);
        while let Some(file) = file {
            match PendingLock::take((file.device, file.inode)) {
                Ok(Some(lock)) => return Ok(Self::Lock(lock)),
                Ok(None) => break,
                Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSES.0),
                Err(_) => {
                    return Err(Error::sqlite(ffi::SQLITE_BUSY, errstr(ffi::SQLITE_BUSY)));
                }
            }
        }
        Self::through_sqlite(database)
    }

    fn through_sqlite(database: &'a Handle<'a>) -> Result<Self> {
        let failed = |rc: c_int| Err(Error::sqlite(rc, errstr(rc)));
        let (Some(lock), Some(unlock)) = (database.methods.xLock, database.methods.xUnlock) else {
            return failed(ffi::SQLITE_IOERR_LOCK);
        };
        // SAFETY: the file is open. A lock that it already has is left as it is.
        let rc = unsafe { lock(database.raw, ffi::SQLITE_LOCK_RESERVED) };
        if rc == ffi::SQLITE_BUSY {
            // SQLite refuses it in WAL mode while another process has the same index open.
            return Err(Error::fusion(
                "ERR_FUSION_WEDGED",
                "the -wal and -shm were deleted while the database was open. Another process has \
                 the deleted files open, too, so that this process cannot save the commits in \
                 them: end the other process, or close the database there",
            ));
        }
        if rc != ffi::SQLITE_OK {
            return failed(rc);
        }
        let shut_out = Self::Sqlite { database, unlock };
        // SAFETY: as above. If another process has the file open, the EXCLUSIVE lock is refused and
        // the PENDING lock is taken.
        match unsafe { lock(database.raw, ffi::SQLITE_LOCK_EXCLUSIVE) } {
            ffi::SQLITE_OK | ffi::SQLITE_BUSY => Ok(shut_out),
            rc => failed(rc),
        }
    }
}

impl Drop for ShutOut<'_> {
    fn drop(&mut self) {
        if let Self::Sqlite { database, unlock } = self {
            // SAFETY: the file is open; back to the lock that it had before.
            unsafe { unlock(database.raw, ffi::SQLITE_LOCK_SHARED) };
        }
    }
}

/// Runs `body` while no other connection can open the main database of `connection`, which has read
/// nothing. `None`: another connection, of this or another process, has it open.
///
/// # Errors
/// SQLite's.
pub fn while_alone<R>(connection: &Connection, body: impl FnOnce() -> R) -> Result<Option<R>> {
    let Some(database) = handle(connection, ffi::SQLITE_FCNTL_FILE_POINTER)? else {
        return Ok(None);
    };
    let (Some(lock), Some(unlock)) = (database.methods.xLock, database.methods.xUnlock) else {
        return Ok(None);
    };
    let levels = [ffi::SQLITE_LOCK_SHARED, ffi::SQLITE_LOCK_RESERVED, ffi::SQLITE_LOCK_EXCLUSIVE];
    // SAFETY: the file is open, and has no lock: nothing was read.
    let is_alone =
        unsafe { levels.iter().all(|level| lock(database.raw, *level) == ffi::SQLITE_OK) };
    let done = is_alone.then(body);
    // SAFETY: as above.
    unsafe { unlock(database.raw, ffi::SQLITE_LOCK_NONE) };
    Ok(done)
}

/// A read that needs page 1.
fn read(connection: &Connection) -> Result<()> {
    connection
        .sql()?
        .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        .map_err(|error| Error::from(error).at(connection.path()))
}

/// One of the file handles of the main database; `None` where it is not open.
fn handle(connection: &Connection, which: c_int) -> Result<Option<Handle<'_>>> {
    connection.sql()?;
    let mut raw: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: the connection is open, and these file controls write one pointer.
    let rc = unsafe {
        ffi::sqlite3_file_control(
            connection.raw(),
            c"main".as_ptr(),
            which,
            (&raw mut raw).cast::<c_void>(),
        )
    };
    if rc != ffi::SQLITE_OK {
        return Err(Error::sqlite(rc, errstr(rc)).at(connection.path()));
    }
    // SAFETY: null, or a file of the open connection, whose methods are null while it is closed
    // and a static of the VFS otherwise.
    let methods = unsafe { raw.as_ref().and_then(|file| file.pMethods.as_ref()) };
    Ok(methods.map(|methods| Handle { raw, methods }))
}

/// The database of `connection` and its WAL, if it has a WAL open. If it has not, the index must
/// not be used through this connection: SQLite would map it and never unmap it.
fn with_wal(connection: &Connection) -> Result<Option<(Handle<'_>, Handle<'_>)>> {
    let database = handle(connection, ffi::SQLITE_FCNTL_FILE_POINTER)?;
    Ok(database.zip(handle(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER)?))
}

/// Clears the header of the index. Returns the old header, or `None` if it was not valid.
fn void_index(
    database: &Handle<'_>,
    wal: &Handle<'_>,
    patience: Duration,
) -> Result<Option<IndexHeader>> {
    let Some(header) = header(database)? else {
        return Ok(None);
    };
    locked(database, WRITER_TO_RECOVERY, patience, || {
        let expected = look(database)?;
        if let Some(expected) = &expected {
            check_wal(wal, expected)?;
        }
        for word in header.iter().rev() {
            word.store(0, Ordering::Relaxed);
        }
        barrier(database);
        Ok(expected)
    })
}

/// Closes an index whose frames are all in the database: gives its header a version that no SQLite
/// knows. SQLite then refuses each later transaction through it, in every process
/// (`SQLITE_CANTOPEN`, `walIndexReadHdr`), instead of committing to a WAL that only the processes
/// see that have it open. A transaction that has begun reads on. The caller has the write lock.
fn close_index(database: &Handle<'_>) -> Result<()> {
    change_header(database, |words| {
        if let Some(version) = words.first_mut() {
            *version = CLOSED;
        }
    })
}

/// Waits until no other process reads through the index, whose file is `shm`. The index is closed,
/// so that no reader begins. Connections with the next index do not see these readers' marks, and
/// would checkpoint pages that their snapshots still need.
///
/// # Errors
/// `SQLITE_BUSY` after `patience`; the next call repeats all steps.
fn await_readers(shm: Option<FileId>, patience: Duration) -> Result<()> {
    let Some(shm) = shm.map(|shm| (shm.device, shm.inode)) else { return Ok(()) };
    let deadline = Instant::now() + patience.min(LONGEST_TIMEOUT);
    while is_locked_by_others(shm, READERS.0, READERS.1) {
        if Instant::now() >= deadline {
            return Err(Error::sqlite(
                ffi::SQLITE_BUSY,
                "the -shm was deleted while the database was open, and another process still reads \
                 with it. The database is used again as soon as that transaction ends",
            ));
        }
        std::thread::sleep(PAUSES.0 * 5);
    }
    Ok(())
}

/// Increases the header's counter of changes (`iChange`), as a commit would. A connection that
/// finds the header unchanged keeps its page cache, which may have wrong pages, read through the
/// damaged index.
fn announce(database: &Handle<'_>, patience: Duration) -> Result<()> {
    locked(database, WRITER_TO_RECOVERY, patience, || {
        if look(database)?.is_none() {
            return Ok(());
        }
        change_header(database, |words| {
            if let Some(changes) = words.get_mut(2) {
                *changes = changes.wrapping_add(1 << 16);
            }
        })
    })
}

/// Writes the header's words, changed by `change`, with their checksum.
fn change_header(database: &Handle<'_>, change: impl FnOnce(&mut [u32])) -> Result<()> {
    let Some(header) = header(database)? else {
        return Ok(());
    };
    let (one, other) = header.split_at(WORDS);
    let mut words: Vec<u32> = one.iter().map(|word| word.load(Ordering::Relaxed)).collect();
    change(&mut words);
    let summed: Vec<u8> = words.iter().take(10).flat_map(|word| word.to_ne_bytes()).collect();
    words.splice(10.., checksum([0; 2], &summed, u32::from_ne_bytes));
    // The second copy first, as SQLite itself writes them.
    for copy in [other, one] {
        for (word, value) in copy.iter().zip(&words) {
            word.store(*value, Ordering::Relaxed);
        }
        barrier(database);
    }
    Ok(())
}

/// Orders what was written before against what is written next, in all processes.
fn barrier(database: &Handle<'_>) {
    fence(Ordering::SeqCst);
    if let Some(barrier) = database.methods.xShmBarrier {
        // SAFETY: the file is open, and its index is mapped.
        unsafe { barrier(database.raw) };
    }
}

/// Runs `body` with these locks of the index.
fn locked<R>(
    database: &Handle<'_>,
    (first, count): (c_int, c_int),
    patience: Duration,
    body: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let Some(lock) = database.methods.xShmLock else {
        return Err(Error::sqlite(ffi::SQLITE_IOERR_SHMLOCK, errstr(ffi::SQLITE_IOERR_SHMLOCK)));
    };
    let request = |flags: c_int| {
        // SAFETY: the file is open, and its index is mapped.
        unsafe { lock(database.raw, first, count, flags | ffi::SQLITE_SHM_EXCLUSIVE) }
    };
    let deadline = Instant::now() + patience.min(LONGEST_TIMEOUT);
    let mut pause = PAUSES.0;
    loop {
        match request(ffi::SQLITE_SHM_LOCK) {
            ffi::SQLITE_OK => break,
            ffi::SQLITE_BUSY if Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSES.1);
            }
            rc => return Err(Error::sqlite(rc, errstr(rc))),
        }
    }
    let result = body();
    request(ffi::SQLITE_SHM_UNLOCK);
    result
}

/// Both copies of the header; `None` without an index.
fn header<'a>(database: &Handle<'a>) -> Result<Option<&'a [AtomicU32; 2 * WORDS]>> {
    Ok(index(database)?.and_then(|words| words.first_chunk()))
}

/// The header, and the words up to `nBackfill`; `None` without an index.
fn index<'a>(database: &Handle<'a>) -> Result<Option<&'a [AtomicU32; BACKFILLED + 1]>> {
    let Some(map) = database.methods.xShmMap else { return Ok(None) };
    let mut memory: *mut c_void = ptr::null_mut();
    // SAFETY: the file is open; the method writes one pointer. It does not lengthen the file.
    let rc = unsafe { map(database.raw, 0, REGION, 0, &mut memory) };
    if rc & 0xff == ffi::SQLITE_IOERR {
        return Err(Error::sqlite(rc, errstr(rc)));
    }
    if rc != ffi::SQLITE_OK || memory.is_null() {
        return Ok(None);
    }
    // SAFETY: the region is mapped, at a page's boundary, for as long as a connection of this
    // process has the file open. Other processes write to it, which atomics allow for.
    Ok(Some(unsafe { &*memory.cast::<[AtomicU32; BACKFILLED + 1]>() }))
}

/// The header of the index, if it is valid.
fn look(database: &Handle<'_>) -> Result<Option<IndexHeader>> {
    let header = header(database)?;
    Ok(header
        .and_then(|header| believed(&header.each_ref().map(|word| word.load(Ordering::Acquire)))))
}

/// The index's header, if SQLite would accept it: both copies are the same, and their checksum is
/// right.
fn believed(words: &[u32; 2 * WORDS]) -> Option<IndexHeader> {
    let (one, other) = words.split_at(WORDS);
    let bytes: Vec<u8> = one.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let summed = bytes.get(..40)?;
    let is_initialised = bytes.get(12) == Some(&1);
    let sum = checksum([0; 2], summed, u32::from_ne_bytes);
    if one != other || !is_initialised || one.get(10..12) != Some(&sum) {
        return None;
    }
    let size = u16::from_ne_bytes([*bytes.get(14)?, *bytes.get(15)?]);
    let page_size = if size == 1 { 65_536 } else { usize::from(size) };
    Some(IndexHeader {
        frames: *one.get(4)?,
        pages: *one.get(5)?,
        page_size,
        checksum: [*one.get(6)?, *one.get(7)?],
        salt: bytes.get(32..40)?.try_into().ok()?,
    })
}

/// Checks that `wal` has all frames of the index's header `expected`, as recovery reads them.
///
/// # Errors
/// `ERR_FUSION_WAL_LOST`; SQLite's, where a read fails: a failed read is not the end of the WAL.
fn check_wal(wal: &Handle<'_>, expected: &IndexHeader) -> Result<()> {
    let missing = |found: u32| Err(lost(expected.frames, found));
    if expected.frames == 0 {
        return Ok(());
    }
    let mut header = [0; WAL_HEADER];
    if !wal.read(&mut header, 0)? {
        return missing(0);
    }
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let decode = match word(&header, 0) {
        Some(0x377f_0682) => u32::from_le_bytes,
        Some(0x377f_0683) => u32::from_be_bytes,
        _ => return missing(0),
    };
    let (summed, sum) = header.split_at(24);
    let mut running = checksum([0; 2], summed, decode);
    if [word(sum, 0), word(sum, 4)] != running.map(Some)
        || header.get(16..24) != Some(&expected.salt)
    {
        return missing(0);
    }
    let mut frame = vec![0; FRAME_HEADER + expected.page_size];
    for index in 0..expected.frames {
        let offset = WAL_HEADER as i64 + i64::from(index) * frame.len() as i64;
        if !wal.read(&mut frame, offset)? {
            return missing(index);
        }
        let (head, page) = frame.split_at(FRAME_HEADER);
        running = checksum(running, head.get(..8).unwrap_or_default(), decode);
        running = checksum(running, page, decode);
        if [word(head, 16), word(head, 20)] != running.map(Some)
            || head.get(8..16) != Some(&expected.salt)
        {
            return missing(index);
        }
    }
    if running == expected.checksum { Ok(()) } else { missing(expected.frames) }
}

impl Handle<'_> {
    /// The file's length.
    fn size(&self) -> Result<u64> {
        let Some(size) = self.methods.xFileSize else {
            return Err(Error::sqlite(ffi::SQLITE_IOERR_FSTAT, errstr(ffi::SQLITE_IOERR_FSTAT)));
        };
        let mut bytes = 0;
        // SAFETY: the file is open; the method writes one number.
        match unsafe { size(self.raw, &mut bytes) } {
            ffi::SQLITE_OK => Ok(u64::try_from(bytes).unwrap_or(0)),
            rc => Err(Error::sqlite(rc, errstr(rc))),
        }
    }

    /// Fills `buffer` from `offset` on. `false`: the file has fewer bytes.
    ///
    /// # Errors
    /// SQLite's, where the read fails.
    fn read(&self, buffer: &mut [u8], offset: i64) -> Result<bool> {
        let (Some(read), Ok(length)) = (self.methods.xRead, c_int::try_from(buffer.len())) else {
            return Err(Error::sqlite(ffi::SQLITE_IOERR_READ, errstr(ffi::SQLITE_IOERR_READ)));
        };
        // SAFETY: the file is open, and the buffer writable for its length.
        match unsafe { read(self.raw, buffer.as_mut_ptr().cast(), length, offset) } {
            ffi::SQLITE_OK => Ok(true),
            ffi::SQLITE_IOERR_SHORT_READ => Ok(false),
            rc => Err(Error::sqlite(rc, errstr(rc))),
        }
    }
}

/// The running checksum of the WAL and its index over `bytes`, a multiple of 8.
fn checksum(from: [u32; 2], bytes: &[u8], decode: fn([u8; 4]) -> u32) -> [u32; 2] {
    let [mut one, mut two] = from;
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    for [first, second] in pairs {
        one = one.wrapping_add(decode(*first)).wrapping_add(two);
        two = two.wrapping_add(decode(*second)).wrapping_add(one);
    }
    [one, two]
}

fn lost(expected: u32, found: u32) -> Error {
    Error::fusion(
        "ERR_FUSION_WAL_LOST",
        format!(
            "the -wal was overwritten, cut short or deleted while the database was open: of \
             {expected} frames that it should hold, {found} are there. Commits that were not \
             checkpointed yet are lost if every process closes the file now. Nothing was changed"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_format_and_depends_on_the_order() {
        let bytes: Vec<u8> = (0_u8..16).collect();
        assert_eq!(checksum([0; 2], &[1, 0, 0, 0, 2, 0, 0, 0], u32::from_le_bytes), [1, 3]);
        assert_eq!(checksum([0; 2], &[0, 0, 0, 1, 0, 0, 0, 2], u32::from_be_bytes), [1, 3]);
        let (first, second) = bytes.split_at(8);
        let running = checksum([0; 2], first, u32::from_le_bytes);
        assert_eq!(
            checksum(running, second, u32::from_le_bytes),
            checksum([0; 2], &bytes, u32::from_le_bytes)
        );
        assert_ne!(checksum([0; 2], first, u32::from_le_bytes), [0; 2]);
    }
}
