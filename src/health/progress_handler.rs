//! Progress and cancellation of the statements of one connection.
//!
//! SQLite calls a connection's progress handler (<https://sqlite.org/c3ref/progress_handler.html>)
//! after a number of virtual machine instructions and, while an integrity check walks b-trees, of
//! pages. Called on the thread that runs the statement.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use rusqlite::ffi;

use crate::engine::{Connection, Error, Progress, Result, Stage};

/// Instructions, or pages, between two calls: usually some hundred microseconds.
const EVERY: c_int = 500;

/// While this lives, a cancelled task interrupts the connection's statements.
pub(super) struct Watch<'a> {
    connection: &'a Connection,
    state: Box<State<'a>>,
}

struct State<'a> {
    db: *mut ffi::sqlite3,
    task: &'a dyn Progress,
    /// Pages of the database; 0 while unknown.
    pages: Cell<u64>,
    /// Pages that the connection had read before.
    read_before: u64,
    ended: RefCell<Option<Error>>,
    /// The handler belongs to the thread that runs the statements.
    thread: PhantomData<*const ()>,
}

impl<'a> Watch<'a> {
    /// Watches `connection` for `task`. Replaces the connection's progress handler, if it has one.
    pub fn new(connection: &'a Connection, task: &'a dyn Progress) -> Self {
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

    /// Sets the number of pages of the database. From then on progress is reported to the task.
    pub fn of_pages(&self, pages: u64) {
        self.state.pages.set(pages);
    }

    /// Reports to the task that all pages were read.
    pub fn finish(&self) {
        let pages = self.state.pages.get();
        self.state.task.stage(Stage { name: PAGES, done: pages, total: pages });
    }

    /// Replaces `SQLITE_INTERRUPT` by the task's error that caused it.
    pub fn reason(&self, error: Error) -> Error {
        if error.errcode & 0xff != ffi::SQLITE_INTERRUPT {
            return error;
        }
        self.state.ended.borrow_mut().take().unwrap_or(error)
    }

    /// Fails if the task was cancelled: findings since then may come from the interruption.
    ///
    /// # Errors
    /// The task's.
    pub fn ended(&self) -> Result<()> {
        self.state.ended.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Asks the task whether to go on, between statements.
    ///
    /// # Errors
    /// The task's.
    pub fn check_cancelled(&self) -> Result<()> {
        self.state.task.check_cancelled()
    }

    /// Runs `sql`, and passes the first column of each row to `take`.
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

/// Stages of a check: SQLite first reads each page for its b-tree, then again for its rows.
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
        self.task.check_cancelled()
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
