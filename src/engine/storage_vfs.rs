//! SQL over bytes that are no file: a connection that reads a [`PageSource`].
//!
//! A VFS of its own opens the main database as what it is handed, for reading only, and says that
//! it never changes (`SQLITE_IOCAP_IMMUTABLE`), so that SQLite takes no lock and looks for no
//! journal and no WAL. A read that fails counts as one of a file does ([`reads`]): SQLite's checks would
//! take it for damage. Everything else (temporary files) is the default VFS's.
//!
//! Thread: the connection's. Source: <https://sqlite.org/vfs.html>.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::path::Path;
use std::ptr;
use std::rc::Rc;
use std::sync::OnceLock;

use rusqlite::{OpenFlags, ffi};

use super::{Connection, Error, PageSource, Result, reads};

/// What an image is made of. It stays on the thread that opens it, and so does the connection: who
/// calls [`open`] sees to that.
pub(super) type Bytes = Rc<dyn PageSource>;

thread_local! {
    /// On its way from [`open`] to [`open_file`], which SQLite calls on the same thread.
    static HANDED: Cell<Option<Bytes>> = const { Cell::new(None) };
}

/// Opens a connection that reads `bytes`, which do not change, as the database at `path`.
///
/// # Errors
/// SQLite's.
pub(super) fn open(bytes: Bytes, path: &Path) -> Result<Connection> {
    super::init()?;
    register()?;
    HANDED.set(Some(bytes));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = rusqlite::Connection::open_with_flags_and_vfs(path, flags, NAME);
    HANDED.set(None);
    Ok(Connection::of_image(opened.map_err(|error| Error::from(error).at(path))?, path))
}

const NAME: &std::ffi::CStr = c"fusion-storage";

fn register() -> Result<()> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    let registered = REGISTERED.get_or_init(|| {
        // SAFETY: null asks for the default VFS, which is registered for good.
        let Some(default) = (unsafe { ffi::sqlite3_vfs_find(ptr::null()).as_ref() }) else {
            return ffi::SQLITE_ERROR;
        };
        let size = c_int::try_from(size_of::<File>()).unwrap_or(c_int::MAX);
        // The rest of the default VFS's methods work on any VFS with its application data.
        let vfs = Box::new(ffi::sqlite3_vfs {
            szOsFile: default.szOsFile.max(size),
            pNext: ptr::null_mut(),
            zName: NAME.as_ptr(),
            xOpen: Some(open_file),
            ..*default
        });
        // SAFETY: the structure is complete, and is never freed.
        unsafe { ffi::sqlite3_vfs_register(Box::into_raw(vfs), 0) }
    });
    match *registered {
        ffi::SQLITE_OK => Ok(()),
        code => Err(Error::sqlite(code, super::errstr(code))),
    }
}

/// What SQLite allocates for an open image.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// From [`Box::into_raw`], until [`close`].
    bytes: *mut Bytes,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn open_file(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let bytes = if flags & ffi::SQLITE_OPEN_MAIN_DB == 0 { None } else { HANDED.take() };
    let Some(bytes) = bytes else {
        // SAFETY: null asks for the default VFS, which is registered for good.
        let default = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        // SAFETY: as above.
        let Some(open) = (unsafe { default.as_ref() }).and_then(|vfs| vfs.xOpen) else {
            return ffi::SQLITE_CANTOPEN;
        };
        // SAFETY: SQLite's own arguments; the memory has at least the default VFS's size.
        return unsafe { open(default, name, file, flags, out) };
    };
    // SAFETY: SQLite allocated `szOsFile` bytes, aligned for any structure, for the file, and
    // `out` is null or points to an int.
    unsafe {
        file.cast::<File>().write(File {
            base: ffi::sqlite3_file { pMethods: &raw const METHODS },
            bytes: Box::into_raw(Box::new(bytes)),
        });
        if let Some(out) = out.as_mut() {
            *out = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_READONLY;
        }
    }
    ffi::SQLITE_OK
}

/// The bytes of an open image.
///
/// # Safety
/// `file` was opened by [`open_file`] as an image and is not closed.
unsafe fn bytes_of<'a>(file: *mut ffi::sqlite3_file) -> &'a Bytes {
    // SAFETY: see above.
    unsafe { &*(*file.cast::<File>()).bytes }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once; the box is from `open_file`.
    unsafe { drop(Box::from_raw((*file.cast::<File>()).bytes)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(length), Ok(offset)) = (usize::try_from(length), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite reads from open files only, and its buffer has `length` bytes.
    let (bytes, buffer) =
        unsafe { (bytes_of(file), std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length)) };
    match bytes.read_at(buffer, offset) {
        Ok(count) if count == length => ffi::SQLITE_OK,
        Ok(count) => {
            if let Some(rest) = buffer.get_mut(count..) {
                rest.fill(0);
            }
            ffi::SQLITE_IOERR_SHORT_READ
        }
        Err(error) => {
            let is_of_disk = error.errcode & 0xff == ffi::SQLITE_IOERR;
            let rc = if is_of_disk { error.errcode } else { ffi::SQLITE_IOERR_READ };
            reads::note(rc);
            rc
        }
    }
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    size: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite asks open files only.
    let bytes = unsafe { bytes_of(file) };
    match bytes.size().map(ffi::sqlite3_int64::try_from) {
        Ok(Ok(bytes)) => {
            // SAFETY: SQLite points to an integer.
            unsafe { *size = bytes };
            ffi::SQLITE_OK
        }
        _ => ffi::SQLITE_IOERR_FSTAT,
    }
}

unsafe extern "C" fn write(
    _: *mut ffi::sqlite3_file,
    _: *const c_void,
    _: c_int,
    _: ffi::sqlite3_int64,
) -> c_int {
    ffi::SQLITE_READONLY
}

unsafe extern "C" fn truncate(_: *mut ffi::sqlite3_file, _: ffi::sqlite3_int64) -> c_int {
    ffi::SQLITE_READONLY
}

unsafe extern "C" fn sync(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_: *mut ffi::sqlite3_file, locked: *mut c_int) -> c_int {
    // SAFETY: SQLite points to an int.
    unsafe { *locked = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_IMMUTABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Owned(Vec<u8>);

    impl PageSource for Owned {
        fn size(&self) -> Result<u64> {
            self.0.as_slice().size()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
            self.0.as_slice().read_at(buffer, offset)
        }
    }

    #[test]
    fn bytes_are_read_as_a_database_and_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        for mode in ["DELETE", "WAL"] {
            let path = directory.path().join(mode);
            let sql = rusqlite::Connection::open(&path).unwrap();
            sql.execute_batch(&format!(
                "PRAGMA journal_mode = {mode}; CREATE TABLE t (a);
                 INSERT INTO t VALUES (randomblob(9000)), (2), (3);"
            ))
            .unwrap();
            drop(sql);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            let image = open(Rc::new(Owned(bytes)), &path).unwrap();
            let sql = image.sql().unwrap();
            let rows: i64 = sql.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
            let sound: String =
                sql.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!((rows, sound.as_str()), (3, "ok"));
            sql.execute_batch("CREATE TEMP TABLE u AS SELECT * FROM t").unwrap();
            sql.execute("DELETE FROM t", []).unwrap_err();
            drop(image);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }
}
