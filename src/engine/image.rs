//! Pages that are no file, for SQLite to read as a database.
//!
//! An [`Image`] gives SQLite pages of another origin: those of a damaged file with the WAL's
//! frames over them, under a header that was decided on. A virtual file system
//! (<https://sqlite.org/vfs.html>) named `fusion-image` reads them through [`PageImage`]. What
//! SQLite writes to an image stays in memory, and its origin stays as it is.
//!
//! A connection sees an image once it is attached ([`Image::attach`]). A file that SQLite still
//! has open when its image ends answers every read with `SQLITE_IOERR`.
//!
//! Memory: the pages that SQLite writes. Thread: the one that made the image, which is also that
//! of the connection.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rusqlite::ffi;

use super::{Connection, Error, Result};

/// The name of the virtual file system.
const NAME: &CStr = c"fusion-image";

/// The longest name of an image: a number.
const LONGEST_NAME: c_int = 32;

/// Where an image's pages come from.
pub trait PageImage {
    /// Bytes a page, a size that SQLite knows.
    fn page_size(&self) -> u32;

    /// How many pages there are.
    fn pages(&self) -> u32;

    /// Fills `to`, which has the size of a page, with page number `page`, from 1 on.
    ///
    /// # Errors
    /// Why the page cannot be read. SQLite gets `SQLITE_IOERR_READ`.
    fn read_page(&self, page: u32, to: &mut [u8]) -> Result<()>;
}

/// Pages that SQLite reads as a database.
pub struct Image<'a> {
    number: u64,
    shared: Arc<Shared>,
    _pages: std::marker::PhantomData<&'a dyn PageImage>,
}

impl std::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("number", &self.number).finish_non_exhaustive()
    }
}

/// What the open files of an image have in common.
struct Shared {
    page_size: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    /// None once the image has ended.
    origin: Option<*const dyn PageImage>,
    /// Pages that SQLite wrote.
    written: HashMap<u32, Box<[u8]>>,
    /// Pages of the database.
    pages: u32,
}

// SAFETY: the pointer is followed only under the mutex, and only by the thread that made the
// image: it is the one that uses the connection (see the module).
unsafe impl Send for Inner {}

/// The images that there are, by their names.
static IMAGES: Mutex<Option<HashMap<u64, Arc<Shared>>>> = Mutex::new(None);

fn images<R>(body: impl FnOnce(&mut HashMap<u64, Arc<Shared>>) -> R) -> R {
    let mut images = IMAGES.lock();
    body(images.get_or_insert_with(HashMap::new))
}

impl<'a> Image<'a> {
    /// An image of `pages`.
    ///
    /// # Errors
    /// SQLite's, if it takes no virtual file system.
    pub fn new(pages: &'a dyn PageImage) -> Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        register()?;
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let origin: *const (dyn PageImage + 'a) = pages;
        // SAFETY: only the lifetime changes. `drop` takes the pointer away before `'a` ends.
        let origin: *const (dyn PageImage + 'static) = unsafe { std::mem::transmute(origin) };
        let shared = Arc::new(Shared {
            page_size: pages.page_size() as usize,
            inner: Mutex::new(Inner {
                origin: Some(origin),
                written: HashMap::new(),
                pages: pages.pages(),
            }),
        });
        images(|images| images.insert(number, Arc::clone(&shared)));
        Ok(Self { number, shared, _pages: std::marker::PhantomData })
    }

    /// Puts `bytes` in the place of page number `page`, as if SQLite had written them.
    pub fn write(&self, page: u32, bytes: &[u8]) {
        self.shared.write(page, bytes);
    }

    /// Attaches the image to `connection` as `schema`. The connection was opened with
    /// `SQLITE_OPEN_URI`, and its text has the image's encoding.
    ///
    /// # Errors
    /// SQLite's: it reads the header.
    pub fn attach(&self, connection: &Connection, schema: &str) -> Result<()> {
        let name = format!("file:{}?vfs={}", self.number, NAME.to_string_lossy());
        let attach = format!("ATTACH ?1 AS \"{schema}\"");
        connection.sql()?.execute(&attach, [name]).map_err(Error::from)?;
        Ok(())
    }
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        images(|images| images.remove(&self.number));
        self.shared.lock().origin = None;
    }
}

impl Shared {
    fn lock(&self) -> parking_lot::MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    fn write(&self, page: u32, bytes: &[u8]) {
        let mut inner = self.lock();
        let mut of = vec![0; self.page_size].into_boxed_slice();
        let count = bytes.len().min(of.len());
        if let (Some(to), Some(from)) = (of.get_mut(..count), bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        inner.written.insert(page, of);
        inner.pages = inner.pages.max(page);
    }

    /// Fills `to` with the bytes at `offset`; the rest of it with zeros, if there are fewer.
    fn read(&self, to: &mut [u8], offset: u64) -> c_int {
        let inner = self.lock();
        let size = self.page_size as u64;
        let mut done = 0;
        let mut whole = vec![0; self.page_size];
        while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let (page, within) = (at / size + 1, (at % size) as usize);
            let Some(page) = u32::try_from(page).ok().filter(|page| *page <= inner.pages) else {
                rest.fill(0);
                return ffi::SQLITE_IOERR_SHORT_READ;
            };
            let bytes = match inner.written.get(&page) {
                Some(bytes) => bytes,
                None => {
                    let Some(origin) = inner.origin else { return ffi::SQLITE_IOERR };
                    // SAFETY: the image has not ended, so that its origin is borrowed.
                    if unsafe { &*origin }.read_page(page, &mut whole).is_err() {
                        return ffi::SQLITE_IOERR_READ;
                    }
                    &whole[..]
                }
            };
            let count = rest.len().min(self.page_size - within);
            if let (Some(to), Some(from)) =
                (rest.get_mut(..count), bytes.get(within..within + count))
            {
                to.copy_from_slice(from);
            }
            done += count;
        }
        ffi::SQLITE_OK
    }
}

/// An open file, as SQLite allocates it.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// From `Arc::into_raw`; closing gives it back.
    shared: *const Shared,
}

/// What SQLite does with an open file.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(nothing),
    xFileSize: Some(file_size),
    xLock: Some(nothing),
    xUnlock: Some(nothing),
    xCheckReservedLock: Some(not_reserved),
    xFileControl: Some(no_control),
    xSectorSize: None,
    xDeviceCharacteristics: Some(no_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Registers the virtual file system, once.
fn register() -> Result<()> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    super::init()?;
    let rc = *REGISTERED.get_or_init(|| {
        // SAFETY: SQLite is initialised. The default file system lives as long as the process.
        let default = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        if default.is_null() {
            return ffi::SQLITE_ERROR;
        }
        // SAFETY: it is not null, and nothing changes it any more: it is copied for what it has
        // beyond files (randomness, time).
        let mut vfs = unsafe { ptr::read(default) };
        vfs.iVersion = vfs.iVersion.min(2);
        vfs.szOsFile = size_of::<File>() as c_int;
        vfs.mxPathname = LONGEST_NAME;
        vfs.pNext = ptr::null_mut();
        vfs.zName = NAME.as_ptr();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        vfs.xAccess = Some(access);
        vfs.xFullPathname = Some(full_pathname);
        let vfs: &'static mut ffi::sqlite3_vfs = Box::leak(Box::new(vfs));
        // SAFETY: the structure is complete and lives as long as the process.
        unsafe { ffi::sqlite3_vfs_register(vfs, 0) }
    });
    if rc == ffi::SQLITE_OK {
        Ok(())
    } else {
        Err(Error::sqlite(rc, "SQLite takes no further virtual file system"))
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let file: *mut File = file.cast();
    // SAFETY: SQLite hands in `szOsFile` bytes. Without methods it does not close the file.
    unsafe { (*file).base.pMethods = ptr::null() };
    if name.is_null() || flags & ffi::SQLITE_OPEN_MAIN_DB == 0 {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: SQLite hands in a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) };
    let number = name.to_str().ok().and_then(|name| name.parse().ok());
    let shared = number.and_then(|number: u64| images(|images| images.get(&number).cloned()));
    let Some(shared) = shared else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: as above; `out_flags` may be null.
    unsafe {
        (*file).shared = Arc::into_raw(shared);
        (*file).base.pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

/// The image of an open file.
///
/// # Safety
/// `file` was opened by [`open`] and not closed.
unsafe fn shared<'f>(file: *mut ffi::sqlite3_file) -> &'f Shared {
    // SAFETY: `open` stored the pointer of an `Arc` that `close` gives back.
    unsafe { &*(*file.cast::<File>()).shared }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes once what `open` opened.
    drop(unsafe { Arc::from_raw((*file.cast::<File>()).shared) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite reads an open file into a buffer of `amount` bytes of its own.
    let (shared, to) =
        unsafe { (shared(file), std::slice::from_raw_parts_mut(to.cast::<u8>(), amount)) };
    shared.read(to, offset)
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite writes `amount` bytes of its own to an open file.
    let (shared, from) =
        unsafe { (shared(file), std::slice::from_raw_parts(from.cast::<u8>(), amount)) };
    let size = shared.page_size as u64;
    // The pager writes whole pages.
    if amount as u64 != size || offset % size != 0 {
        return ffi::SQLITE_IOERR_WRITE;
    }
    match u32::try_from(offset / size + 1) {
        Ok(page) => {
            shared.write(page, from);
            ffi::SQLITE_OK
        }
        Err(_) => ffi::SQLITE_FULL,
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite truncates an open file.
    let shared = unsafe { shared(file) };
    let pages = u64::try_from(size).unwrap_or(0) / shared.page_size as u64;
    let pages = u32::try_from(pages).unwrap_or(u32::MAX);
    let mut inner = shared.lock();
    inner.written.retain(|page, _| *page <= pages);
    inner.pages = inner.pages.min(pages);
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    size: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite asks an open file, for a number of its own.
    unsafe {
        let shared = shared(file);
        *size = i64::from(shared.lock().pages) * shared.page_size as i64;
    }
    ffi::SQLITE_OK
}

/// Locks and syncs: the image is its connection's alone, and in memory.
unsafe extern "C" fn nothing(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn not_reserved(_: *mut ffi::sqlite3_file, reserved: *mut c_int) -> c_int {
    // SAFETY: SQLite hands in a number of its own.
    unsafe { *reserved = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn no_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn no_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, _: *const c_char, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// An image has no journal and no WAL next to it.
unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    _: *const c_char,
    _: c_int,
    found: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands in a number of its own.
    unsafe { *found = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    length: c_int,
    to: *mut c_char,
) -> c_int {
    // SAFETY: SQLite hands in a NUL-terminated name and a buffer of `length` bytes.
    unsafe {
        let name = CStr::from_ptr(name).to_bytes_with_nul();
        if usize::try_from(length).is_ok_and(|length| name.len() <= length) {
            ptr::copy_nonoverlapping(name.as_ptr(), to.cast::<u8>(), name.len());
            ffi::SQLITE_OK
        } else {
            ffi::SQLITE_CANTOPEN
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rusqlite::OpenFlags;

    use super::*;

    struct Bytes(Vec<u8>);

    impl PageImage for Bytes {
        fn page_size(&self) -> u32 {
            4096
        }

        fn pages(&self) -> u32 {
            (self.0.len() / 4096) as u32
        }

        fn read_page(&self, page: u32, to: &mut [u8]) -> Result<()> {
            let start = (page as usize - 1) * 4096;
            to.copy_from_slice(&self.0[start..start + 4096]);
            Ok(())
        }
    }

    fn memory() -> Connection {
        let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_URI;
        Connection::open(Path::new(":memory:"), flags, Duration::ZERO).unwrap()
    }

    fn bytes() -> Bytes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.db");
        let one = rusqlite::Connection::open(&path).unwrap();
        one.execute_batch(
            "CREATE TABLE t(a, b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
             WHERE i < 1000) INSERT INTO t SELECT i, hex(randomblob(50)) FROM n",
        )
        .unwrap();
        drop(one);
        Bytes(std::fs::read(path).unwrap())
    }

    #[test]
    fn an_image_is_read_and_written_and_its_origin_is_as_it_was() {
        let bytes = bytes();
        let before = bytes.0.clone();
        let connection = memory();
        {
            let image = Image::new(&bytes).unwrap();
            image.attach(&connection, "damaged").unwrap();
            let sql = connection.sql().unwrap();
            let count = |of: &str| -> i64 { sql.query_row(of, [], |row| row.get(0)).unwrap() };
            assert_eq!(count("SELECT count(*) FROM damaged.t"), 1000);
            sql.execute_batch(
                "PRAGMA damaged.journal_mode = MEMORY;
                 BEGIN; INSERT INTO damaged.t SELECT * FROM damaged.t; COMMIT;
                 BEGIN; DELETE FROM damaged.t; ROLLBACK",
            )
            .unwrap();
            assert_eq!(count("SELECT count(*) FROM damaged.t"), 2000);
            let check: String =
                sql.query_row("PRAGMA damaged.integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(check, "ok");
        }
        assert_eq!(bytes.0, before);
    }

    #[test]
    fn a_file_that_outlives_its_image_reads_nothing() {
        let bytes = bytes();
        let connection = memory();
        let sql = connection.sql().unwrap();
        let mut statement;
        let mut rows;
        {
            let image = Image::new(&bytes).unwrap();
            image.attach(&connection, "damaged").unwrap();
            sql.execute_batch("PRAGMA damaged.cache_size = 1").unwrap();
            statement = sql.prepare("SELECT b FROM damaged.t").unwrap();
            rows = statement.query([]).unwrap();
            assert!(rows.next().unwrap().is_some());
        }
        let end = loop {
            match rows.next() {
                Ok(Some(_)) => {}
                end => break end.map(|row| row.is_some()),
            }
        };
        assert!(matches!(end, Err(rusqlite::Error::SqliteFailure(..))));
    }
}
