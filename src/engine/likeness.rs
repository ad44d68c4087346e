//! Permissions of the files that this package makes next to a database or from it. All of them are
//! made here, with the database's mode and, as far as this process may change them, its owner and
//! group.
//!
//! At no moment may more users read a new file than the database: it is made for this process's
//! user alone, then gets its owner and group, and only then the mode. If the group cannot be set,
//! the group's members get the permissions of other users. The owner may always read and write it.
//! On Windows new files inherit the folder's access control list. Any thread.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Mode and owner of a database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Likeness {
    /// Permission bits, user and group; none: for this process's user alone.
    #[cfg(unix)]
    of: Option<(u32, u32, u32)>,
}

impl Likeness {
    /// The permissions and the owner of the file at `database`. Without that file: those of a
    /// private file.
    pub fn of(database: &Path) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let metadata = std::fs::metadata(database).ok().filter(std::fs::Metadata::is_file);
            Self { of: metadata.map(|it| (it.mode() & 0o777, it.uid(), it.gid())) }
        }
        #[cfg(not(unix))]
        {
            let _ = database;
            Self {}
        }
    }

    /// That of a file for this process's user alone.
    pub const fn private() -> Self {
        #[cfg(unix)]
        return Self { of: None };
        #[cfg(not(unix))]
        return Self {};
    }

    /// Makes the file at `path`, which must not be there, open for reading and writing.
    ///
    /// # Errors
    /// The system's.
    pub fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        self.give(&file);
        Ok(file)
    }

    /// Makes the folder at `path`, in which only the owner may look.
    ///
    /// # Errors
    /// The system's.
    pub fn create_folder(&self, path: &Path) -> io::Result<()> {
        #[cfg_attr(not(unix), expect(unused_mut, reason = "only unix has a mode to be set"))]
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)?;
        #[cfg(unix)]
        if let Some((_, user, group)) = self.of {
            use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
            let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let folder = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
            if folder.metadata().is_ok_and(|it| (it.uid(), it.gid()) != (user, group)) {
                // Without the right to it, it stays this process's.
                drop(fchown(&folder, Some(user), Some(group)));
            }
        }
        Ok(())
    }

    /// Gives `file`, which only its owner may read yet, the owner and the mode.
    pub fn give(&self, file: &File) {
        #[cfg(unix)]
        if let Some((mode, user, group)) = self.of {
            use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
            let owner = || file.metadata().map(|it| (it.uid(), it.gid()));
            if owner().is_ok_and(|it| it != (user, group))
                && fchown(file, Some(user), Some(group)).is_err()
            {
                drop(fchown(file, None, Some(group)));
            }
            let is_of_group = owner().is_ok_and(|(_, now)| now == group);
            let others = (mode >> 3) & mode & 0o7;
            let mode = if is_of_group { mode } else { mode & !0o070 | others << 3 };
            // A file system without modes has nothing to set.
            drop(file.set_permissions(std::fs::Permissions::from_mode(mode | 0o600)));
        }
        #[cfg(not(unix))]
        let _ = file;
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use super::*;

    #[test]
    fn a_new_file_has_the_mode_and_for_root_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("x.db");
        std::fs::write(&database, "").unwrap();
        // SAFETY: asks for a number.
        let is_root = unsafe { libc::geteuid() } == 0;
        if is_root {
            chown(&database, Some(65_534), Some(65_533)).unwrap();
        }
        for (number, mode) in [0o600, 0o640, 0o644, 0o660, 0o666, 0o400].into_iter().enumerate() {
            std::fs::set_permissions(&database, PermissionsExt::from_mode(mode)).unwrap();
            let path = folder.path().join(number.to_string());
            let file = Likeness::of(&database).create(&path).unwrap();
            let (made, like) = (file.metadata().unwrap(), database.metadata().unwrap());
            assert_eq!(made.mode() & 0o7777, mode | 0o600);
            assert_eq!((made.uid(), made.gid()), (like.uid(), like.gid()));
            assert!(Likeness::of(&database).create(&path).is_err(), "nothing is overwritten");
        }
        let path = folder.path().join("private");
        let file = Likeness::of(&folder.path().join("none")).create(&path).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
    }
}
