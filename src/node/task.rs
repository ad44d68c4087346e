//! Operations that take long (checks, repairs, backups), on threads of their own.
//!
//! A task is started with a ticket of the mailbox and JSON for its arguments. It posts how far it
//! is, and at the end a result (JSON again: reports are read by people, a handful in a process's
//! life) or an error. It ends early when it is cancelled or its deadline has passed. A task that
//! outlives its worker thread is cancelled with the worker's mailbox: it posts into the void.

use std::collections::HashMap;
use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use napi::sys;

use super::agent_log::mailbox;
use super::argument::{double, string};
use super::callback::{Call, Raw, callback};
use super::errors::{Kind, Outcome, Thrown};
use super::mailbox::{Mailbox, Message};
use super::value::number_value;
use crate::engine::{Error, Result, Stage, Task};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] =
    &[(c"taskStart", callback!(start)), (c"taskCancel", callback!(cancel))];

/// Carries a task out: arguments in, result out, both JSON.
pub type Work = fn(&str, &dyn Task) -> Result<String>;

/// What can be started, by name.
const WORKS: &[&[(&str, Work)]] =
    &[super::backups::WORKS, super::doctor::WORKS, super::health::WORKS, super::recovery::WORKS];

/// A task's arguments, taken apart.
///
/// # Errors
/// `ERR_FUSION_INTERNAL`: this package's JavaScript says something else than its native side hears.
pub fn arguments<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::fusion("ERR_FUSION_INTERNAL", format!("a task's arguments are wrong: {error}"))
    })
}

/// The shortest time between two reports of one stage.
const REPORT_EVERY: Duration = Duration::from_millis(50);

static RUNNING: Mutex<Option<HashMap<u64, Arc<Running>>>> = Mutex::new(None);
static LAST: AtomicU64 = AtomicU64::new(0);

struct Running {
    ticket: f64,
    mailbox: Arc<Mailbox>,
    cancelled: AtomicBool,
    deadline: Option<Instant>,
    told: Mutex<Option<(Instant, Stage)>>,
}

impl Task for Running {
    fn stage(&self, stage: Stage) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let recent = told.is_some_and(|(at, last)| {
            last.name == stage.name && stage.done != stage.total && now - at < REPORT_EVERY
        });
        if !recent {
            *told = Some((now, stage));
            self.mailbox.post(Message::Stage(self.ticket, stage));
        }
    }

    fn go_on(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
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

fn running<R>(body: impl FnOnce(&mut HashMap<u64, Arc<Running>>) -> R) -> R {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    body(running.get_or_insert_with(HashMap::new))
}

/// `taskStart(ticket, name, arguments, deadline)`: answers the task's number. `arguments` is JSON,
/// `deadline` in milliseconds, 0 for none.
fn start(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let (ticket, mailbox) = (double(call, 0)?, mailbox()?);
    let name = string(call, 1)?.unwrap_or_default();
    let arguments = string(call, 2)?.unwrap_or_default();
    let deadline = Duration::try_from_secs_f64(double(call, 3)? / 1000.0)
        .ok()
        .filter(|time| !time.is_zero())
        .and_then(|time| Instant::now().checked_add(time));
    let known = WORKS.iter().copied().flatten();
    let Some((name, work)) = known.copied().find(|(known, _)| *known == name) else {
        return Err(Thrown::state("there is no such task"));
    };
    let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let task = Arc::new(Running {
        ticket,
        mailbox,
        cancelled: AtomicBool::new(false),
        deadline,
        told: Mutex::new(None),
    });
    running(|tasks| tasks.insert(number, Arc::clone(&task)));
    let thread = std::thread::Builder::new().name(format!("fusion-{name}")).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| work(&arguments, &*task)));
        running(|tasks| tasks.remove(&number));
        let result = result.unwrap_or_else(|_| {
            Err(Error::fusion(
                "ERR_FUSION_INTERNAL",
                format!("internal error in fusion-sqlite: {name} panicked"),
            ))
        });
        task.mailbox.post(Message::Json(task.ticket, result));
    });
    if let Err(error) = thread {
        running(|tasks| tasks.remove(&number));
        return Err(Thrown::of(
            Kind::Plain,
            "ERR_FUSION_THREAD",
            format!("the system gave no thread: {error}"),
        ));
    }
    number_value(call.env, number as f64)
}

/// `taskCancel(task)`: it ends soon, with `ERR_FUSION_CANCELLED`, unless it is over.
fn cancel(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let number = double(call, 0)? as u64;
    if let Some(task) = running(|tasks| tasks.get(&number).map(Arc::clone)) {
        task.cancelled.store(true, Ordering::Relaxed);
    }
    call.undefined()
}
