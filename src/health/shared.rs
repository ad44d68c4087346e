//! One check of a file at a time, for any number of callers.
//!
//! A check runs on a thread of its own. If a check of the same kind, or a more thorough one, is
//! already running, a new caller joins it and gets its result. A caller that gives up ends only its
//! own wait; the check is cancelled when its last caller has given up.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::ffi;

use super::file_check;
use super::finding::{Health, Kind};
use crate::engine::{Error, FileId, Result, Stage, Task};

/// How long a check waits for a lock before it reports that the file is locked.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a waiting caller's task gets the progress of the check, and may cancel.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Running checks.
static UNDER_WAY: Mutex<Option<HashMap<FileId, Vec<Arc<Check>>>>> = Mutex::new(None);

struct Check {
    kind: Kind,
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task of a running check: it goes on while a caller waits.
impl Task for Check {
    fn stage(&self, stage: Stage) {
        self.lock().stage = Some(stage);
    }

    fn go_on(&self) -> Result<()> {
        if self.lock().waiting == 0 { Err(Error::cancelled()) } else { Ok(()) }
    }
}

/// Checks the database at `path` on a connection of its own. Findings distinguish damage, another
/// file's WAL, a file that is not a database, and contention. Callers that check the same file at
/// the same time share one check.
///
/// A file that is locked for longer than five seconds is [`super::Finding::Locked`].
///
/// # Errors
/// `task`'s; `SQLITE_CANTOPEN` if there is no such file; `SQLITE_IOERR`, `SQLITE_NOMEM`,
/// `SQLITE_READONLY_ROLLBACK` if the check cannot run; `ERR_FUSION_THREAD`.
pub fn check(path: &Path, kind: Kind, task: &dyn Task) -> Result<Health> {
    check_within(path, kind, PATIENCE, task)
}

/// As [`check`], but waits for a lock for at most `patience`. A running check that the caller joins
/// keeps its own limit.
///
/// # Errors
/// As [`check`].
pub fn check_within(
    path: &Path,
    kind: Kind,
    patience: Duration,
    task: &dyn Task,
) -> Result<Health> {
    task.go_on()?;
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
        if let Err(error) = task.go_on() {
            check.lock().waiting -= 1;
            return Err(error);
        }
        state = check.lock();
        if state.answer.is_none() {
            let waited = check.changed.wait_timeout(state, ASK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Joins a running check of the file, or starts one. The caller is counted as waiting.
fn join(id: FileId, kind: Kind, patience: Duration, path: &Path) -> Result<Arc<Check>> {
    let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let checks = under_way.get_or_insert_with(HashMap::new).entry(id).or_default();
    for check in checks.iter().filter(|check| check.kind >= kind) {
        let mut state = check.lock();
        // A check without a waiting caller is about to end.
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
    let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(files) = under_way.as_mut()
        && let Some(checks) = files.get_mut(&id)
    {
        checks.retain(|other| !Arc::ptr_eq(other, check));
        if checks.is_empty() {
            files.remove(&id);
        }
    }
}

/// Waits until no check of the file at `path` is running, so that no check's connection holds a
/// lock. Waits for at most `timeout`: a check with other callers may take longer.
pub fn wait_until_none(path: &Path, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    while under_way(path).0 > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The number of running checks of the file at `path`, and of the callers that wait for them.
pub fn under_way(path: &Path) -> (usize, u32) {
    let under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let checks = FileId::of(path).ok().and_then(|id| under_way.as_ref()?.get(&id));
    let checks = || checks.into_iter().flatten();
    (checks().count(), checks().map(|check| check.lock().waiting).sum())
}
