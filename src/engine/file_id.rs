//! Identity of a database file.

use std::io;
use std::path::Path;

/// A file's identity on this machine: device and inode, or volume and file index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device, or volume serial number.
    pub device: u64,
    /// Inode, or file index.
    pub inode: u64,
}

impl FileId {
    /// The identity of the file that `path` leads to now, by `stat`; nothing is opened.
    ///
    /// # Errors
    /// Those of `stat`.
    #[cfg(unix)]
    pub fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}
