//! Operations that take long (checks, repairs, backups), on threads of their own.
//!
//! A task is started with its arguments as JSON, and is a promise to JavaScript. It posts its
//! progress, and at the end a result or an error. The result is JSON, which JavaScript parses into
//! objects of its realm: a process makes only a few such reports, for people. A task ends early
//! when it is cancelled, when its deadline has passed, or when its JavaScript thread has ended.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use napi::sys;
use parking_lot::Mutex;

use super::argument::{double, is_absent, string};
use super::errors::{ErrorKind, Outcome, Thrown, check};
use super::js_queue::{JsQueue, Message};
use super::promise::Watch;
use super::raw_call::{Call, Raw, callback};
use super::value::{new_array, number_value, set_element};
use crate::engine::{Error, Progress, Result, Stage, explain};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[
    (c"taskStart", callback!(start)),
    (c"taskCancel", callback!(cancel)),
    (c"taskKeep", callback!(keep)),
];

/// Carries a task out: arguments in, result out, both JSON.
pub type Work = fn(&str, &dyn Progress) -> Result<String>;

/// What can be started, by name.
const WORKS: &[&[(&str, Work)]] = &[
    super::backup_tasks::WORKS,
    super::doctor::WORKS,
    super::health::WORKS,
    super::recovery::WORKS,
];

/// A task's arguments, taken apart.
///
/// # Errors
/// `ERR_FUSION_INTERNAL`: this package's JavaScript passed other fields than its native side reads.
pub fn arguments<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::fusion("ERR_FUSION_INTERNAL", format!("a task's arguments are wrong: {error}"))
    })
}

/// The shortest time between two reports of one stage.
const REPORT_EVERY: Duration = Duration::from_millis(50);

struct Running {
    ticket: u32,
    mailbox: Arc<JsQueue>,
    cancelled: Arc<AtomicBool>,
    deadline: Option<Instant>,
    /// The last stage that was posted, and when.
    posted: Mutex<Option<(Instant, Stage)>>,
}

impl Progress for Running {
    fn stage(&self, stage: Stage) {
        let mut posted = self.posted.lock();
        let now = Instant::now();
        let recent = posted.is_some_and(|(at, last)| {
            last.name == stage.name && stage.done != stage.total && now - at < REPORT_EVERY
        });
        if !recent {
            *posted = Some((now, stage));
            self.mailbox.post(Message::Stage(self.ticket, stage));
        }
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) || self.mailbox.is_closed() {
            return Err(Error::cancelled());
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::fusion(
                "ERR_FUSION_DEADLINE",
                "the operation did not finish within its deadline; nothing was changed",
            ));
        }
        Ok(())
    }
}

/// `taskStart(name, arguments, deadline, keepsAlive, progress)`: the task's ticket and its promise.
/// `arguments` is JSON, `deadline` in milliseconds, 0 for none; `progress(stage, done, total)` is
/// called until the task is over, unless it is undefined.
fn start(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let name = string(call, 0)?.unwrap_or_default();
    let arguments = string(call, 1)?.unwrap_or_default();
    let deadline = Duration::try_from_secs_f64(double(call, 2)? / 1000.0)
        .ok()
        .filter(|time| !time.is_zero())
        .and_then(|time| Instant::now().checked_add(time));
    let known = WORKS.iter().copied().flatten();
    let Some((name, work)) = known.copied().find(|(known, _)| *known == name) else {
        return Err(Thrown::state("there is no such task"));
    };
    let mut progress = ptr::null_mut();
    if !is_absent(call.env, call.arg(4)?) {
        // SAFETY: the argument is a handle of the running callback.
        check(unsafe { sys::napi_create_reference(call.env, call.arg(4)?, 1, &mut progress) })?;
    }
    let cancelled = Arc::new(AtomicBool::new(false));
    let watch = Watch { cancelled: Arc::clone(&cancelled), progress };
    let begin = |ticket, mailbox| {
        let task = Running { ticket, mailbox, cancelled, deadline, posted: Mutex::new(None) };
        let thread = std::thread::Builder::new().name(format!("fusion-{name}")).spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| work(&arguments, &task)));
            let result = result.unwrap_or_else(|_| {
                Err(Error::fusion(
                    "ERR_FUSION_INTERNAL",
                    format!("internal error in fusion-sqlite: {name} panicked"),
                ))
            });
            let result = result.map_err(|error| match error.path.clone() {
                Some(path) => explain(error, &path),
                None => error,
            });
            task.mailbox.post(Message::Json(ticket, result));
        });
        match thread {
            Ok(_) => Ok(()),
            Err(error) => Err(Thrown::of(
                ErrorKind::Plain,
                "ERR_FUSION_THREAD",
                format!("the system gave no thread: {error}"),
            )),
        }
    };
    let (ticket, promise) = call.environment.watched(call.env, call.flag(3), Some(watch), begin)?;
    let started = new_array(call.env)?;
    set_element(call.env, started, 0, number_value(call.env, f64::from(ticket))?)?;
    set_element(call.env, started, 1, promise)?;
    Ok(started)
}

/// `taskCancel(ticket)`: the task ends soon, with `ERR_FUSION_CANCELLED`, unless it is over.
fn cancel(call: &Call<'_>) -> Outcome<sys::napi_value> {
    call.environment.cancel(call.number(0)?);
    call.undefined()
}

/// `taskKeep(ticket)`: the process waits for the task.
fn keep(call: &Call<'_>) -> Outcome<sys::napi_value> {
    call.environment.keep(call.env, call.number(0)?)?;
    call.undefined()
}
