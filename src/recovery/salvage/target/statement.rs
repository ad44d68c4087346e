//! One prepared statement, bound with a record's values exactly as they are stored.
//!
//! rusqlite binds text as UTF-8; a record's text is in the database's encoding and need not be
//! valid in it. So this goes to SQLite itself, and it binds without copying: values are bound,
//! used and done with inside one call.
//!
//! A statement that outlives its connection keeps it open: closing answers `SQLITE_BUSY`, and
//! what cannot be closed is leaked. Thread: the connection's.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use rusqlite::ffi;

use crate::engine::{Connection, Error, Result};
use crate::format::Value;

/// The encoding of a database's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recovery) enum Encoding {
    Utf8,
    Utf16le,
    Utf16be,
}

impl Encoding {
    /// By its number in the file's header; of any other it is UTF-8, as in SQLite.
    pub(in crate::recovery) fn of_header(number: u8) -> Self {
        match number {
            2 => Self::Utf16le,
            3 => Self::Utf16be,
            _ => Self::Utf8,
        }
    }

    /// Its name for `PRAGMA encoding`.
    pub(in crate::recovery) fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16le => "UTF-16le",
            Self::Utf16be => "UTF-16be",
        }
    }

    /// Its number in the file's header.
    pub(in crate::recovery) fn number(self) -> u8 {
        // One of 1, 2 and 3.
        match self {
            Self::Utf8 => ffi::SQLITE_UTF8 as u8,
            Self::Utf16le => ffi::SQLITE_UTF16LE as u8,
            Self::Utf16be => ffi::SQLITE_UTF16BE as u8,
        }
    }

    /// The bytes of `text` in this encoding.
    pub(in crate::recovery) fn bytes_of(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf16le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Self::Utf16be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }

    /// What `bytes` are in this encoding, as far as they are text.
    pub(in crate::recovery) fn text_of(self, bytes: &[u8]) -> String {
        let units = |unit: fn([u8; 2]) -> u16| {
            let pairs = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok());
            char::decode_utf16(pairs.map(unit))
                .map(|found| found.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect()
        };
        match self {
            Self::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Self::Utf16le => units(u16::from_le_bytes),
            Self::Utf16be => units(u16::from_be_bytes),
        }
    }

    /// Whether SQLite's binding would take the text for something else: it drops what looks like
    /// a byte-order mark, and half a code unit at the end.
    pub(in crate::recovery) fn binds_as_is(self, text: &[u8]) -> bool {
        self == Self::Utf8
            || (text.len().is_multiple_of(2)
                && !matches!(text, [0xfe, 0xff, ..] | [0xff, 0xfe, ..]))
    }
}

/// A prepared statement. Dropping it finalises it.
#[derive(Debug)]
pub(in crate::recovery) struct Statement {
    raw: NonNull<ffi::sqlite3_stmt>,
    encoding: Encoding,
}

/// The current row of a statement.
#[derive(Debug)]
pub(in crate::recovery) struct Row<'a> {
    raw: NonNull<ffi::sqlite3_stmt>,
    _statement: PhantomData<&'a Statement>,
}

impl Statement {
    /// Prepares the first statement of `sql`.
    ///
    /// # Errors
    /// SQLite's; `SQLITE_ERROR` if `sql` has no statement.
    pub(in crate::recovery) fn prepare(
        connection: &Connection,
        encoding: Encoding,
        sql: &str,
    ) -> Result<Self> {
        let length = c_int::try_from(sql.len())
            .map_err(|_| Error::sqlite(ffi::SQLITE_TOOBIG, "a statement is too long"))?;
        let mut raw = ptr::null_mut();
        // SAFETY: the connection is open or null, which SQLite refuses; the text is read up to
        // its length; the out-pointer is valid.
        let rc = unsafe {
            ffi::sqlite3_prepare_v3(
                connection.raw(),
                sql.as_ptr().cast(),
                length,
                ffi::SQLITE_PREPARE_PERSISTENT,
                &raw mut raw,
                ptr::null_mut(),
            )
        };
        if rc != ffi::SQLITE_OK {
            return Err(connection.last_error());
        }
        NonNull::new(raw)
            .map(|raw| Self { raw, encoding })
            .ok_or_else(|| Error::sqlite(ffi::SQLITE_ERROR, "there is no statement"))
    }

    /// Runs a statement that returns no rows.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::recovery) fn run<'v>(
        &mut self,
        values: impl Iterator<Item = Value<'v>>,
    ) -> Result<()> {
        self.each(values, |_| Ok(false))
    }

    /// Runs the statement, and calls `row` with each row until it returns `false`.
    ///
    /// # Errors
    /// SQLite's; `row`'s.
    pub(in crate::recovery) fn each<'v>(
        &mut self,
        values: impl Iterator<Item = Value<'v>>,
        mut row: impl FnMut(&Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        /// Resets the statement even if `row` unwinds. Bindings may stay: every run binds all
        /// parameters.
        struct Reset(NonNull<ffi::sqlite3_stmt>);
        impl Drop for Reset {
            fn drop(&mut self) {
                // SAFETY: the statement is alive; its error was read already.
                unsafe { ffi::sqlite3_reset(self.0.as_ptr()) };
            }
        }
        let raw = self.raw.as_ptr();
        let reset = Reset(self.raw);
        let mut bound: c_int = 0;
        for value in values {
            bound += 1;
            self.bind(bound, value)?;
        }
        // SAFETY: the statement is alive.
        debug_assert_eq!(bound, unsafe { ffi::sqlite3_bind_parameter_count(raw) });
        loop {
            // SAFETY: the statement is alive, and every value that was bound outlives this call.
            match unsafe { ffi::sqlite3_step(raw) } {
                ffi::SQLITE_DONE => break,
                ffi::SQLITE_ROW => {
                    if !row(&Row { raw: self.raw, _statement: PhantomData })? {
                        break;
                    }
                }
                _ => return Err(self.error()),
            }
        }
        drop(reset);
        Ok(())
    }

    fn error(&self) -> Error {
        // SAFETY: the statement is alive, so its connection is open; both belong to this thread.
        unsafe { Error::last(ffi::sqlite3_db_handle(self.raw.as_ptr())) }
    }

    /// Binds without a copy: [`Self::each`] steps and resets while the value is alive.
    fn bind(&self, index: c_int, value: Value<'_>) -> Result<()> {
        /// An empty value has bytes too: a null pointer would bind NULL.
        fn bytes(of: &[u8]) -> (*const c_void, u64) {
            static NOTHING: [u8; 2] = [0; 2];
            let at = if of.is_empty() { NOTHING.as_ptr() } else { of.as_ptr() };
            (at.cast(), of.len() as u64)
        }
        let raw = self.raw.as_ptr();
        // SAFETY: the statement is alive and not being stepped; SQLite checks the index; bytes
        // are bound with their length and outlive the next step, and no destructor is asked for.
        let rc = unsafe {
            match value {
                Value::Null => ffi::sqlite3_bind_null(raw, index),
                Value::Integer(number) => ffi::sqlite3_bind_int64(raw, index, number),
                Value::Real(number) => ffi::sqlite3_bind_double(raw, index, number),
                Value::Text(text) => {
                    let (at, length) = bytes(text);
                    let encoding = self.encoding.number();
                    ffi::sqlite3_bind_text64(
                        raw,
                        index,
                        at.cast(),
                        length,
                        ffi::SQLITE_STATIC(),
                        encoding,
                    )
                }
                Value::Blob(blob) => {
                    let (at, length) = bytes(blob);
                    ffi::sqlite3_bind_blob64(raw, index, at, length, ffi::SQLITE_STATIC())
                }
            }
        };
        if rc == ffi::SQLITE_OK { Ok(()) } else { Err(self.error()) }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: the statement is alive, and this is its end.
        unsafe { ffi::sqlite3_finalize(self.raw.as_ptr()) };
    }
}

impl Row<'_> {
    /// A column's value, text in the database's encoding. Null beyond the last column.
    pub(in crate::recovery) fn value(&self, column: usize) -> Value<'_> {
        let Ok(column) = c_int::try_from(column) else {
            return Value::Null;
        };
        let raw = self.raw.as_ptr();
        // SAFETY: the statement stands on a row while `self` is borrowed. The type is asked for
        // first; sqlite3_column_blob hands out a text's bytes unconverted, and
        // sqlite3_column_bytes after it their number; they live until the next step.
        unsafe {
            let bytes = || {
                let at = ffi::sqlite3_column_blob(raw, column);
                let length = usize::try_from(ffi::sqlite3_column_bytes(raw, column)).unwrap_or(0);
                if at.is_null() || length == 0 {
                    &[]
                } else {
                    std::slice::from_raw_parts(at.cast::<u8>(), length)
                }
            };
            match ffi::sqlite3_column_type(raw, column) {
                ffi::SQLITE_INTEGER => Value::Integer(ffi::sqlite3_column_int64(raw, column)),
                ffi::SQLITE_FLOAT => Value::Real(ffi::sqlite3_column_double(raw, column)),
                ffi::SQLITE_TEXT => Value::Text(bytes()),
                ffi::SQLITE_BLOB => Value::Blob(bytes()),
                _ => Value::Null,
            }
        }
    }
}

/// `name` as an SQL identifier.
pub(in crate::recovery) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
