//! Decides when an automatic backup is due: one schedule a file for the whole process.
//!
//! A connection with automatic backups calls [`BackupDue::ask`] now and then. A backup is due when the
//! newest one, of any process, is older than the interval, and a transaction was committed since.
//! SQLite counts the commits of all processes in the wal-index ([`SqliteFile::commits`]). If this
//! process has made no backup yet, or there is no WAL, the modification times of the files decide.
//!
//! Any thread. The state of a file is dropped with its last connection.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use crate::engine::{DatabaseFile, FileId, Progress, Result, SqliteFile, Wal};

/// The state of a file's schedule.
#[derive(Debug)]
struct BackupMemory {
    file: Weak<DatabaseFile>,
    /// A backup is being made.
    running: bool,
    /// [`SqliteFile::commits`] before the last backup was begun.
    commits: Option<u32>,
}

static MEMORIES: Mutex<Vec<BackupMemory>> = Mutex::new(Vec::new());

fn memories() -> MutexGuard<'static, Vec<BackupMemory>> {
    let mut memories = MEMORIES.lock();
    memories.retain(|memory| memory.file.strong_count() > 0);
    memories
}

/// The answer of [`BackupDue::ask`].
#[derive(Debug)]
pub enum BackupDue {
    /// A backup is due. No other thread of this process makes one until the claim is dropped.
    Now(BackupClaim),
    /// No backup is due before this time has passed.
    In(Duration),
}

/// The right to make the next backup of a file.
#[derive(Debug)]
pub struct BackupClaim {
    file: Arc<DatabaseFile>,
    commits: Option<u32>,
}

impl BackupDue {
    /// Whether a backup of `database` to `target` is due, with one backup each `interval`.
    ///
    /// # Errors
    /// Those of opening the database (`SQLITE_CANTOPEN`, `SQLITE_BUSY`); `task`'s.
    pub fn ask(
        database: &Path,
        target: &Path,
        interval: Duration,
        task: &dyn Progress,
    ) -> Result<Self> {
        let made = changed(target);
        // A modification time in the future is ignored: the clock was set back.
        let age = made.and_then(|made| SystemTime::now().duration_since(made).ok());
        if let Some(left) = age.and_then(|age| interval.checked_sub(age))
            && !left.is_zero()
        {
            return Ok(Self::In(left));
        }
        let live = SqliteFile::open(database, Instant::now() + interval, task)?;
        let Some(file) = FileId::of(live.path()).ok().and_then(DatabaseFile::opened) else {
            return Ok(Self::In(interval));
        };
        // Read before the copy: a commit during the copy counts as not copied.
        let commits = live.commits()?;
        // With a rollback journal every commit is written to the file.
        let latest = changed(database).max(changed(&Wal::path(database)));
        let is_older = made.is_some() && latest < made;
        let mut memories = memories();
        let id = file.id;
        let found = memories
            .iter_mut()
            .find(|memory| memory.file.upgrade().is_some_and(|known| known.id == id));
        if let Some(memory) = found {
            let unchanged = match commits {
                Some(_) => memory.commits == commits && made.is_some(),
                None => is_older,
            };
            if memory.running || unchanged {
                return Ok(Self::In(interval));
            }
            memory.running = true;
        } else {
            if is_older {
                return Ok(Self::In(interval));
            }
            let file = Arc::downgrade(&file);
            memories.push(BackupMemory { file, running: true, commits: None });
        }
        drop(memories);
        Ok(Self::Now(BackupClaim { file, commits }))
    }
}

impl BackupClaim {
    /// Records that the backup was made.
    pub fn made(mut self) {
        let commits = self.commits.take();
        with_memory(self.file.id, |memory| memory.commits = commits);
    }
}

impl Drop for BackupClaim {
    fn drop(&mut self) {
        with_memory(self.file.id, |memory| memory.running = false);
    }
}

fn with_memory(id: FileId, change: impl FnOnce(&mut BackupMemory)) {
    let mut memories = memories();
    let found = memories
        .iter_mut()
        .find(|memory| memory.file.upgrade().is_some_and(|known| known.id == id));
    if let Some(memory) = found {
        change(memory);
    }
}

/// The file's modification time; `None` if the file does not exist.
fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
