//! Mode and owner of the files that this package makes next to a database: the database's, as
//! SQLite gives them to a -wal and a -journal (`findCreateFileMode` in `os_unix.c`).
//!
//! A new file is made in a folder that only this user may enter, gets both there, and is renamed
//! into place: at no moment may more users read it than may read the database. Any thread.

use std::fs::File;
use std::io;
use std::path::Path;

/// Gives `file` the mode of `database`, at least reading and writing for its owner, and the owner
/// and group where this process may do that (root may). A `database` that is not there leaves
/// `file` to this user alone.
///
/// # Errors
/// The system's, of the mode.
pub fn give_access_of(database: &Path, file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        const OWNER: u32 = 0o600;
        let Ok(model) = std::fs::metadata(database) else {
            return file.set_permissions(std::fs::Permissions::from_mode(OWNER));
        };
        let made = file.metadata()?;
        let (user, group) = (model.uid(), model.gid());
        let mut mode = model.mode() & 0o777 | OWNER;
        if (made.uid(), made.gid()) != (user, group)
            && fchown(file, Some(user), Some(group)).is_err()
            // The group alone, which its members may give.
            && fchown(file, None, Some(group)).is_err()
        {
            // What the database's group may do, this file's other group may not.
            mode &= !0o070;
        }
        file.set_permissions(std::fs::Permissions::from_mode(mode))
    }
    #[cfg(not(unix))]
    {
        // A file takes the access list of its folder, which is the database's own.
        let _ = (database, file);
        Ok(())
    }
}

/// As [`give_access_of`], of the file at `path`.
///
/// # Errors
/// The system's.
pub fn give_access_to(path: &Path, database: &Path) -> io::Result<()> {
    give_access_of(database, &File::open(path)?)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use super::*;

    #[test]
    fn a_file_gets_the_mode_and_for_root_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("x.db");
        std::fs::write(&database, "").unwrap();
        let is_root = chown(&database, Some(65_534), Some(65_534)).is_ok();
        for mode in [0o600, 0o640, 0o644, 0o660, 0o400] {
            std::fs::set_permissions(&database, std::fs::Permissions::from_mode(mode)).unwrap();
            let path = folder.path().join(format!("{mode:o}"));
            let file = File::create(&path).unwrap();
            give_access_of(&database, &file).unwrap();
            let made = std::fs::metadata(&path).unwrap();
            assert_eq!(made.mode() & 0o7777, mode | 0o600, "{mode:o}");
            assert_eq!(made.uid(), if is_root { 65_534 } else { made.uid() });
        }
    }

    #[test]
    fn without_a_database_a_file_is_the_users_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("x")).unwrap();
        give_access_of(&folder.path().join("no"), &file).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    }
}
