//! Interrupts a statement that runs long (CREATE INDEX, a full-text rebuild) when the task is
//! cancelled, or when the statement exceeds its number of steps.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use rusqlite::ffi;

use super::limits::Limits;
use crate::engine::{Connection, Error, Progress, Result};

/// Instructions of SQLite's virtual machine between two calls of [`Progress::check_cancelled`]: some
/// milliseconds.
const INTERVAL: c_int = 100_000;

struct Asked<'t> {
    task: &'t dyn Progress,
    /// The number of calls so far, and their maximum.
    times: u64,
    most: u64,
    reason: Option<Error>,
}

/// Runs `work`. When `task` is cancelled, the running statement is interrupted, and the result is
/// the task's error.
///
/// # Errors
/// `work`'s; `task`'s; `SQLITE_TOOBIG` if it takes more steps than `limits` have left for it.
pub(in crate::recovery) fn watched<R>(
    connection: &Connection,
    limits: &Limits,
    task: &dyn Progress,
    work: impl FnOnce() -> Result<R>,
) -> Result<R> {
    /// Removes the progress handler while its data is alive, even if `work` unwinds.
    struct Handler<'a>(*mut ffi::sqlite3, PhantomData<&'a Connection>);
    impl Drop for Handler<'_> {
        fn drop(&mut self) {
            // SAFETY: the connection is open while it is borrowed.
            unsafe { ffi::sqlite3_progress_handler(self.0, 0, None, ptr::null_mut()) };
        }
    }
    task.check_cancelled()?;
    let most = limits.allowance() / INTERVAL as u64;
    let mut asked = Asked { task, times: 0, most, reason: None };
    let state: *mut Asked<'_> = &raw mut asked;
    let handler: Handler<'_> = Handler(connection.raw(), PhantomData);
    // SAFETY: the connection is open; `asked` outlives the handler, which is removed below, and
    // only the handler uses it until then.
    unsafe { ffi::sqlite3_progress_handler(handler.0, INTERVAL, Some(ask), state.cast()) };
    let outcome = work();
    drop(handler);
    limits.took(asked.times * INTERVAL as u64);
    match asked.reason {
        Some(reason) => Err(reason),
        None => outcome,
    }
}

unsafe extern "C" fn ask(state: *mut c_void) -> c_int {
    // SAFETY: `watched` registered this pointer, and removes the handler before it ends. The
    // reference does not outlive `watched`'s frame, on whose thread this runs.
    let asked = unsafe { &mut *state.cast::<Asked<'_>>() };
    asked.times += 1;
    if asked.times > asked.most {
        let steps = asked.most * INTERVAL as u64;
        let message = format!(
            "it takes more than {steps} steps, which is more than all rows of the file are worth"
        );
        asked.reason = Some(Error::sqlite(ffi::SQLITE_TOOBIG, message));
        return 1;
    }
    // A panic must not unwind through SQLite: it interrupts the statement.
    let answer =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| asked.task.check_cancelled()));
    match answer {
        Ok(Ok(())) => 0,
        Ok(Err(reason)) => {
            asked.reason = Some(reason);
            1
        }
        Err(_) => {
            asked.reason =
                Some(Error::fusion("ERR_FUSION_INTERNAL", "the task's watcher panicked"));
            1
        }
    }
}
