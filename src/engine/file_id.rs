//! Identity of a database file, and whether its path still leads to it.
//!
//! A database is more than the file that is open: SQLite finds `-wal` and `-shm` by the *path*.
//! So a path that leads elsewhere by now (a `git checkout`, a restore that renames over the
//! file), leads nowhere, or is one of two names for the same file, pairs a database with a WAL
//! that is not its own (<https://sqlite.org/howtocorrupt.html>, 2.4 to 2.6).
//!
//! `stat` answers everything here. On unix no file is opened, so none is closed, which would drop
//! POSIX locks. Windows knows identity by handle only; the handle has no access
//! rights, shares everything, and locks there belong to other handles. Any thread.

use std::io;
use std::path::Path;

use rusqlite::ffi;

use super::file_mount::is_mount_root;
use super::{Error, Result};

/// A file's identity on this machine: device and inode, or volume and file index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device, or volume serial number.
    pub device: u64,
    /// Inode, or file index.
    pub inode: u64,
    /// The upper half of a file's number of 128 bits, as ReFS has them; else 0.
    pub upper: u64,
}

/// Where a path leads, compared with a file that was opened through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// To the same file.
    Same,
    /// To another file.
    Replaced,
    /// Nowhere.
    Unlinked,
}

impl FileId {
    /// The identity of the file that `path` leads to now.
    ///
    /// # Errors
    /// Those of `stat`.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(stat(path)?.0)
    }

    /// Where `path` leads now, compared with this file. The answer is exact only while this file
    /// is open: the system may give a closed and unlinked file's inode to its successor.
    ///
    /// # Errors
    /// Those of `stat`, except that the file is not there.
    pub fn presence(self, path: &Path) -> io::Result<Presence> {
        match Self::of(path) {
            Ok(id) if id == self => Ok(Presence::Same),
            Ok(_) => Ok(Presence::Replaced),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Presence::Unlinked),
                _ => Err(error),
            },
        }
    }

    /// That `path` still leads to this file. One `stat`.
    ///
    /// # Errors
    /// `ERR_FUSION_REPLACED`, `ERR_FUSION_UNLINKED`, or `SQLITE_IOERR_FSTAT` where it cannot be
    /// known.
    pub fn check_presence(self, path: &Path) -> Result<()> {
        match self.presence(path) {
            Ok(Presence::Same) => Ok(()),
            Ok(Presence::Replaced) => Err(replaced(path)),
            Ok(Presence::Unlinked) => Err(Error::fusion(
                "ERR_FUSION_UNLINKED",
                "the database file was deleted or renamed while it was open, so that whatever is \
                 written to it now is lost with its last connection. Nothing more is written. Put \
                 a file back in its place and call reopen() of the HardenedDatabase, which keeps \
                 the log entries that are pending; reopen({ create: true }) makes a new file",
            )
            .at(path)),
            Err(error) => Err(Error::sqlite(
                ffi::SQLITE_IOERR_FSTAT,
                format!("it is unknown whether the path still leads to the file: {error}"),
            )
            .at(path)),
        }
    }
}

/// What [`FileId::check_presence`] says of a file in whose place another one is.
pub fn replaced(path: &Path) -> Error {
    Error::fusion(
        "ERR_FUSION_REPLACED",
        "another file was put in the database's place while it was open (by a restore, a git \
         checkout or a sync tool), and the -wal of the old one may still be at its path. Nothing \
         more is written. reopen() of the HardenedDatabase opens the new file, puts such a -wal \
         aside and keeps the log entries that are pending",
    )
    .at(path)
}

/// How many names the file has.
///
/// # Errors
/// Those of `stat`.
pub fn hard_links(path: &Path) -> io::Result<u64> {
    Ok(stat(path)?.1)
}

/// That the file has one name. A file that is not there has no other.
///
/// # Errors
/// `ERR_FUSION_HARD_LINKS`, `ERR_FUSION_FILE_MOUNT`.
pub(super) fn check_one_name(path: &Path) -> Result<()> {
    if is_mount_root(path) {
        return Err(Error::fusion(
            "ERR_FUSION_FILE_MOUNT",
            "the database is a file that is mounted as such (docker -v a.db:/data/a.db, mount \
             --bind). SQLite keeps the -wal in the folder of the path, so that processes on the \
             two sides of the mount use different WALs and corrupt it. Mount the folder that the \
             database is in. To open it all the same, because all processes use this path, allow \
             hard links in the profile",
        )
        .at(path));
    }
    match hard_links(path) {
        Ok(links) if links > 1 => Err(Error::fusion(
            "ERR_FUSION_HARD_LINKS",
            format!(
                "the database file has {links} names (hard links). SQLite names the -wal after \
                 the path, so processes that open it by different names use different WALs and \
                 corrupt it. Remove the other names (find -samefile lists them) or use symbolic \
                 links, which SQLite resolves. To open it all the same, allow hard links in the \
                 profile"
            ),
        )
        .at(path)),
        _ => Ok(()),
    }
}

/// Identity and number of names.
#[cfg(unix)]
fn stat(path: &Path) -> io::Result<(FileId, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path)?;
    let id = FileId { device: metadata.dev(), inode: metadata.ino(), upper: 0 };
    Ok((id, metadata.nlink()))
}

/// Identity and number of names.
#[cfg(windows)]
fn stat(path: &Path) -> io::Result<(FileId, u64)> {
    use std::mem::MaybeUninit;
    use std::os::windows::fs::OpenOptionsExt;
    use std::os::windows::io::{AsRawHandle, RawHandle};

    /// `BY_HANDLE_FILE_INFORMATION`; a `FILETIME` is two 32-bit words.
    #[repr(C)]
    struct Information {
        attributes: u32,
        times: [u32; 6],
        volume: u32,
        size: [u32; 2],
        links: u32,
        index_high: u32,
        index_low: u32,
    }
    /// `FILE_ID_INFO`; the number is 16 bytes, the lowest first.
    #[repr(C)]
    struct Wide {
        volume: u64,
        id: [u8; 16],
    }
    /// `FileIdInfo` of `FILE_INFO_BY_HANDLE_CLASS`.
    const FILE_ID_INFO: i32 = 18;
    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetFileInformationByHandleEx(
            file: RawHandle,
            class: i32,
            information: *mut Wide,
            size: u32,
        ) -> i32;
        fn GetFileInformationByHandle(file: RawHandle, information: *mut Information) -> i32;
    }
    const SHARE_EVERYTHING: u32 = 7;
    const BACKUP_SEMANTICS: u32 = 0x0200_0000; // without it a directory cannot be looked at

    let file = std::fs::OpenOptions::new()
        .access_mode(0)
        .share_mode(SHARE_EVERYTHING)
        .custom_flags(BACKUP_SEMANTICS)
        .open(path)?;
    let mut information = MaybeUninit::<Information>::uninit();
    // SAFETY: the handle is open; the function fills the whole structure when it succeeds, and
    // only then is it read.
    let information = unsafe {
        if GetFileInformationByHandle(file.as_raw_handle(), information.as_mut_ptr()) == 0 {
            return Err(io::Error::last_os_error());
        }
        information.assume_init()
    };
    let mut wide = MaybeUninit::<Wide>::uninit();
    // SAFETY: the handle is open; the function fills the whole structure, whose size it is given,
    // when it succeeds, and only then is it read.
    let wide = unsafe {
        let size = size_of::<Wide>() as u32;
        let file = file.as_raw_handle();
        (GetFileInformationByHandleEx(file, FILE_ID_INFO, wide.as_mut_ptr(), size) != 0)
            .then(|| wide.assume_init())
    };
    let index = u64::from(information.index_high) << 32 | u64::from(information.index_low);
    let id = windows_id(wide.map(|it| (it.volume, it.id)), information.volume, index);
    Ok((id, u64::from(information.links)))
}

/// Identity on Windows: by volume and number of 128 bits, which is the file's own on ReFS, too; by
/// the 32 bits of the volume and the 64 bits of the file index where the file system has no such
/// number (FAT, some network drives), or says that it does not know the file's.
#[cfg(any(windows, test))]
fn windows_id(wide: Option<(u64, [u8; 16])>, volume: u32, index: u64) -> FileId {
    let known = wide.filter(|(_, id)| *id != [0; 16] && *id != [0xFF; 16]);
    match known {
        Some((device, id)) => {
            let number = u128::from_le_bytes(id);
            FileId { device, inode: number as u64, upper: (number >> 64) as u64 }
        }
        None => FileId { device: u64::from(volume), inode: index, upper: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_windows_file_is_identified_by_all_of_its_number() {
        let number = |first, last| {
            let mut id = [0; 16];
            (id[0], id[15]) = (first, last);
            id
        };
        let of = |id| windows_id(Some((1 << 40, id)), 7, 9);
        assert_eq!(of(number(3, 0)), FileId { device: 1 << 40, inode: 3, upper: 0 });
        // Two files of ReFS whose numbers end alike.
        assert_ne!(of(number(3, 1)), of(number(3, 2)));
        assert_eq!(of(number(3, 1)), FileId { device: 1 << 40, inode: 3, upper: 1 << 56 });
        let narrow = FileId { device: 7, inode: 9, upper: 0 };
        for unknown in [None, Some((5, [0; 16])), Some((5, [0xFF; 16]))] {
            assert_eq!(windows_id(unknown, 7, 9), narrow);
        }
    }
}
