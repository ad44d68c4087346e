//! Files that are unchanged since a check found them sound, so that the next process need
//! not check them.
//!
//! The change counter in the header does not detect every change: in WAL mode it may stay while the
//! file changes (<https://sqlite.org/fileformat2.html>, 1.3.7), and a program that overwrites a
//! page does not increase it. The inode's time of change (`ctime`) does: every write through the
//! file system sets it, changing the other times sets it, and no call sets it back. So a file is
//! unchanged if it has the same inode, size and times, to the nanosecond, and an empty or no WAL
//! and journal.
//!
//! The times are reliable only
//! * on Linux, on a file system whose times this machine's kernel sets ([`CERTAIN`]);
//! * once the last change is older than their resolution ([`GRAIN`]): two changes within it may
//!   have the same time;
//! * until the next boot: after a loss of power a file can have the times of a write whose data
//!   never reached the disk.
//!
//! Three kinds of change are not detected: bits that flip below the file system, writes directly to
//! the device, and changes by a program that has the file mapped, until the kernel writes the page
//! out. Therefore a note is valid for [`LONGEST`] at most.
//!
//! `stat` and `/proc` only. Any thread.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::file_check::size;
use crate::engine::{FileId, FileSystem, Wal, beside};

/// File systems whose times are reliable.
const CERTAIN: &[&str] = &["ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay"];

/// Two changes of a file that are this far apart have different times. ext3 stores seconds.
const GRAIN: Duration = Duration::from_secs(2);

/// How long a note is valid.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What `stat` reports of a file that has no WAL and no journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
    /// The system's boot id.
    boot: String,
}

/// The note that a check found a file sound, with the state of the file. It is stored in the
/// `-schema` file next to the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When it was checked, in milliseconds since 1970-01-01 UTC.
    at_ms: u64,
    file: State,
}

/// The newest note about each file that this process has checked.
static NOTES: Mutex<Option<HashMap<FileId, Note>>> = Mutex::new(None);

fn notes<R>(body: impl FnOnce(&mut HashMap<FileId, Note>) -> R) -> R {
    let mut notes = NOTES.lock().unwrap_or_else(PoisonError::into_inner);
    body(notes.get_or_insert_with(HashMap::new))
}

impl Note {
    /// Whether the file at `path` is unchanged, and the check is less than [`LONGEST`] ago.
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

    /// The check of the file `id` at `path` has ended: stores a note if the file is sound and did
    /// not change during the check, else removes its note.
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
    /// `None` if the file has a WAL or a journal, or if its times are not reliable.
    fn of(path: &Path) -> Option<Self> {
        if size(&Wal::path(path)) > 0 || size(&beside(path, "-journal")) > 0 {
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
