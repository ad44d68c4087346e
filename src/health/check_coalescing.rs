//! Runs one check of a file at a time, and shares its result between callers.
//!
//! A check runs on a thread of its own. A caller joins a running check of the same file and of the
//! same or a more thorough kind. A cancelled caller ends only its own wait; a check without callers
//! is cancelled.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rusqlite::ffi;

use super::file_check;
use super::finding::{CheckKind, Health};
use crate::engine::{Error, FileId, Progress, Result, Stage};

/// How long a check waits for a locked file before it reports [`Finding::Locked`].
///
/// [`Finding::Locked`]: super::Finding::Locked
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a waiting caller's task gets the check's progress and may cancel the wait.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Running checks.
static UNDER_WAY: Mutex<Option<HashMap<FileId, Vec<Arc<Check>>>>> = Mutex::new(None);

struct Check {
    kind: CheckKind,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: u32,
    stage: Option<Stage>,
    answer: Option<Result<Health>>,
}

impl Check {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// The task of the check itself: it goes on while callers wait.
impl Progress for Check {
    fn stage(&self, stage: Stage) {
        self.lock().stage = Some(stage);
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.lock().waiting == 0 { Err(Error::cancelled()) } else { Ok(()) }
    }
}

/// Checks the database at `path` on a connection of its own. The findings distinguish damage, a WAL
/// of another file, a file that is not a database, and contention. Concurrent callers for the same
/// file share one check.
///
/// A file that is locked for longer than five seconds is reported as [`super::Finding::Locked`].
///
/// # Errors
/// `task`'s; `SQLITE_CANTOPEN` if there is no such file; `SQLITE_IOERR`, `SQLITE_NOMEM`,
/// `SQLITE_READONLY_ROLLBACK` if the check cannot be carried out; `ERR_FUSION_THREAD`.
pub fn check(path: &Path, kind: CheckKind, task: &dyn Progress) -> Result<Health> {
    check_within(path, kind, PATIENCE, task)
}

/// As [`check`], and waits for a locked file for at most `patience`. A check that the caller joins
/// keeps its own limit.
///
/// # Errors
/// As [`check`].
pub fn check_within(
    path: &Path,
    kind: CheckKind,
    patience: Duration,
    task: &dyn Progress,
) -> Result<Health> {
    task.check_cancelled()?;
    let cannot_open = |error: std::io::Error| Error::system(ffi::SQLITE_CANTOPEN, path, &error);
    let resolved = file_check::resolved(path).map_err(cannot_open)?;
    let id = FileId::of(&resolved).map_err(cannot_open)?;
    if resolved.is_dir() {
        return Err(cannot_open(std::io::ErrorKind::IsADirectory.into()));
    }
    let check = join(id, kind, patience, &resolved)?;
    let mut reported = None;
    let mut state = check.lock();
    loop {
        if let Some(answer) = state.answer.clone() {
            state.waiting -= 1;
            return answer;
        }
        let stage = state.stage;
        drop(state);
        if let Some(stage) = stage.filter(|stage| reported != Some(*stage)) {
            task.stage(stage);
            reported = Some(stage);
        }
        if let Err(error) = task.check_cancelled() {
            check.lock().waiting -= 1;
            return Err(error);
        }
        state = check.lock();
        if state.answer.is_none() {
            check.changed.wait_for(&mut state, ASK_EVERY);
        }
    }
}

/// Joins or starts a check, and counts the caller as waiting for it.
fn join(id: FileId, kind: CheckKind, patience: Duration, path: &Path) -> Result<Arc<Check>> {
    let mut under_way = UNDER_WAY.lock();
    let checks = under_way.get_or_insert_with(HashMap::new).entry(id).or_default();
    for check in checks.iter().filter(|check| check.kind >= kind) {
        let mut state = check.lock();
        // A check without callers is about to be cancelled.
        if state.waiting > 0 && state.answer.is_none() {
            state.waiting += 1;
            drop(state);
            return Ok(Arc::clone(check));
        }
    }
    let check = Arc::new(Check {
        kind,
        state: Mutex::new(State { waiting: 1, ..State::default() }),
        changed: Condvar::new(),
    });
    checks.push(Arc::clone(&check));
    drop(under_way);
    let (running, path) = (Arc::clone(&check), path.to_path_buf());
    let thread = std::thread::Builder::new().name("fusion-check".to_owned()).spawn(move || {
        let answer = catch_unwind(AssertUnwindSafe(|| {
            file_check::examine(&path, running.kind, patience, &*running)
        }))
        .unwrap_or_else(|_| {
            Err(Error::fusion(
                "ERR_FUSION_INTERNAL",
                "internal error in fusion-sqlite: a check panicked",
            ))
        });
        forget(id, &running);
        running.lock().answer = Some(answer);
        running.changed.notify_all();
    });
    if let Err(error) = thread {
        forget(id, &check);
        return Err(Error::fusion(
            "ERR_FUSION_THREAD",
            format!("the system gave no thread for a check: {error}"),
        ));
    }
    Ok(check)
}

fn forget(id: FileId, check: &Arc<Check>) {
    let mut under_way = UNDER_WAY.lock();
    if let Some(files) = under_way.as_mut()
        && let Some(checks) = files.get_mut(&id)
    {
        checks.retain(|other| !Arc::ptr_eq(other, check));
        if checks.is_empty() {
            files.remove(&id);
        }
    }
}

/// Waits until no check of the file at `path` is running, at most for `timeout`. The connection of
/// the check is then closed, and holds no lock on the file. A check of other callers may take
/// longer.
pub fn wait_until_none(path: &Path, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    while under_way(path).0 > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How many checks of the file at `path` are running, and how many callers wait for them.
pub fn under_way(path: &Path) -> (usize, u32) {
    let under_way = UNDER_WAY.lock();
    let checks = FileId::of(path).ok().and_then(|id| under_way.as_ref()?.get(&id));
    let checks = || checks.into_iter().flatten();
    (checks().count(), checks().map(|check| check.lock().waiting).sum())
}
