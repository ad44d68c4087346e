//! When a backup that is made by itself is due: one schedule a file for the whole process.
//!
//! Whoever has a schedule asks [`Due::ask`] now and then. A backup is due when the newest one, by
//! whichever process, is older than the interval and something was committed since. Commits are
//! counted by SQLite itself, for all processes, in the WAL's index ([`LiveFile::commits`]); where
//! this process has made no backup yet, or there is no WAL, the files' times of change tell.
//!
//! Any thread. What is remembered of a file is forgotten with its last connection.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use crate::engine::{DatabaseFile, FileId, LiveFile, Result, Task, Wal};

/// What is remembered of a file.
#[derive(Debug)]
struct Memory {
    file: Weak<DatabaseFile>,
    /// A backup is being made.
    running: bool,
    /// [`LiveFile::commits`] before the last backup was begun.
    commits: Option<u32>,
}

static MEMORIES: Mutex<Vec<Memory>> = Mutex::new(Vec::new());

fn memories() -> MutexGuard<'static, Vec<Memory>> {
    let mut memories = MEMORIES.lock().unwrap_or_else(PoisonError::into_inner);
    memories.retain(|memory| memory.file.strong_count() > 0);
    memories
}

/// What there is to do.
#[derive(Debug)]
pub enum Due {
    /// A backup. Nobody else of this process makes one until this is dropped.
    Now(Claim),
    /// Nothing, for so long.
    In(Duration),
}

/// The right to make the next backup of a file.
#[derive(Debug)]
pub struct Claim {
    file: Arc<DatabaseFile>,
    commits: Option<u32>,
}

impl Due {
    /// Whether a backup of `database` to `target` is due, where one is wanted each `interval`.
    ///
    /// # Errors
    /// Those of opening the database (`SQLITE_CANTOPEN`, `SQLITE_BUSY`); `task`'s.
    pub fn ask(
        database: &Path,
        target: &Path,
        interval: Duration,
        task: &dyn Task,
    ) -> Result<Self> {
        let made = changed(target);
        // A time in the future is no time at all: clocks are set.
        let age = made.and_then(|made| SystemTime::now().duration_since(made).ok());
        if let Some(left) = age.and_then(|age| interval.checked_sub(age))
            && !left.is_zero()
        {
            return Ok(Self::In(left));
        }
        let live = LiveFile::open(database, Instant::now() + interval, task)?;
        let Some(file) = FileId::of(live.path()).ok().and_then(DatabaseFile::opened) else {
            return Ok(Self::In(interval));
        };
        // Before the copy: what is committed meanwhile counts as not copied.
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
            memories.push(Memory { file, running: true, commits: None });
        }
        drop(memories);
        Ok(Self::Now(Claim { file, commits }))
    }
}

impl Claim {
    /// The backup is made.
    pub fn made(mut self) {
        let commits = self.commits.take();
        with_memory(self.file.id, |memory| memory.commits = commits);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        with_memory(self.file.id, |memory| memory.running = false);
    }
}

fn with_memory(id: FileId, change: impl FnOnce(&mut Memory)) {
    let mut memories = memories();
    let found = memories
        .iter_mut()
        .find(|memory| memory.file.upgrade().is_some_and(|known| known.id == id));
    if let Some(memory) = found {
        change(memory);
    }
}

/// When the file was last written to; none if it is not there.
fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
