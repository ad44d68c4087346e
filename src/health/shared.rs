//! One check of a file at a time, however many ask for it.
//!
//! A check runs on a thread of its own. Whoever asks for one of a file while another of the same
//! kind, or a more thorough one, is under way waits for that one's answer. A caller that gives up
//! ends its own wait; the check ends when nobody waits for it any more.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::ffi;

use super::file_check;
use super::finding::{Health, Kind};
use crate::engine::{Error, FileId, Result, Stage, Task};

/// How long somebody may hold the file before a check answers that it is locked.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a waiting caller's task is asked, and told how far the check is.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Checks under way.
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

/// The check's own view of its callers.
impl Task for Check {
    fn stage(&self, stage: Stage) {
        self.lock().stage = Some(stage);
    }

    fn go_on(&self) -> Result<()> {
        if self.lock().waiting == 0 { Err(Error::cancelled()) } else { Ok(()) }
    }
}

/// Checks the database at `path` on a connection of its own, and tells a WAL that is not the
/// file's own, a file that is none, and contention, apart. Callers that ask for the same file
/// meanwhile share one check.
///
/// A file that somebody holds for longer than five seconds is [`super::Finding::Locked`].
///
/// # Errors
/// `task`'s; `SQLITE_CANTOPEN` where there is no such file; `SQLITE_IOERR`, `SQLITE_NOMEM`,
/// `SQLITE_READONLY_ROLLBACK` where it cannot be carried out; `ERR_FUSION_THREAD`.
pub fn check(path: &Path, kind: Kind, task: &dyn Task) -> Result<Health> {
    check_within(path, kind, PATIENCE, task)
}

/// The same, where somebody else may hold the file for as long as `patience`. A check that is
/// joined keeps its own.
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
    let mut told = None;
    let mut state = check.lock();
    loop {
        if let Some(answer) = state.answer.clone() {
            state.waiting -= 1;
            return answer;
        }
        let stage = state.stage;
        drop(state);
        if let Some(stage) = stage.filter(|stage| told != Some(*stage)) {
            task.stage(stage);
            told = Some(stage);
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

/// A check that the caller is one of the waiting of.
fn join(id: FileId, kind: Kind, patience: Duration, path: &Path) -> Result<Arc<Check>> {
    let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let checks = under_way.get_or_insert_with(HashMap::new).entry(id).or_default();
    for check in checks.iter().filter(|check| check.kind >= kind) {
        let mut state = check.lock();
        // One that nobody waits for is about to end.
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

/// Waits until no check of the file at `path` is under way: its connection is closed then, and
/// keeps nobody from the file. At most for `timeout`; a check that others wait for may take longer.
pub fn wait_until_none(path: &Path, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    while under_way(path).0 > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How many checks of the file at `path` are under way, and how many callers wait for them.
pub fn under_way(path: &Path) -> (usize, u32) {
    let under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let checks = FileId::of(path).ok().and_then(|id| under_way.as_ref()?.get(&id));
    let checks = || checks.into_iter().flatten();
    (checks().count(), checks().map(|check| check.lock().waiting).sum())
}
