//! The one error type, and what an SQLite result code means for a writer.
//!
//! Errors are sorted by SQLite's *extended* result code, never by message
//! (<https://sqlite.org/rescode.html>). Plain data: any thread may make, clone and read one.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ffi;

use super::cause::{self, Cause};
use super::shown::shown;

/// `code` of every error that SQLite itself reported; the same as node:sqlite's.
pub const SQLITE_ERROR: &str = "ERR_SQLITE_ERROR";

/// What went wrong, for a program (`code`, `errcode`) and for a person (`message`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// `ERR_SQLITE_ERROR`, or one of this package's `ERR_FUSION_…` codes.
    pub code: &'static str,
    /// SQLite's extended result code; 0 where SQLite was not involved.
    pub errcode: i32,
    /// The system's error number; 0 where the system reported no error, or it is not known.
    pub errno: i32,
    /// Why the system refused it, where [`super::advise`] has looked and knows.
    pub cause: Option<Cause>,
    /// SQLite's fixed English text for `errcode`; empty where `errcode` is 0.
    pub errstr: String,
    /// The database file, where one is known.
    pub path: Option<PathBuf>,
    /// What happened and, where it is not obvious, what to do.
    pub message: String,
    /// What a program may want to know as well: a JSON object, whose fields JavaScript's error has
    /// as properties.
    pub details: Option<Arc<str>>,
}

/// Result of the engine's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// What a writer does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Another connection has the lock, or another transient cause: keep the entries, retry soon.
    Transient,
    /// This row cannot be stored: reject it alone.
    Row,
    /// The disk is full, a permission is missing, or the schema differs: keep the entries,
    /// report, retry slowly.
    Disk,
    /// The disk or its file system failed a read, a write or a sync. It says nothing about the
    /// file's content: keep the entries, report, retry slowly.
    Io,
    /// The file is damaged: stop writing at once, keep the entries, report.
    Corrupt,
    /// A virtual table's index is damaged, the file is not: rebuild the index.
    Index,
    /// The path no longer leads to the open file: stop writing at once, keep the entries, report.
    Replaced,
    /// A mistake of the caller or of this package.
    Misuse,
}

impl Class {
    /// Whether the cause lies outside of the file, so that trying again later may succeed.
    pub fn passes(self) -> bool {
        matches!(self, Self::Transient | Self::Disk | Self::Io)
    }
}

impl Error {
    /// An error of this package; SQLite was not involved.
    pub fn fusion(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            errcode: 0,
            errno: 0,
            cause: None,
            errstr: String::new(),
            path: None,
            message: shown(&message.into()).into_owned(),
            details: None,
        }
    }

    /// An error that SQLite reported with extended code `errcode`.
    pub fn sqlite(errcode: i32, message: impl Into<String>) -> Self {
        Self {
            code: SQLITE_ERROR,
            errcode,
            errno: 0,
            cause: None,
            errstr: errstr(errcode),
            path: None,
            message: message.into(),
            details: None,
        }
    }

    /// An error that SQLite has just reported on this thread, with the system's error behind it.
    pub(super) fn reported(errcode: i32, message: impl Into<String>) -> Self {
        Self { errno: cause::take(errcode), ..Self::sqlite(errcode, message) }
    }

    /// The system's `error` about `path`, as SQLite's `errcode`, with its cause and what to do.
    pub fn system(errcode: i32, path: &Path, error: &io::Error) -> Self {
        let message = shown(&format!("{}: {error}", path.display())).into_owned();
        let errno = error.raw_os_error().unwrap_or(0);
        cause::advise(Self { errno, ..Self::sqlite(errcode, message) }.at(path), path)
    }

    /// The most recent error of `db`, with its extended code and message.
    ///
    /// # Safety
    /// `db` is an open connection that no other thread is using at this moment.
    pub unsafe fn last(db: *mut ffi::sqlite3) -> Self {
        // SAFETY: the caller guarantees an open connection; sqlite3_errmsg returns a
        // NUL-terminated string that lives until the connection's next call.
        unsafe {
            let errcode = ffi::sqlite3_extended_errcode(db);
            let message = CStr::from_ptr(ffi::sqlite3_errmsg(db)).to_string_lossy().into_owned();
            Self::reported(errcode, message)
        }
    }

    /// The same error, naming its file.
    #[must_use]
    pub fn at(mut self, path: &Path) -> Self {
        self.path.get_or_insert_with(|| path.to_path_buf());
        self
    }

    /// The same error with `code` of this package in place of `ERR_SQLITE_ERROR`, and its
    /// message led by what it means for the caller.
    #[must_use]
    pub fn explained(mut self, code: &'static str, lead: &str) -> Self {
        self.code = code;
        self.message = shown(&format!("{lead} ({})", self.message)).into_owned();
        self
    }

    /// The same error with `details`, a JSON object.
    #[must_use]
    pub fn detailed(mut self, details: impl Into<Arc<str>>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// What a writer does about it.
    pub fn class(&self) -> Class {
        match self.code {
            "ERR_FUSION_REPLACED" | "ERR_FUSION_UNLINKED" => Class::Replaced,
            "ERR_FUSION_COMMIT_UNKNOWN" => Class::Misuse,
            "ERR_FUSION_SCHEMA" => Class::Disk,
            _ if self.errcode == 0 => Class::Misuse,
            _ => classify(self.errcode),
        }
    }
}

/// The class of an extended result code, where it is not known which statement failed.
///
/// | class | codes |
/// |---|---|
/// | transient | BUSY*, LOCKED*, PROTOCOL, INTERRUPT, SCHEMA, IOERR for memory |
/// | row | CONSTRAINT*, TOOBIG, MISMATCH |
/// | disk | FULL, READONLY*, CANTOPEN*, PERM, NOMEM, ERROR (a missing table) |
/// | io | other IOERR*, IOERR_CORRUPTFS (a failed read) and IOERR_LOCK (a lock that the system cannot take, which is no lock of another) among them |
/// | corrupt | CORRUPT*, NOTADB, IOERR_DATA (a page's checksum) |
/// | index | CORRUPT_VTAB |
/// | replaced | READONLY_DBMOVED, IOERR_VNODE |
pub fn classify(errcode: i32) -> Class {
    match errcode {
        ffi::SQLITE_CORRUPT_VTAB => return Class::Index,
        ffi::SQLITE_READONLY_DBMOVED | ffi::SQLITE_IOERR_VNODE => return Class::Replaced,
        ffi::SQLITE_IOERR_DATA => return Class::Corrupt,
        ffi::SQLITE_IOERR_BLOCKED | ffi::SQLITE_IOERR_NOMEM => return Class::Transient,
        _ => {}
    }
    match errcode & 0xff {
        ffi::SQLITE_BUSY
        | ffi::SQLITE_LOCKED
        | ffi::SQLITE_PROTOCOL
        | ffi::SQLITE_INTERRUPT
        | ffi::SQLITE_SCHEMA => Class::Transient,
        ffi::SQLITE_CONSTRAINT | ffi::SQLITE_TOOBIG | ffi::SQLITE_MISMATCH => Class::Row,
        ffi::SQLITE_FULL
        | ffi::SQLITE_READONLY
        | ffi::SQLITE_CANTOPEN
        | ffi::SQLITE_PERM
        | ffi::SQLITE_NOMEM
        | ffi::SQLITE_NOLFS
        | ffi::SQLITE_ERROR => Class::Disk,
        ffi::SQLITE_IOERR => Class::Io,
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => Class::Corrupt,
        _ => Class::Misuse,
    }
}

/// SQLite's English text for a result code.
pub fn errstr(errcode: i32) -> String {
    // SAFETY: sqlite3_errstr takes any integer and returns a static NUL-terminated string.
    unsafe { CStr::from_ptr(ffi::sqlite3_errstr(errcode)) }.to_string_lossy().into_owned()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.message))?;
        if let Some(path) = &self.path {
            write!(f, " [{}]", shown(&path.to_string_lossy()))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::SqliteFailure(code, message) => {
                let message = message.unwrap_or_else(|| errstr(code.extended_code));
                Self::reported(code.extended_code, message)
            }
            rusqlite::Error::SqlInputError { error, msg, .. } => {
                Self::reported(error.extended_code, msg)
            }
            other => Self::sqlite(ffi::SQLITE_ERROR, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_full_text_index_is_not_a_damaged_file() {
        assert_eq!(classify(267), Class::Index);
        assert_eq!(classify(11), Class::Corrupt);
        assert_eq!(classify(26), Class::Corrupt);
    }

    #[test]
    fn what_the_disk_fails_is_no_damage() {
        for code in [10, 266, 522, 778, 1034, 3850, 5130, 8458] {
            assert_eq!(classify(code), Class::Io, "{code}");
        }
    }

    #[test]
    fn contention_is_transient_whatever_its_kind() {
        for code in [5, 261, 517, 773, 6, 262, 15] {
            assert_eq!(classify(code), Class::Transient, "{code}");
        }
    }

    #[test]
    fn a_name_in_a_message_is_escaped_and_sqlites_own_text_is_not() {
        let name = "a\u{1b}[2J\nb";
        let error = Error::fusion("ERR_FUSION_DAMAGED", name).at(Path::new(name));
        assert_eq!(error.message, r"a\u{1b}[2J\nb");
        assert_eq!(error.path.as_deref(), Some(Path::new(name)));
        assert_eq!(error.to_string(), r"a\u{1b}[2J\nb [a\u{1b}[2J\nb]");
        let error = Error::sqlite(1, name);
        assert_eq!(error.message, name);
        assert_eq!(
            error.explained("ERR_FUSION_SCHEMA", "no table").message,
            r"no table (a\u{1b}[2J\nb)"
        );
    }

    #[test]
    fn a_moved_file_is_replaced_and_not_merely_readonly() {
        assert_eq!(classify(1032), Class::Replaced);
        assert_eq!(classify(8), Class::Disk);
        assert_eq!(classify(13), Class::Disk);
    }
}
