//! One connection to SQLite: opened through the engine's gate, closed completely.
//!
//! Used by one thread at a time (`SQLITE_OPEN_NO_MUTEX`); the owner decides which.

use std::ffi::{CStr, c_int};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::generation::{ConnectionSet, ConnectionTicket};
use super::sqlite_file::Handle;
use super::{
    Class, DatabaseFile, Error, FileId, PageSource, Result, Wal, file_id, reads, refused_side_file,
};

/// The longest busy timeout that SQLite takes: 24 days.
pub(super) const LONGEST_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    inner: Option<rusqlite::Connection>,
    file: Option<Arc<DatabaseFile>>,
    /// Leaves after `inner` is closed.
    member: Option<ConnectionTicket>,
    path: PathBuf,
    /// It reads an image: the file at the path has another size, and no WAL belongs to it.
    is_image: bool,
    /// It was asked for reading only.
    reads: bool,
    /// Its errors say their cause: it was opened with the hardened profile.
    explains: bool,
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
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let inner =
            rusqlite::Connection::open_with_flags_and_vfs(path, flags, reads::NAME).map_err(at)?;
        // rusqlite panics at a timeout that SQLite's int cannot hold.
        inner.busy_timeout(busy_timeout.min(LONGEST_TIMEOUT)).map_err(at)?;
        if cfg!(target_vendor = "apple") {
            // A checkpoint without a barrier may reset the WAL before its pages are on the medium.
            // Needs no read of the file, and a PRAGMA of the program changes it.
            inner.execute_batch("PRAGMA checkpoint_fullfsync = 1").map_err(at)?;
        }
        let mut connection = Self::without_file(inner, path);
        connection.reads = flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY);
        if let Some(resolved) = connection.file_name() {
            let id = FileId::of(&resolved).map_err(|error| {
                Error::sqlite(
                    ffi::SQLITE_CANTOPEN,
                    format!("the file vanished while it was opened: {error}"),
                )
                .at(path)
            })?;
            // `FileId::of` has looked at the path, SQLite at the inode that it opened. If the path
            // still leads to that inode, it did so when `FileId::of` looked.
            if connection.has_moved()? {
                return Err(file_id::replaced(path));
            }
            let file = DatabaseFile::shared(id, &resolved);
            file.is_opened();
            connection.member = Some(ConnectionSet::join(&file));
            connection.file = Some(file);
            connection.path = resolved;
        }
        Ok(connection)
    }

    /// A connection to an image of the database at `path`, see [`super::storage_vfs`].
    pub(super) fn of_image(inner: rusqlite::Connection, path: &Path) -> Self {
        let mut connection = Self::without_file(inner, path);
        connection.is_image = true;
        connection
    }

    fn without_file(inner: rusqlite::Connection, path: &Path) -> Self {
        let path = path.to_path_buf();
        Self {
            inner: Some(inner),
            file: None,
            member: None,
            path,
            is_image: false,
            reads: false,
            explains: false,
        }
    }

    /// The sizes in bytes of the database and of its WAL. The first is `None` where the path leads
    /// to no file; the second is 0 without a WAL.
    pub(super) fn sizes(&self) -> Result<(Option<u64>, u64)> {
        if self.is_image {
            let image = Handle::of(self, ffi::SQLITE_FCNTL_FILE_POINTER)?;
            return Ok((image.map(|image| image.size()).transpose()?, 0));
        }
        // The WAL's size before the file's: a checkpoint in between lengthens the file first.
        let wal = std::fs::metadata(Wal::path(&self.path)).map_or(0, |wal| wal.len());
        let file = std::fs::metadata(&self.path).ok().map(|file| file.len());
        Ok((file, wal))
    }

    /// Checks that this connection's path still leads to the file that it has open. One `stat`:
    /// cheap enough before each batch. `Ok` for a database without a file.
    ///
    /// # Errors
    /// As [`FileId::check_presence`].
    pub fn check_identity(&self) -> Result<()> {
        match &self.file {
            Some(file) => file.id.check_presence(&self.path),
            None => Ok(()),
        }
    }

    /// Whether the path leads to another file now, by `SQLITE_FCNTL_HAS_MOVED`. SQLite compares
    /// only inodes; [`Self::check_identity`] compares devices, too, and reports whether the file
    /// was replaced or deleted.
    ///
    /// # Errors
    /// SQLite's.
    pub fn has_moved(&self) -> Result<bool> {
        self.sql()?;
        let mut moved: c_int = 0;
        // SAFETY: the connection is open, and this file control writes one int.
        let rc = unsafe {
            ffi::sqlite3_file_control(
                self.raw(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_HAS_MOVED,
                (&raw mut moved).cast(),
            )
        };
        match rc {
            ffi::SQLITE_OK => Ok(moved != 0),
            // A VFS that has no files to move.
            ffi::SQLITE_NOTFOUND => Ok(false),
            _ => Err(Error::sqlite(rc, super::errstr(rc)).at(&self.path)),
        }
    }

    /// The file that this connection has open; `None` for `:memory:` and temporary databases.
    pub fn file(&self) -> Option<&Arc<DatabaseFile>> {
        self.file.as_ref()
    }

    /// The path as SQLite resolved it, or as it was given where there is no file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SQLite's handle; null once closed.
    pub fn raw(&self) -> *mut ffi::sqlite3 {
        // SAFETY: the handle is only handed on; the code that uses it borrows `self` meanwhile.
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

    /// SQLite's most recent error on this connection. An error that means damage marks the file as
    /// unverified. With the hardened profile the message begins with the cause. Without it the
    /// message is SQLite's, and ends with the name of a sidecar file of another user that prevents
    /// access.
    pub fn last_error(&self) -> Error {
        // SAFETY: the connection is open or null, which SQLite answers as out of memory; a
        // `Connection` is not `Sync`, so no other thread is using it.
        let error = unsafe { Error::last(self.raw()) };
        match (&self.file, error.class()) {
            (Some(file), Class::Corrupt) => file.corruption_seen(),
            (Some(file), Class::Index) => file.index_corruption_seen(),
            _ => {}
        }
        if self.explains {
            return self.explain(error);
        }
        if matches!(error.errcode & 0xff, ffi::SQLITE_READONLY | ffi::SQLITE_CANTOPEN)
            && self.file.is_some()
            && let Some(refusal) = refused_side_file(&self.path)
        {
            return refusal.named(error);
        }
        error
    }

    /// From here on the errors of this connection say their cause.
    pub fn explain_errors(&mut self) {
        self.explains = true;
    }

    /// Whether it was asked for reading only.
    pub(super) fn was_opened_to_read(&self) -> bool {
        self.reads
    }

    /// Whether no explicit transaction is open (`sqlite3_get_autocommit`).
    pub fn is_autocommit(&self) -> bool {
        self.inner.as_ref().is_none_or(rusqlite::Connection::is_autocommit)
    }

    /// Whether closing the file's last connection checkpoints the WAL and removes it. The
    /// hardened profile says no; a clean shutdown of a healthy file says yes again.
    pub fn checkpoint_on_close(&self, yes: bool) {
        // SAFETY: the connection is open; the operation takes an int and a pointer that may be
        // null. It cannot fail.
        unsafe {
            ffi::sqlite3_db_config(
                self.raw(),
                ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
                c_int::from(!yes),
                ptr::null_mut::<c_int>(),
            );
        }
    }

    /// Whether triggers fire on this connection. They do, unless this says otherwise.
    pub fn enable_triggers(&self, yes: bool) {
        // SAFETY: as above.
        unsafe {
            ffi::sqlite3_db_config(
                self.raw(),
                ffi::SQLITE_DBCONFIG_ENABLE_TRIGGER,
                c_int::from(yes),
                ptr::null_mut::<c_int>(),
            );
        }
    }

    /// Whether this connection belongs to an earlier generation of the file ([`super::ConnectionSet`]).
    /// A stale connection can only end the transaction that it may be in. One atomic load.
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.member.as_ref().is_some_and(ConnectionTicket::is_stale)
    }

    /// The generation of the file that this connection belongs to.
    pub fn generation(&self) -> u32 {
        self.member.as_ref().map_or(0, ConnectionTicket::generation)
    }

    /// Waits up to `patience` until this connection, which has read nothing, is not stale.
    ///
    /// # Errors
    /// `ERR_FUSION_WEDGED`.
    pub fn enter_generation(&mut self, patience: Duration) -> Result<()> {
        let Some(mut member) = self.member.take() else {
            return Ok(());
        };
        let entered = member.enter(patience);
        self.member = Some(member);
        entered
    }

    /// Closes. Closing twice is harmless.
    ///
    /// The caller finalises its prepared statements first. Closing cannot do that: among
    /// the statements that `sqlite3_next_stmt` lists are those that FTS5, R-Tree and other
    /// virtual tables keep and finalise themselves.
    ///
    /// # Errors
    /// SQLite's, `SQLITE_BUSY` if a statement is left; the connection is then still open.
    pub fn close(&mut self) -> Result<()> {
        let Some(inner) = self.inner.take() else {
            return Ok(());
        };
        let connections = self.file.as_ref().map(|file| &file.connections);
        // Before the system may give the inode to another file.
        if let Some(connections) = connections {
            connections.fetch_sub(1, Ordering::AcqRel);
        }
        match inner.close() {
            Ok(()) => {
                self.member = None;
                Ok(())
            }
            Err((inner, error)) => {
                if let Some(connections) = connections {
                    connections.fetch_add(1, Ordering::AcqRel);
                }
                self.inner = Some(inner);
                Err(Error::from(error).at(&self.path))
            }
        }
    }

    /// Takes the open connection out and leaves a closed one.
    #[must_use]
    pub fn take(&mut self) -> Self {
        Self {
            inner: self.inner.take(),
            file: self.file.take(),
            member: self.member.take(),
            path: self.path.clone(),
            is_image: self.is_image,
            reads: self.reads,
            explains: self.explains,
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
            std::mem::forget((self.inner.take(), self.member.take()));
        }
    }
}
