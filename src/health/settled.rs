//! Detects files that are unchanged since a check found them sound, so that the next process does
//! not check them again.
//!
//! The change counter in the header does not show a change: in WAL mode it stays while the file
//! changes (<https://sqlite.org/fileformat2.html>, 1.3.7), and a program that overwrites a page
//! does not increment it. The inode's change time (`ctime`) does: every write through the file
//! system sets it, as does a call that sets other times or renames another file to the path. No
//! call sets it back. So a file is unchanged if it has the same inode, size and times, to the
//! nanosecond, and neither a non-empty WAL nor a non-empty journal.
//!
//! The times are reliable only
//! * on Linux, on a file system that this machine's kernel maintains ([`CERTAIN`]);
//! * if the last change is older than the resolution of the times ([`GRAIN`]): two changes within it
//!   have the same time;
//! * until the system restarts: after a power failure a file can have the times of a write whose
//!   data never reached the disk.
//!
//! Not detected: bits that change below the file system, writes to the device, and writes through a
//! memory map to a page that the kernel has not yet written out. Therefore a note is valid for at
//! most [`LONGEST`].
//!
//! `stat` and `/proc` only. Any thread.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::file_check::size;
use crate::engine::{FileId, FileSystem, Wal, sidecar_path};

/// File systems whose times are reliable.
const CERTAIN: &[&str] = &["ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay"];

/// Two changes of a file that lie this far apart have different times. ext3 counts seconds.
const GRAIN: Duration = Duration::from_secs(2);

/// How long a note is valid.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What `stat` reports of a file without a WAL and a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
    /// The kernel's boot id.
    boot: String,
}

/// Records that a check found a file sound, and the state of the file. Stored next to the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When it was checked, in milliseconds since 1970-01-01 UTC.
    at_ms: u64,
    file: State,
}

/// The newest note about each file that this process has checked.
static NOTES: Mutex<Option<HashMap<FileId, Note>>> = Mutex::new(None);

fn notes<R>(body: impl FnOnce(&mut HashMap<FileId, Note>) -> R) -> R {
    let mut notes = NOTES.lock();
    body(notes.get_or_insert_with(HashMap::new))
}

impl Note {
    /// Whether the file at `path` is unchanged, and the check is younger than [`LONGEST`].
    #[must_use]
    pub fn holds(&self, path: &Path) -> bool {
        let age = now_ms().checked_sub(self.at_ms);
        age.is_some_and(|age| u128::from(age) < LONGEST.as_millis())
            && State::of(path).as_ref() == Some(&self.file)
    }
}

/// The state of a file before its check.
pub(super) struct Before(Option<State>);

impl Before {
    pub fn of(path: &Path) -> Self {
        Self(State::of(path))
    }

    /// The check of the file `id` at `path` has ended.
    pub fn ended(self, id: FileId, path: &Path, is_sound: bool) {
        let unchanged = self.0.filter(|state| is_sound && State::of(path).as_ref() == Some(state));
        notes(|notes| match unchanged {
            Some(file) => notes.insert(id, Note { at_ms: now_ms(), file }),
            None => notes.remove(&id),
        });
    }
}

/// The note about the file at `path`, if this process has checked it and it is unchanged.
pub fn note(path: &Path) -> Option<Note> {
    let id = FileId::of(path).ok()?;
    notes(|notes| notes.get(&id).cloned()).filter(|note| note.holds(path))
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl State {
    /// `None` if there is a WAL or a journal, or if the times may not show a change.
    fn of(path: &Path) -> Option<Self> {
        if size(&Wal::path(path)) > 0 || size(&sidecar_path(path, "-journal")) > 0 {
            return None;
        }
        let state = Self::recorded(path)?;
        let seconds = u64::try_from(state.changed.0).ok()?;
        let nanoseconds = u32::try_from(state.changed.1).ok()?;
        let changed = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        let is_past = SystemTime::now().duration_since(changed).is_ok_and(|age| age >= GRAIN);
        let is_certain = FileSystem::of(path).is_ok_and(|it| CERTAIN.contains(&it.name.as_str()));
        (is_past && is_certain).then_some(state)
    }

    #[cfg(target_os = "linux")]
    fn recorded(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            boot: boot.trim().to_owned(),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn recorded(_: &Path) -> Option<Self> {
        None
    }
}
