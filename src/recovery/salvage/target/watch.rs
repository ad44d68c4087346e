//! Lets a task end a statement that runs long: an index being built, a full-text index rebuilt. One
//! that takes more steps than it may is ended, too.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use rusqlite::ffi;

use super::limits::Limits;
use crate::engine::{Connection, Error, Result, Task};

/// Instructions of SQLite's virtual machine between two questions: some milliseconds.
const INTERVAL: c_int = 100_000;

struct Asked<'t> {
    task: &'t dyn Task,
    /// Times that were asked, and that may be.
    times: u64,
    most: u64,
    reason: Option<Error>,
}

/// Runs `work`; when `task` does not go on, the statement that runs is interrupted and the task's
/// reason is the error.
///
/// # Errors
/// `work`'s; `task`'s; `SQLITE_TOOBIG` if it takes more steps than `limits` have left for it.
pub(in crate::recovery) fn watched<R>(
    connection: &Connection,
    limits: &Limits,
    task: &dyn Task,
    work: impl FnOnce() -> Result<R>,
) -> Result<R> {
    /// Takes the handler away before what it points to goes, even if `work` unwinds.
    struct Handler<'a>(*mut ffi::sqlite3, PhantomData<&'a Connection>);
    impl Drop for Handler<'_> {
        fn drop(&mut self) {
            // SAFETY: the connection is open while it is borrowed.
            unsafe { ffi::sqlite3_progress_handler(self.0, 0, None, ptr::null_mut()) };
        }
    }
    task.go_on()?;
    let most = limits.allowance() / INTERVAL as u64;
    let mut asked = Asked { task, times: 0, most, reason: None };
    let told: *mut Asked<'_> = &raw mut asked;
    let handler: Handler<'_> = Handler(connection.raw(), PhantomData);
    // SAFETY: the connection is open; `asked` outlives the handler, which is taken away below,
    // and is not touched meanwhile but by it.
    unsafe { ffi::sqlite3_progress_handler(handler.0, INTERVAL, Some(ask), told.cast()) };
    let outcome = work();
    drop(handler);
    limits.took(asked.times * INTERVAL as u64);
    match asked.reason {
        Some(reason) => Err(reason),
        None => outcome,
    }
}

unsafe extern "C" fn ask(told: *mut c_void) -> c_int {
    // SAFETY: `watched` registered this pointer, and takes the handler away before it ends. Its
    // lifetime does not outlast `watched`'s frame, on whose thread this runs.
    let asked = unsafe { &mut *told.cast::<Asked<'_>>() };
    asked.times += 1;
    if asked.times > asked.most {
        let steps = asked.most * INTERVAL as u64;
        let message = format!(
            "it takes more than {steps} steps, which is more than all rows of the file are worth"
        );
        asked.reason = Some(Error::sqlite(ffi::SQLITE_TOOBIG, message));
        return 1;
    }
    // A panic must not unwind through SQLite; it ends the statement.
    let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| asked.task.go_on()));
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
