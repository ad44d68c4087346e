//! Rows written inside a transaction that belongs to the caller.
//!
//! A thread that holds the write lock cannot wait for the writer, because the writer waits for that
//! lock. So its barrier empties the queue and writes the rows on its own connection, as part of its
//! transaction. The rows are *lent* until that transaction ends:
//!
//! | SQLite calls | the lent rows |
//! |---|---|
//! | xCommit | are settled: receipts are given |
//! | xRollback | go back to the front of the queue |
//! | xRollbackTo(n) | go back if they were written after savepoint `n` was opened |
//! | xRelease(n) | belong to the savepoint around `n` from now on |
//!
//! SQLite makes these calls, savepoints included, only to a virtual table that takes part in the
//! transaction (<https://sqlite.org/vtab.html#xsavepoint>). So each write of rows also writes to an
//! eponymous virtual table that stores nothing. The table is registered on a connection when that
//! connection first needs it.
//!
//! Runs on the thread that owns the connection.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::ffi;

use super::batch::{Outcomes, Statements, Written, complete};
use super::log::LogCore;
use super::queue::{Batch, RowOutcome};
use crate::engine::{Connection, Error, Result};

const MODULE: &CStr = c"fusion_sqlite_watch";

/// The rows of one log that one connection has written in its transaction.
#[derive(Debug)]
pub struct CallerTransaction {
    watch: Arc<Watch>,
    /// Generation of the connection that has the virtual table. A reopened connection has another
    /// generation, and no table.
    generation: u32,
}

struct Watch {
    shared: Arc<LogCore>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// Open savepoints of the transaction, as reported to the virtual table.
    depth: c_int,
    lent: Vec<UncertainRows>,
}

struct UncertainRows {
    /// Savepoints that were open when the rows were written.
    depth: c_int,
    batch: Batch,
    outcomes: Vec<RowOutcome>,
}

impl CallerTransaction {
    /// Writes everything queued in `shared` on `connection`: as part of its transaction if one
    /// is open, else in one of its own.
    pub(super) fn write(
        shared: &Arc<LogCore>,
        connection: &Connection,
        borrowed: &mut Option<Self>,
    ) -> Result<()> {
        // While this connection may write, the writer has no batch: an entry that is not queued is
        // settled, or is part of this transaction already. This also runs for a database without
        // Fusion's tables.
        if !shared.queue.has_queued() {
            return Ok(());
        }
        if connection.is_autocommit() {
            return write_alone(shared, connection);
        }
        let generation = connection.generation();
        let watch = match borrowed {
            Some(borrowed) if borrowed.generation == generation => &borrowed.watch,
            _ => {
                let watch = register(shared, connection)?;
                &borrowed.insert(Self { watch, generation }).watch
            }
        };
        // Takes the write lock, if the transaction does not have it, before the queue is emptied:
        // without the lock the writer cannot keep a batch for long.
        execute(connection, "INSERT INTO fusion_sqlite_watch VALUES (NULL)")?;
        let depth = watch.lock().depth;
        execute(connection, "SAVEPOINT fusion_sqlite_rows")?;
        let batch = shared.queue.take_all();
        let mut outcomes = Outcomes::new();
        let mut write = || {
            let statements = Statements::prepare(connection, shared)?;
            loop {
                match statements.write(connection, shared, &batch, &mut outcomes)? {
                    Written::All => return execute(connection, "RELEASE fusion_sqlite_rows"),
                    Written::LeftBehind => execute(connection, "ROLLBACK TO fusion_sqlite_rows")?,
                    Written::TransactionEnded => {
                        return Err(Error::fusion(
                            "ERR_FUSION_TRANSACTION_ENDED",
                            "a trigger ended the transaction (RAISE(ROLLBACK)) while pending log \
                             entries were written in it; the entries are still pending.",
                        )
                        .at(connection.path()));
                    }
                }
            }
        };
        let result = write();
        if let Err(error) = result {
            if !connection.is_autocommit() {
                drop(execute(connection, "ROLLBACK TO fusion_sqlite_rows"));
                drop(execute(connection, "RELEASE fusion_sqlite_rows"));
            }
            shared.queue.give_back(batch);
            return Err(error);
        }
        watch.lock().lent.push(UncertainRows { depth, batch, outcomes: complete(outcomes) });
        Ok(())
    }
}

/// Writes in a transaction of its own: for a database without a file, which has no writer.
fn write_alone(shared: &LogCore, connection: &Connection) -> Result<()> {
    let batch = shared.queue.take_all();
    let mut outcomes = Outcomes::new();
    let mut write = || {
        loop {
            execute(connection, "BEGIN IMMEDIATE")?;
            let statements = Statements::prepare(connection, shared)?;
            match statements.write(connection, shared, &batch, &mut outcomes)? {
                Written::All => return execute(connection, "COMMIT"),
                Written::LeftBehind => execute(connection, "ROLLBACK")?,
                Written::TransactionEnded => {}
            }
        }
    };
    match write() {
        Ok(()) => {
            if !outcomes.is_empty() {
                shared.queue.lock().stats.batches += 1;
            }
            shared.deliver(shared.queue.complete(batch, complete(outcomes), &shared.options));
            Ok(())
        }
        Err(error) => {
            if !connection.is_autocommit() {
                drop(execute(connection, "ROLLBACK"));
            }
            shared.queue.give_back(batch);
            Err(error)
        }
    }
}

fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection.sql()?.execute_batch(sql).map_err(|error| Error::from(error).at(connection.path()))
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn committed(&self) {
        let lent = std::mem::take(&mut *self.lock()).lent;
        if lent.iter().any(|lent| !lent.outcomes.is_empty()) {
            self.shared.queue.lock().stats.batches += 1;
        }
        for UncertainRows { batch, outcomes, .. } in lent {
            let queue = &self.shared.queue;
            self.shared.deliver(queue.complete(batch, outcomes, &self.shared.options));
        }
    }

    /// Savepoint `savepoint` and those inside it were rolled back; -1 is the transaction.
    fn rolled_back_to(&self, savepoint: c_int) {
        let mut state = self.lock();
        state.depth = savepoint + 1;
        let kept = state.lent.iter().take_while(|lent| lent.depth <= savepoint).count();
        let undone = state.lent.split_off(kept);
        drop(state);
        for lent in undone.into_iter().rev() {
            self.shared.queue.give_back(lent.batch);
        }
    }

    fn released(&self, savepoint: c_int) {
        let mut state = self.lock();
        state.depth = savepoint;
        for lent in &mut state.lent {
            lent.depth = lent.depth.min(savepoint);
        }
    }
}

fn register(shared: &Arc<LogCore>, connection: &Connection) -> Result<Arc<Watch>> {
    let watch = Arc::new(Watch { shared: Arc::clone(shared), state: Mutex::default() });
    let context = Arc::into_raw(Arc::clone(&watch)).cast_mut().cast();
    // SAFETY: the connection is open and used by this thread alone; the module is a static; the
    // context is an Arc's pointer that `release_context` gives back, which SQLite calls even if
    // this call fails.
    let rc = unsafe {
        ffi::sqlite3_create_module_v2(
            connection.raw(),
            MODULE.as_ptr(),
            &MODULE_METHODS,
            context,
            Some(release_context),
        )
    };
    if rc == ffi::SQLITE_OK {
        return Ok(watch);
    }
    Err(connection.last_error().at(connection.path()))
}

unsafe extern "C" fn release_context(context: *mut c_void) {
    // SAFETY: the pointer that `register` made of an Arc; released once.
    drop(unsafe { Arc::from_raw(context.cast::<Watch>()) });
}

/// The virtual table: SQLite's base, then what the methods need.
#[repr(C)]
struct Table {
    base: ffi::sqlite3_vtab,
    watch: *const Watch,
}

static MODULE_METHODS: ffi::sqlite3_module = ffi::sqlite3_module {
    iVersion: 2,
    // None makes the table eponymous only: it exists without CREATE VIRTUAL TABLE.
    xCreate: None,
    xConnect: Some(connect),
    xBestIndex: Some(best_index),
    xDisconnect: Some(disconnect),
    xDestroy: Some(disconnect),
    xOpen: Some(open_cursor),
    xClose: Some(close_cursor),
    xFilter: Some(filter),
    xNext: Some(next),
    xEof: Some(eof),
    xColumn: Some(column),
    xRowid: Some(rowid),
    xUpdate: Some(update),
    xBegin: Some(begin),
    xSync: Some(sync),
    xCommit: Some(commit),
    xRollback: Some(rollback),
    xFindFunction: None,
    xRename: None,
    xSavepoint: Some(savepoint),
    xRelease: Some(release),
    xRollbackTo: Some(rollback_to),
    xShadowName: None,
    xIntegrity: None,
};

unsafe extern "C" fn connect(
    db: *mut ffi::sqlite3,
    context: *mut c_void,
    _: c_int,
    _: *const *const std::ffi::c_char,
    table: *mut *mut ffi::sqlite3_vtab,
    _: *mut *mut std::ffi::c_char,
) -> c_int {
    // SAFETY: `db` is the connection that is connecting; the declaration is NUL-terminated; the
    // out-pointer is SQLite's. The context outlives the table: SQLite disconnects tables before
    // it destroys their module.
    unsafe {
        let rc = ffi::sqlite3_declare_vtab(db, c"CREATE TABLE watch (mark)".as_ptr());
        if rc == ffi::SQLITE_OK {
            let base = std::mem::zeroed();
            *table = Box::into_raw(Box::new(Table { base, watch: context.cast() })).cast();
        }
        rc
    }
}

unsafe extern "C" fn disconnect(table: *mut ffi::sqlite3_vtab) -> c_int {
    // SAFETY: the box that `connect` made; freed once.
    drop(unsafe { Box::from_raw(table.cast::<Table>()) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn best_index(
    _: *mut ffi::sqlite3_vtab,
    _: *mut ffi::sqlite3_index_info,
) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn open_cursor(
    _: *mut ffi::sqlite3_vtab,
    cursor: *mut *mut ffi::sqlite3_vtab_cursor,
) -> c_int {
    // SAFETY: the out-pointer is SQLite's; SQLite expects a zeroed cursor and sets its table.
    unsafe { *cursor = Box::into_raw(Box::new(std::mem::zeroed::<ffi::sqlite3_vtab_cursor>())) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn close_cursor(cursor: *mut ffi::sqlite3_vtab_cursor) -> c_int {
    // SAFETY: the box that `open_cursor` made; freed once.
    drop(unsafe { Box::from_raw(cursor) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn filter(
    _: *mut ffi::sqlite3_vtab_cursor,
    _: c_int,
    _: *const std::ffi::c_char,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn next(_: *mut ffi::sqlite3_vtab_cursor) -> c_int {
    ffi::SQLITE_OK
}

/// The table has no rows.
unsafe extern "C" fn eof(_: *mut ffi::sqlite3_vtab_cursor) -> c_int {
    1
}

unsafe extern "C" fn column(
    _: *mut ffi::sqlite3_vtab_cursor,
    _: *mut ffi::sqlite3_context,
    _: c_int,
) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn rowid(_: *mut ffi::sqlite3_vtab_cursor, _: *mut ffi::sqlite3_int64) -> c_int {
    ffi::SQLITE_OK
}

/// Stores nothing: its only effect is that the table takes part in the transaction.
unsafe extern "C" fn update(
    _: *mut ffi::sqlite3_vtab,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
    _: *mut ffi::sqlite3_int64,
) -> c_int {
    ffi::SQLITE_OK
}

/// # Safety
/// `table` was made by `connect`.
unsafe fn watch<'a>(table: *mut ffi::sqlite3_vtab) -> &'a Watch {
    // SAFETY: by the caller; the context outlives the table (see `connect`).
    unsafe { &*(*table.cast::<Table>()).watch }
}

unsafe extern "C" fn begin(table: *mut ffi::sqlite3_vtab) -> c_int {
    // SAFETY: SQLite passes the table that `connect` made.
    unsafe { watch(table) }.lock().depth = 0;
    ffi::SQLITE_OK
}

unsafe extern "C" fn sync(_: *mut ffi::sqlite3_vtab) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn commit(table: *mut ffi::sqlite3_vtab) -> c_int {
    // SAFETY: SQLite passes the table that `connect` made.
    unsafe { watch(table) }.committed();
    ffi::SQLITE_OK
}

unsafe extern "C" fn rollback(table: *mut ffi::sqlite3_vtab) -> c_int {
    // SAFETY: SQLite passes the table that `connect` made.
    unsafe { watch(table) }.rolled_back_to(-1);
    ffi::SQLITE_OK
}

unsafe extern "C" fn savepoint(table: *mut ffi::sqlite3_vtab, savepoint: c_int) -> c_int {
    // SAFETY: SQLite passes the table that `connect` made.
    unsafe { watch(table) }.lock().depth = savepoint + 1;
    ffi::SQLITE_OK
}

unsafe extern "C" fn release(table: *mut ffi::sqlite3_vtab, savepoint: c_int) -> c_int {
    // SAFETY: SQLite passes the table that `connect` made.
    unsafe { watch(table) }.released(savepoint);
    ffi::SQLITE_OK
}

unsafe extern "C" fn rollback_to(table: *mut ffi::sqlite3_vtab, savepoint: c_int) -> c_int {
    // SAFETY: SQLite passes the table that `connect` made.
    unsafe { watch(table) }.rolled_back_to(savepoint);
    ffi::SQLITE_OK
}
