//! Bytes that a page reader can address, wherever they are.
//!
//! Code that reads a damaged file page by page must not open it: closing any descriptor drops
//! the POSIX locks of another copy of SQLite. So it gets a [`PageSource`]: the live file through
//! SQLite's own handle, or a [`PrivateFile`], which no other process has open.

use std::fs::File;
use std::path::Path;

use rusqlite::ffi;

use super::{Error, Result};

/// Bytes at offsets. Used by one thread at a time.
pub trait PageSource {
    /// Length in bytes.
    ///
    /// # Errors
    /// The system's, as SQLite's `SQLITE_IOERR_FSTAT`.
    fn size(&self) -> Result<u64>;

    /// Fills `buffer` from `offset` on. Returns the number of bytes: fewer than requested only at
    /// the end.
    ///
    /// # Errors
    /// The system's, as SQLite's `SQLITE_IOERR_READ`. A reader of a damaged file goes on with
    /// the next page.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize>;
}

/// A file that no SQLite has open: a preserved copy.
#[derive(Debug)]
pub struct PrivateFile {
    file: File,
}

impl PrivateFile {
    /// Opens the file to be read.
    ///
    /// # Errors
    /// As [`super::open_file`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: super::open_file(path)? })
    }
}

impl PageSource for PrivateFile {
    fn size(&self) -> Result<u64> {
        self.file
            .metadata()
            .map(|metadata| metadata.len())
            .map_err(|error| Error::sqlite(ffi::SQLITE_IOERR_FSTAT, error.to_string()))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match read_once(&self.file, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::sqlite(ffi::SQLITE_IOERR_READ, error.to_string()));
                }
            }
        }
        Ok(filled)
    }
}

#[cfg(unix)]
fn read_once(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_once(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

impl<T: PageSource + ?Sized> PageSource for &T {
    fn size(&self) -> Result<u64> {
        (**self).size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        (**self).read_at(buffer, offset)
    }
}

/// Bytes in memory.
impl PageSource for [u8] {
    fn size(&self) -> Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let count = buffer.len().min(self.len() - start);
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), self.get(start..start + count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}
