//! Lets a task end a statement that runs long: an index being built, a full-text index rebuilt.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use rusqlite::ffi;

use crate::engine::{Connection, Error, Result, Task};

/// Instructions of SQLite's virtual machine between two questions: some milliseconds.
const INTERVAL: c_int = 100_000;

struct Asked<'t> {
    task: &'t dyn Task,
    reason: Option<Error>,
}

/// Runs `work`; when `task` does not go on, the statement that runs is interrupted and the task's
/// reason is the error.
///
/// # Errors
/// `work`'s; `task`'s.
pub(super) fn watched<R>(
    connection: &Connection,
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
    let mut asked = Asked { task, reason: None };
    let told: *mut Asked<'_> = &raw mut asked;
    let handler: Handler<'_> = Handler(connection.raw(), PhantomData);
    // SAFETY: the connection is open; `asked` outlives the handler, which is taken away below,
    // and is not touched meanwhile but by it.
    unsafe { ffi::sqlite3_progress_handler(handler.0, INTERVAL, Some(ask), told.cast()) };
    let outcome = work();
    drop(handler);
    match asked.reason {
        Some(reason) => Err(reason),
        None => outcome,
    }
}

unsafe extern "C" fn ask(told: *mut c_void) -> c_int {
    // SAFETY: `watched` registered this pointer, and takes the handler away before it ends. Its
    // lifetime does not outlast `watched`'s frame, on whose thread this runs.
    let asked = unsafe { &mut *told.cast::<Asked<'_>>() };
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
