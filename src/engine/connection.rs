//! One connection to SQLite: opened through the engine's gate, closed completely.
//!
//! Used by one thread at a time (`SQLITE_OPEN_NO_MUTEX`); which thread is the owner's business.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::{DatabaseFile, Error, FileId, Result};

/// An open connection. Dropping it finalises its statements and closes it.
#[derive(Debug)]
pub struct Connection {
    inner: Option<rusqlite::Connection>,
    file: Option<Arc<DatabaseFile>>,
    path: PathBuf,
}

impl Connection {
    /// Opens `path` as `sqlite3_open_v2` does, with `busy_timeout` set before anything else.
    /// Nothing of the file's content is read yet.
    ///
    /// # Errors
    /// SQLite's, or `ERR_FUSION_SQLITE_VERSION`.
    pub fn open(path: &Path, flags: OpenFlags, busy_timeout: Duration) -> Result<Self> {
        super::init()?;
        let at = |error: rusqlite::Error| Error::from(error).at(path);
        let inner =
            rusqlite::Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
                .map_err(at)?;
        inner.busy_timeout(busy_timeout).map_err(at)?;
        let mut connection = Self { inner: Some(inner), file: None, path: path.to_path_buf() };
        if let Some(resolved) = connection.file_name() {
            let id = FileId::of(&resolved).map_err(|error| {
                Error::sqlite(
                    ffi::SQLITE_CANTOPEN,
                    format!("the file vanished while it was opened: {error}"),
                )
                .at(path)
            })?;
            connection.file = Some(DatabaseFile::shared(id, &resolved));
            connection.path = resolved;
        }
        Ok(connection)
    }

    /// The file this connection has open; none for `:memory:` and temporary databases.
    pub fn file(&self) -> Option<&Arc<DatabaseFile>> {
        self.file.as_ref()
    }

    /// The path as SQLite resolved it, or as it was given where there is no file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SQLite's handle; null once closed.
    pub fn raw(&self) -> *mut ffi::sqlite3 {
        // SAFETY: the handle is only handed on; whoever uses it borrows `self` meanwhile.
        self.inner.as_ref().map_or(ptr::null_mut(), |inner| unsafe { inner.handle() })
    }

    /// rusqlite's view of this connection.
    ///
    /// # Errors
    /// `ERR_INVALID_STATE` once closed.
    pub fn sql(&self) -> Result<&rusqlite::Connection> {
        self.inner
            .as_ref()
            .ok_or_else(|| Error::fusion("ERR_INVALID_STATE", "database is not open"))
    }

    /// Whether no explicit transaction is open (`sqlite3_get_autocommit`).
    pub fn is_autocommit(&self) -> bool {
        self.inner.as_ref().is_none_or(rusqlite::Connection::is_autocommit)
    }

    /// Finalises every statement and closes. Closing twice is harmless.
    ///
    /// # Errors
    /// SQLite's; the connection is then still open.
    pub fn close(&mut self) -> Result<()> {
        let Some(inner) = self.inner.take() else {
            return Ok(());
        };
        // SAFETY: the connection is open and exclusively borrowed; each statement returned by
        // sqlite3_next_stmt belongs to it. Their other owners learn of it as `raw` turns null.
        unsafe {
            loop {
                let statement = ffi::sqlite3_next_stmt(inner.handle(), ptr::null_mut());
                if statement.is_null() {
                    break;
                }
                ffi::sqlite3_finalize(statement);
            }
        }
        match inner.close() {
            Ok(()) => Ok(()),
            Err((inner, error)) => {
                self.inner = Some(inner);
                Err(Error::from(error).at(&self.path))
            }
        }
    }

    fn file_name(&self) -> Option<PathBuf> {
        // SAFETY: the connection is open; the name lives as long as it is, and is copied here.
        let name = unsafe {
            let name = ffi::sqlite3_db_filename(self.raw(), c"main".as_ptr());
            if name.is_null() {
                return None;
            }
            CStr::from_ptr(name)
        };
        if name.is_empty() {
            return None;
        }
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
        }
        #[cfg(not(unix))]
        {
            Some(PathBuf::from(name.to_string_lossy().into_owned()))
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A connection that cannot be closed (SQLite is out of memory) is leaked, not aborted on.
        if self.close().is_err() {
            std::mem::forget(self.inner.take());
        }
    }
}
