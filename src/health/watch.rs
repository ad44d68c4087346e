//! The progress handler that reports progress of one connection's statements to a task, and
//! interrupts them when the task is cancelled.
//!
//! SQLite calls a progress handler (<https://sqlite.org/c3ref/progress_handler.html>) each
//! [`EVERY`] instructions of a statement or, while an integrity check walks b-trees, each so many
//! pages. It runs on the thread that runs the statement.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use rusqlite::ffi;

use crate::engine::{Connection, Error, Result, Stage, Task};

/// Instructions, or pages, between two calls: usually some hundred microseconds.
const EVERY: c_int = 500;

/// While it lives, the connection's statements are interrupted when the task is cancelled.
pub(super) struct Watch<'a> {
    connection: &'a Connection,
    state: Box<State<'a>>,
}

struct State<'a> {
    db: *mut ffi::sqlite3,
    task: &'a dyn Task,
    /// Pages of the database; 0 until known.
    pages: Cell<u64>,
    /// Pages that the connection had read before.
    read_before: u64,
    ended: RefCell<Option<Error>>,
    /// The handler belongs to the thread that runs the statements.
    thread: PhantomData<*const ()>,
}

impl<'a> Watch<'a> {
    /// Installs the progress handler of `task` on `connection`, in place of any other.
    pub fn new(connection: &'a Connection, task: &'a dyn Task) -> Self {
        let db = connection.raw();
        let state = Box::new(State {
            db,
            task,
            pages: Cell::new(0),
            read_before: pages_read(db),
            ended: RefCell::default(),
            thread: PhantomData,
        });
        let context = ptr::from_ref::<State<'_>>(&state).cast_mut().cast();
        // SAFETY: the connection is open or null, which SQLite ignores; it is used by this thread
        // alone. The state is in a box, so it stays where it is until `drop` takes the handler
        // away again.
        unsafe { ffi::sqlite3_progress_handler(db, EVERY, Some(on_progress), context) };
        Self { connection, state }
    }

    /// Sets the number of pages of the database. From now on progress is reported.
    pub fn of_pages(&self, pages: u64) {
        self.state.pages.set(pages);
    }

    /// Reports that all pages are done.
    pub fn finish(&self) {
        let pages = self.state.pages.get();
        self.state.task.stage(Stage { name: PAGES, done: pages, total: pages });
    }

    /// The task's reason to end if `error` is the interruption that it caused, else `error`.
    pub fn reason(&self, error: Error) -> Error {
        if error.errcode & 0xff != ffi::SQLITE_INTERRUPT {
            return error;
        }
        self.state.ended.borrow_mut().take().unwrap_or(error)
    }

    /// Fails if the task has ended the check: findings since may come from the interruption.
    ///
    /// # Errors
    /// That reason.
    pub fn ended(&self) -> Result<()> {
        self.state.ended.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Checks between statements whether the task was cancelled.
    ///
    /// # Errors
    /// The task's.
    pub fn go_on(&self) -> Result<()> {
        self.state.task.go_on()
    }

    /// Runs `sql` and calls `take` with the first column of each row.
    ///
    /// # Errors
    /// SQLite's, the task's.
    pub fn texts(&self, sql: &str, take: impl FnMut(&str)) -> Result<()> {
        texts(self.connection.sql()?, sql, take)
            .map_err(|error| self.reason(Error::from(error).at(self.connection.path())))
    }
}

fn texts(
    connection: &rusqlite::Connection,
    sql: &str,
    mut take: impl FnMut(&str),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(bytes) = row.get_ref(0)?.as_bytes() {
            take(&String::from_utf8_lossy(bytes));
        }
    }
    Ok(())
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // SAFETY: as in `new`.
        unsafe { ffi::sqlite3_progress_handler(self.state.db, 0, None, ptr::null_mut()) };
    }
}

/// Stages of a check: the first read of each page, and reads after that.
const PAGES: &str = "reading pages";
const ROWS: &str = "comparing rows";

impl State<'_> {
    fn look(&self) -> Result<()> {
        let pages = self.pages.get();
        if pages > 0 {
            let read = pages_read(self.db).saturating_sub(self.read_before);
            let (name, done) = if read <= pages { (PAGES, read) } else { (ROWS, read - pages) };
            self.task.stage(Stage { name, done: done.min(pages), total: pages });
        }
        self.task.go_on()
    }
}

unsafe extern "C" fn on_progress(context: *mut c_void) -> c_int {
    // SAFETY: the state that `Watch::new` passed, which lives until the handler is taken away;
    // only shared references to it exist.
    let state = unsafe { &*context.cast::<State<'_>>() };
    let looked = catch_unwind(AssertUnwindSafe(|| state.look())).unwrap_or_else(|_| {
        Err(Error::fusion(
            "ERR_FUSION_INTERNAL",
            "internal error in fusion-sqlite: a task panicked",
        ))
    });
    match looked {
        Ok(()) => 0,
        Err(error) => {
            state.ended.replace(Some(error));
            1
        }
    }
}

/// Pages that the connection read from the file or its WAL so far.
fn pages_read(db: *mut ffi::sqlite3) -> u64 {
    let (mut now, mut highest): (c_int, c_int) = (0, 0);
    // SAFETY: the connection is open or null, which SQLite answers as misuse; the out-pointers
    // are valid. It only adds counters up, so it may run in a progress handler.
    unsafe {
        ffi::sqlite3_db_status(db, ffi::SQLITE_DBSTATUS_CACHE_MISS, &mut now, &mut highest, 0);
    }
    u64::try_from(now).unwrap_or(0)
}
