//! The `-wal` and `-shm` files that a copy of SQLite has open, by database.
//!
//! A process maps a database's `-shm` once, and each connection opens the `-wal` by its path at its
//! first read. If the files were deleted or replaced in between, the connection gets a WAL that the
//! mapped index does not describe: it would read frames that are not there, and commit to a WAL that
//! no other process reads. So an open of a `-wal` fails ([`OpenSidecars::allows`]) unless
//!
//! 1. the `-shm` at the path is the one that this copy has open, if it has one open, and
//! 2. the `-wal` at the path is the one that this copy has open, if it has one open.
//!
//! Files are compared by `fstat` of the open descriptor and `stat` of the path. A database file that
//! was replaced is another database. Called by the hooks ([`super::hooks`]); any thread.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::ofd_locks::{self, Inode};

const WAL: &[u8] = b"-wal";
const SHM: &[u8] = b"-shm";

/// A descriptor of a sidecar file.
#[derive(Debug)]
struct Sidecar {
    fd: RawFd,
    /// The database file at the path when the sidecar was opened.
    database: Inode,
}

impl Sidecar {
    /// Whether its file is the one at `path`.
    fn is_at(&self, path: &[u8]) -> bool {
        ofd_locks::inode(self.fd).ok() == at(path)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct OpenSidecars {
    /// By the path of the sidecar, as SQLite opens it.
    by_path: BTreeMap<Box<[u8]>, Vec<Sidecar>>,
    paths: BTreeMap<RawFd, Box<[u8]>>,
}

impl OpenSidecars {
    pub(super) const fn new() -> Self {
        Self { by_path: BTreeMap::new(), paths: BTreeMap::new() }
    }

    /// Records `fd`, opened at `path`, if it is a sidecar file.
    pub(super) fn opened(&mut self, path: &CStr, fd: RawFd) {
        let path = path.to_bytes();
        let Some(database) = database_of(path).and_then(at) else { return };
        self.by_path.entry(path.into()).or_default().push(Sidecar { fd, database });
        self.paths.insert(fd, path.into());
    }

    /// Forgets `fd`, which is closed.
    pub(super) fn closed(&mut self, fd: RawFd) {
        let Some(path) = self.paths.remove(&fd) else { return };
        if let Some(open) = self.by_path.get_mut(&path) {
            open.retain(|sidecar| sidecar.fd != fd);
            if open.is_empty() {
                self.by_path.remove(&path);
            }
        }
    }

    /// Whether SQLite may open `path`. Only a `-wal` is ever refused.
    pub(super) fn allows(&self, path: &CStr) -> bool {
        let wal = path.to_bytes();
        let Some(name) = wal.strip_suffix(WAL) else { return true };
        let shm = [name, SHM].concat();
        if !self.by_path.contains_key(wal) && !self.by_path.contains_key(shm.as_slice()) {
            return true;
        }
        let Some(database) = at(name) else { return true };
        [wal, &shm].into_iter().all(|path| {
            let open = self.by_path.get(path).into_iter().flatten();
            open.filter(|it| it.database == database).all(|it| it.is_at(path))
        })
    }

    /// Whether a `-shm` of `database` is open that is not at its path.
    pub(super) fn has_stale_index(&self, database: Inode) -> bool {
        let shm = self.by_path.iter().filter(|(path, _)| path.ends_with(SHM));
        shm.flat_map(|(path, open)| open.iter().map(move |it| (path, it)))
            .any(|(path, it)| it.database == database && !it.is_at(path))
    }
}

/// The name of the database whose sidecar file has the name `path`.
fn database_of(path: &[u8]) -> Option<&[u8]> {
    path.strip_suffix(WAL).or_else(|| path.strip_suffix(SHM))
}

/// The file at `path`, if there is one.
fn at(path: &[u8]) -> Option<Inode> {
    let found = std::fs::metadata(OsStr::from_bytes(path)).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_wal_that_the_open_index_does_not_describe_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |ending: &str| folder.path().join(format!("a.db{ending}"));
        let name = |ending: &str| CString::new(path(ending).as_os_str().as_bytes()).unwrap();
        let make = |ending: &str| File::create(path(ending)).unwrap();
        let mut sidecars = OpenSidecars::new();
        make("");
        assert!(sidecars.allows(&name("-wal")));
        let (wal, shm) = (make("-wal"), make("-shm"));
        sidecars.opened(&name("-wal"), wal.as_raw_fd());
        sidecars.opened(&name("-shm"), shm.as_raw_fd());
        assert!(sidecars.allows(&name("-wal")));
        let database = at(path("").as_os_str().as_bytes()).unwrap();
        assert!(!sidecars.has_stale_index(database));

        // Each deleted, and each replaced.
        for ending in ["-wal", "-shm"] {
            fs::rename(path(ending), path(".away")).unwrap();
            assert!(!sidecars.allows(&name("-wal")), "{ending}");
            assert_eq!(sidecars.has_stale_index(database), ending == "-shm");
            let _other = make(ending);
            assert!(!sidecars.allows(&name("-wal")), "{ending}");
            fs::rename(path(".away"), path(ending)).unwrap();
            assert!(sidecars.allows(&name("-wal")), "{ending}");
        }

        // Another database at the path has files of its own.
        fs::rename(path(""), path(".old")).unwrap();
        make("");
        fs::remove_file(path("-wal")).unwrap();
        assert!(sidecars.allows(&name("-wal")));
        fs::rename(path(".old"), path("")).unwrap();
        assert!(!sidecars.allows(&name("-wal")));

        sidecars.closed(wal.as_raw_fd());
        sidecars.closed(shm.as_raw_fd());
        assert!(sidecars.allows(&name("-wal")) && !sidecars.has_stale_index(database));
    }
}
