//! The database files that this process has open: one [`DatabaseFile`] per (device, inode),
//! whatever path, symbolic link, hard link or thread it was opened through.
//!
//! Any thread. The registry holds weak references: a file is forgotten with its last connection.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::file_id::replaced;
use super::generation::ConnectionSet;
use super::shm_recovery::Recovery;
use super::wal::Wal;
use super::{FileId, Result, WriteGate};

/// What the connections of this process to one database file share.
#[derive(Debug)]
pub struct DatabaseFile {
    /// The file's identity. While a connection has the file open the system cannot give its
    /// inode to another file, so the identity is unambiguous.
    pub id: FileId,
    /// See [`Self::made`].
    made: Mutex<Option<SystemTime>>,
    /// The path through which it was first opened, as SQLite resolved it.
    pub path: PathBuf,
    /// The order in which this process's connections write.
    pub turn: WriteGate,
    /// What this process's commits have put into the WAL.
    pub wal: Wal,
    /// Its connections, and which of them have to be reopened.
    pub connection_set: ConnectionSet,
    /// Recoveries from a stale `-shm` or `-wal`.
    pub recovery: Recovery,
    /// See [`Self::suspect`].
    suspect: AtomicBool,
    /// See [`Self::corruption_seen`].
    corruption_seen: AtomicBool,
    /// Connections that have the file open and are not about to close it. While one exists the
    /// system cannot give the inode to another file.
    pub(super) connections: AtomicUsize,
}

static OPEN: Mutex<Option<HashMap<FileId, Weak<DatabaseFile>>>> = Mutex::new(None);

impl DatabaseFile {
    /// Stands in for the file of a database that has none. Not registered.
    pub fn in_memory() -> Arc<Self> {
        Self::new(FileId { device: 0, inode: 0, upper: 0 }, Path::new(":memory:"))
    }

    fn new(id: FileId, path: &Path) -> Arc<Self> {
        Arc::new(Self {
            id,
            made: Mutex::default(),
            path: path.to_path_buf(),
            turn: WriteGate::default(),
            wal: Wal::default(),
            connection_set: ConnectionSet::default(),
            recovery: Recovery::default(),
            suspect: AtomicBool::default(),
            corruption_seen: AtomicBool::default(),
            connections: AtomicUsize::default(),
        })
    }

    /// The shared state of the file `id`, made if no connection of this process has it open.
    pub fn shared(id: FileId, path: &Path) -> Arc<Self> {
        let mut open = OPEN.lock();
        let files = open.get_or_insert_with(HashMap::new);
        // The map may still have the state of a closed and deleted file whose inode this file now
        // has.
        if let Some(file) = files.get(&id).and_then(Weak::upgrade)
            && file.has_its_inode()
        {
            return file;
        }
        // Only when the map is full, so that not every open scans it.
        if files.len() == files.capacity() {
            files.retain(|_, file| file.strong_count() > 0);
        }
        let file = Self::new(id, path);
        files.insert(id, Arc::downgrade(&file));
        file
    }

    /// The file `id`, if this process has it open, or a log of it.
    pub fn opened(id: FileId) -> Option<Arc<Self>> {
        let open = OPEN.lock();
        open.as_ref()?.get(&id)?.upgrade().filter(|file| file.has_its_inode())
    }

    /// Whether the system cannot have given the inode to another file.
    fn has_its_inode(&self) -> bool {
        self.connections.load(Ordering::Acquire) > 0
            || FileId::of(&self.path).is_ok_and(|now| now == self.id)
                && self.made().is_none_or(|then| made(&self.path) == Some(then))
    }

    /// The file's creation time when a connection last opened it; `None` where the file system does
    /// not record it. A later file that reuses the inode, even under the same name, has a later
    /// creation time.
    pub(super) fn made(&self) -> Option<SystemTime> {
        *self.made.lock()
    }

    /// A connection has opened the file, at its path.
    pub(super) fn is_opened(&self) {
        *self.made.lock() = made(&self.path);
        self.connections.fetch_add(1, Ordering::AcqRel);
    }

    /// The files that connections of this process opened by `path`, as SQLite resolved it, and
    /// have open: several if the path led elsewhere in between.
    pub fn open_by(path: &Path) -> Vec<Arc<Self>> {
        let open = OPEN.lock();
        let files = open.iter().flat_map(HashMap::values).filter_map(Weak::upgrade);
        files.filter(|file| file.path == path).collect()
    }

    /// Marks the file as unverified: a connection of this process found it damaged
    /// (`SQLITE_CORRUPT`, `SQLITE_NOTADB`), or recovered a WAL that an earlier process left. A
    /// checkpoint would make damage permanent, so the checkpointer verifies the file first. Wakes
    /// it.
    pub fn suspect(&self) {
        if !self.suspect.swap(true, Ordering::AcqRel) {
            self.wal.wake();
        }
    }

    /// Marks the file as unverified again, without waking the checkpointer, which tries again
    /// later.
    pub fn rearm(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    /// A connection of this process met damage: marks the file as unverified, and wakes the
    /// checkpointer to check it soon.
    pub fn corruption_seen(&self) {
        self.suspect();
        self.index_corruption_seen();
    }

    /// The same for a virtual table's index, which does not make the file unverified.
    pub fn index_corruption_seen(&self) {
        if !self.corruption_seen.swap(true, Ordering::AcqRel) {
            self.wal.wake();
        }
    }

    /// Whether damage was met since the last call.
    pub fn take_corruption_seen(&self) -> bool {
        self.corruption_seen.swap(false, Ordering::AcqRel)
    }

    /// Whether the file is unverified. Clears the mark: the caller now has to verify the file.
    pub fn take_unverified(&self) -> bool {
        self.suspect.swap(false, Ordering::AcqRel)
    }

    /// Whether this process has one connection to the file.
    pub fn has_one_connection(&self) -> bool {
        self.connections.load(Ordering::Acquire) == 1
    }

    /// Whether the file is unverified. Leaves the mark.
    pub fn is_unverified(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// Checks that [`Self::path`] still leads to this file. One `stat`, and a second one while no
    /// connection has the file open.
    ///
    /// # Errors
    /// As [`FileId::check_presence`].
    pub fn check_identity(&self) -> Result<()> {
        self.id.check_presence(&self.path)?;
        if self.has_its_inode() { Ok(()) } else { Err(replaced(&self.path)) }
    }
}

fn made(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.created().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_deleted_file_is_not_its_successors() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        std::fs::write(&old, b"").unwrap();
        let id = FileId::of(&old).unwrap();
        let left = DatabaseFile::shared(id, &old);
        assert!(Arc::ptr_eq(&left, &DatabaseFile::shared(id, &old)));
        // The system gave the inode to another file.
        std::fs::rename(&old, &new).unwrap();
        assert!(!Arc::ptr_eq(&left, &DatabaseFile::shared(id, &new)));
    }

    #[test]
    fn a_file_that_was_made_later_is_another_one_whatever_its_inode() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("file"), folder.path().join("clock"));
        std::fs::write(&path, b"").unwrap();
        let id = FileId::of(&path).unwrap();
        let file = DatabaseFile::shared(id, &path);
        file.is_opened();
        file.connections.fetch_sub(1, Ordering::AcqRel);
        file.check_identity().unwrap();
        assert!(Arc::ptr_eq(&file, &DatabaseFile::shared(id, &path)));
        if file.made().is_none() {
            return;
        }
        // The clock of a file system is coarse.
        loop {
            std::fs::write(&clock, b"").unwrap();
            if made(&clock) != file.made() {
                break;
            }
            std::fs::remove_file(&clock).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
        assert!(DatabaseFile::opened(id).is_none());
        // ext4 gives the same inode at once.
        std::fs::write(&path, b"").unwrap();
        assert_eq!(file.check_identity().unwrap_err().code, "ERR_FUSION_REPLACED");
        let next = FileId::of(&path).unwrap();
        assert!(!Arc::ptr_eq(&file, &DatabaseFile::shared(next, &path)));
    }

    #[test]
    fn a_file_that_is_renamed_while_it_is_open_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        std::fs::write(&old, b"").unwrap();
        let id = FileId::of(&old).unwrap();
        let file = DatabaseFile::shared(id, &old);
        file.connections.fetch_add(1, Ordering::AcqRel);
        std::fs::rename(&old, &new).unwrap();
        assert!(Arc::ptr_eq(&file, &DatabaseFile::shared(id, &new)));
    }
}
