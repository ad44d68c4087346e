//! Preparing, running, iterating.
//!
//! JavaScript decides which statement a call uses (its cache shares them). A call binds, steps,
//! resets and clears the statement, so that between calls a statement holds no lock and no bound
//! value except numbers (see [`Statement`]). The exception is iteration, `start` and `next`, during
//! which the statement belongs to one iterator.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr;
use std::rc::Rc;

use napi::sys;
use rusqlite::ffi;

use super::bind::{Held, Parameters};
use super::database::{Database, find as find_database, turn};
use super::environment::{Environment, flag};
use super::errors::{ErrorKind, Outcome, Thrown, check, is_schema_neutral};
use super::raw_call::{Call, Raw, callback, text};
use super::rows::{CHUNK, Scope, emit_rows, read};
use super::schema_effect;
use super::value::{null, number_value};
use crate::engine::{Connection, with_sync_call};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[
    (c"prepare", callback!(prepare)),
    (c"finalize", callback!(finalize)),
    (c"run", callback!(run)),
    (c"get", callback!(get)),
    (c"all", callback!(all)),
    (c"start", callback!(start)),
    (c"next", callback!(next)),
    (c"readBigInts", callback!(read_bigints)),
    (c"reset", callback!(reset)),
    (c"columnNames", callback!(column_names)),
    (c"columns", callback!(columns)),
    (c"parameterNames", callback!(parameter_names)),
    (c"sourceSQL", callback!(source_sql)),
    (c"expandedSQL", callback!(expanded_sql)),
    (c"stat", callback!(stat)),
    (c"resetStats", callback!(reset_stats)),
];

/// A prepared statement.
#[derive(Debug)]
pub struct Statement {
    /// Null once it is finalised.
    raw: Cell<*mut ffi::sqlite3_stmt>,
    /// Keeps the connection in existence until the statement is finalised.
    database: Rc<Database>,
    parameters: usize,
    /// Running it leaves prepared statements valid.
    neutral: bool,
    /// It changes rows, if anything.
    of_rows: bool,
    /// [`flag::SETTING`] for a PRAGMA, else 0.
    setting: i32,
    columns: Cell<c_int>,
    /// Hash of the columns' names when SQLite re-prepared the statement, if it did.
    names: Cell<Option<u64>>,
    /// `SQLITE_STMTSTATUS_REPREPARE` when `columns` was read.
    reprepared: Cell<c_int>,
    /// The same when JavaScript reset the counters: SQLite's own is not reset.
    reprepared_before: Cell<c_int>,
    /// A call is binding or stepping it.
    running: Cell<bool>,
    /// Its text, while it is laid down: see [`Statement::lay_down`].
    laid_down: RefCell<Option<CString>>,
    /// An iterator is in the middle of it.
    iterating: Cell<bool>,
    /// Whether the step of the iterator that runs makes integers BigInts.
    bigints: Cell<bool>,
    /// The bound values that are kept after a call; `None` if all bindings are cleared.
    ///
    /// SQLite re-prepares a statement when a value is bound that the plan may depend on, as that of
    /// `LIMIT ?`, and treats clearing the value as such a change. So a statement that was
    /// re-prepared for that reason keeps its numbers, and the next call binds only the values that
    /// differ.
    held: RefCell<Option<Vec<Held>>>,
}

impl Statement {
    /// The database it belongs to.
    pub fn database(&self) -> &Rc<Database> {
        &self.database
    }

    /// Calls [`Database::read_begins`] if the statement only reads.
    #[inline]
    fn read_begins(&self, call: &Call<'_>) -> Outcome<()> {
        let raw = self.raw.get();
        // SAFETY: the statement is prepared; with a null one SQLite answers that it reads.
        if self.columns.get() > 0 && unsafe { ffi::sqlite3_stmt_readonly(raw) } != 0 {
            self.database.read_begins(call)?;
        }
        Ok(())
    }

    /// Finalises the statement, unless it is finalised. No call may be using it: closing ensures
    /// that by borrowing the connection mutably.
    pub fn finalize(&self) {
        let _entered = self.database.enter();
        // SAFETY: the statement is null or prepared on a connection that `database` keeps open,
        // no call uses it, and the pointer is forgotten here.
        self.database
            .in_reset(|| unsafe { ffi::sqlite3_finalize(self.raw.replace(ptr::null_mut())) });
    }

    /// Finalises it until it is next used, because its connection is to be closed and another
    /// opened in its place.
    pub fn lay_down(&self) {
        let raw = self.raw.get();
        if raw.is_null() {
            return;
        }
        // SAFETY: the statement is prepared; its text is NUL-terminated.
        let sql = unsafe { CStr::from_ptr(ffi::sqlite3_sql(raw)) }.to_owned();
        self.finalize();
        self.held.take();
        self.laid_down.replace(Some(sql));
    }

    /// Prepares the statement again on `connection`, if it was laid down.
    #[cold]
    fn take_up(&self, connection: &Connection) -> Outcome<()> {
        let Some(sql) = self.laid_down.borrow().clone() else {
            return Err(finalized());
        };
        let mut raw = ptr::null_mut();
        let persistence = if self.neutral { ffi::SQLITE_PREPARE_PERSISTENT } else { 0 };
        // SAFETY: the connection is open and this thread's; the text is NUL-terminated.
        let code = with_sync_call(turn(connection), || unsafe {
            ffi::sqlite3_prepare_v3(
                connection.raw(),
                sql.as_ptr(),
                -1,
                persistence,
                &mut raw,
                ptr::null_mut(),
            )
        });
        if code != ffi::SQLITE_OK {
            return Err(connection.last_error().into());
        }
        self.raw.set(raw);
        // The next call reads its columns again, as if SQLite had re-prepared it.
        self.reprepared.set(-1);
        self.reprepared_before.set(0);
        self.laid_down.replace(None);
        Ok(())
    }

    /// Ends an unfinished iteration, which no JavaScript can continue.
    pub(super) fn abandon(&self) {
        let raw = self.raw.get();
        if self.iterating.get() && !self.running.get() && !raw.is_null() {
            // SAFETY: the statement is prepared on this thread's connection, and no call uses it.
            self.database.in_reset(|| unsafe { ffi::sqlite3_reset(raw) });
        }
    }

    /// Makes the statement this call's.
    #[inline]
    fn enter(&self, connection: &Connection) -> Outcome<Running<'_>> {
        if self.raw.get().is_null() {
            self.take_up(connection)?;
        }
        if self.running.replace(true) {
            return Err(Thrown::state("statement is already being executed"));
        }
        Ok(Running { statement: self, reprepared: Cell::new(false), renamed: Cell::new(false) })
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        self.finalize();
    }
}

fn finalized() -> Thrown {
    Thrown::state("statement has been finalized")
}

/// The use of a statement by one call. No other call can use or finalise it meanwhile.
struct Running<'a> {
    statement: &'a Statement,
    reprepared: Cell<bool>,
    renamed: Cell<bool>,
}

impl Running<'_> {
    #[inline]
    fn raw(&self) -> *mut ffi::sqlite3_stmt {
        self.statement.raw.get()
    }

    /// See [`Database::may_write`].
    #[inline]
    fn may_write(&self, connection: &Connection) -> Outcome<()> {
        let statement = self.statement;
        // SAFETY: the statement is prepared, on its database's connection.
        unsafe { statement.database.may_write(connection, self.raw(), statement.of_rows) }
    }

    /// Resets the statement and clears its bindings.
    #[inline]
    fn reset(&self) {
        // SAFETY: the statement is prepared: `enter` ensures it, and the connection is lent since,
        // so it cannot have been closed.
        self.statement.database.in_reset(|| unsafe {
            ffi::sqlite3_reset(self.raw());
            if self.statement.parameters > 0 {
                match self.statement.held.borrow_mut().as_mut() {
                    Some(held) => Held::release(self.raw(), held),
                    None => {
                        ffi::sqlite3_clear_bindings(self.raw());
                    }
                }
            }
        });
    }

    /// Binds `parameters` in place of what was bound.
    ///
    /// # Safety
    /// Unless `copy`, the bindings are cleared before `parameters` changes.
    #[inline]
    unsafe fn bind(
        &self,
        connection: &Connection,
        parameters: &Parameters,
        copy: bool,
    ) -> Outcome<()> {
        let statement = self.statement;
        let mut held = statement.held.take();
        if held.is_none() && statement.parameters > 0 && statement.reprepared.get() > 0 {
            held = Some(vec![Held::Nothing; statement.parameters]);
        }
        // SAFETY: the statement is prepared and was reset, which left `held`; the rest is the
        // caller's.
        let result = unsafe {
            match held.as_mut() {
                Some(held) => parameters.bind_changes(self.raw(), copy, held),
                None => parameters.bind(self.raw(), copy),
            }
        };
        match result {
            Ok(()) => {
                statement.held.replace(held);
                Ok(())
            }
            Err(_) => {
                let error = connection.last_error();
                self.reset();
                Err(error.into())
            }
        }
    }

    /// Steps; whether there is a row.
    #[inline]
    fn step(&self, connection: &Connection) -> Outcome<bool> {
        // SAFETY: the statement is prepared and the connection open; both are this thread's.
        unsafe {
            match self.statement.database.stepping(|| ffi::sqlite3_step(self.raw())) {
                ffi::SQLITE_ROW => Ok(true),
                ffi::SQLITE_DONE => Ok(false),
                _ => Err(connection.last_error().into()),
            }
        }
    }

    /// Ends what the statement does after a row.
    fn end(&self, connection: &Connection) -> Outcome<()> {
        // SAFETY: the statement is prepared and the connection open; both are this thread's.
        match unsafe { ffi::sqlite3_reset(self.raw()) } {
            ffi::SQLITE_OK => Ok(()),
            _ => Err(connection.last_error().into()),
        }
    }

    /// Detects that SQLite has re-prepared the statement since its columns were last read.
    #[inline]
    fn notice_reprepared(&self) -> bool {
        // SAFETY: the statement is prepared.
        let count =
            unsafe { ffi::sqlite3_stmt_status(self.raw(), ffi::SQLITE_STMTSTATUS_REPREPARE, 0) };
        if self.statement.reprepared.replace(count) != count {
            self.reprepared.set(true);
            self.look_at_columns();
        }
        self.reprepared.get()
    }

    /// Counts the columns and compares their names with those seen last.
    #[cold]
    fn look_at_columns(&self) {
        let mut names = DefaultHasher::new();
        // SAFETY: the statement is prepared; a name is null or NUL-terminated.
        let columns = unsafe {
            let columns = ffi::sqlite3_column_count(self.raw());
            for column in 0..columns {
                let name = ffi::sqlite3_column_name(self.raw(), column);
                if !name.is_null() {
                    CStr::from_ptr(name).hash(&mut names);
                }
            }
            columns
        };
        let names = Some(names.finish());
        let statement = self.statement;
        if statement.names.replace(names) != names || statement.columns.get() != columns {
            self.renamed.set(true);
        }
        statement.columns.set(columns);
    }

    /// Steps to the first row. JavaScript learns of new columns before it is handed values.
    #[inline]
    fn first_row(&self, call: &Call<'_>, connection: &Connection) -> Outcome<bool> {
        let row = self.step(connection)?;
        if row {
            let renamed = self.notice_reprepared() && self.renamed.get();
            call.environment.report(if renamed { flag::RENAMED } else { 0 });
        }
        Ok(row)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.statement.running.set(false);
    }
}

/// Resets the statement when a call ends, however it ends.
struct Reset<'a, 'b>(&'a Running<'b>);

impl Drop for Reset<'_, '_> {
    fn drop(&mut self) {
        self.0.reset();
    }
}

/// Detects how a call changes its connection's state.
struct Watch {
    db: *mut ffi::sqlite3,
    in_transaction: bool,
}

impl Watch {
    #[inline]
    fn start(connection: &Connection, database: &Database) -> Self {
        let db = connection.raw();
        // SAFETY: the connection is open and this thread's.
        let in_transaction = unsafe { ffi::sqlite3_get_autocommit(db) } == 0;
        database.begin(in_transaction);
        Self { db, in_transaction }
    }

    #[inline]
    fn end<T>(&self, connection: &Connection, running: &Running<'_>, result: &Outcome<T>) -> i32 {
        let statement = running.statement;
        let mut flags = if statement.neutral { 0 } else { flag::SCHEMA_UNSURE | statement.setting };
        // SAFETY: the connection is open and this thread's.
        let in_transaction = unsafe { ffi::sqlite3_get_autocommit(self.db) } == 0;
        if self.in_transaction != in_transaction {
            running.statement.database.note_transaction(in_transaction);
            if !in_transaction {
                flags |= flag::TRANSACTION_ENDED;
            }
        }
        if running.notice_reprepared() {
            if running.renamed.get() {
                flags |= flag::RENAMED;
            }
            if running.statement.database.schema_changed(connection) {
                flags |= flag::SCHEMA_UNSURE;
            }
        }
        if let Err(Thrown::Error(exception)) = result
            && let Some((errcode, _)) = exception.sqlite
            && (flags & flag::TRANSACTION_ENDED != 0 || !is_schema_neutral(errcode))
        {
            flags |= flag::SCHEMA_UNSURE;
        }
        flags
    }
}

/// The statement with `number`, for a call that has nothing to report yet.
fn find(environment: &Environment, number: u32) -> Outcome<Rc<Statement>> {
    environment.report(0);
    let statement = look_up(environment, number)?;
    statement.database.refresh(environment)?;
    Ok(statement)
}

fn look_up(environment: &Environment, number: u32) -> Outcome<Rc<Statement>> {
    environment.statements.borrow().get(number).map(Rc::clone).ok_or_else(finalized)
}

/// Runs the statement that argument 0 names once, with the arguments from `first` on as values:
/// binds, runs `body`, resets, and reports the changes of the connection's state.
#[inline]
fn once(
    call: &Call<'_>,
    first: usize,
    body: impl Fn(&Connection, &Running<'_>) -> Outcome<sys::napi_value>,
) -> Outcome<sys::napi_value> {
    let statement = find(call.environment, call.number(0)?)?;
    let database = &statement.database;
    statement.read_begins(call)?;
    database.mending(call.environment, || once_only(call, first, &statement, &body))
}

#[inline]
fn once_only(
    call: &Call<'_>,
    first: usize,
    statement: &Statement,
    body: impl Fn(&Connection, &Running<'_>) -> Outcome<sys::napi_value>,
) -> Outcome<sys::napi_value> {
    let mut parameters = call.environment.take_parameters();
    let result = statement.database.using(|connection| {
        parameters.read(call.env, call.rest(first), statement.parameters)?;
        let watch = Watch::start(connection, &statement.database);
        let running = statement.enter(connection)?;
        running.may_write(connection)?;
        let result = with_sync_call(turn(connection), || {
            let _reset = Reset(&running);
            // SAFETY: `_reset` clears the bindings before `parameters` is given back.
            unsafe { running.bind(connection, &parameters, false) }?;
            body(connection, &running)
        });
        call.environment.report(watch.end(connection, &running, &result));
        result
    });
    call.environment.give_parameters(parameters);
    result
}

/// `run(statement, ...values)`: runs to the end; reports changes and last row id.
fn run(call: &Call<'_>) -> Outcome<sys::napi_value> {
    once(call, 1, |connection, running| {
        if running.step(connection)? {
            // As in node:sqlite, which runs a query up to its first row. Whatever writes has
            // written everything by then, and constraints are checked here.
            running.end(connection)?;
        }
        // SAFETY: the connection is open and this thread's.
        let numbers = unsafe {
            [
                ffi::sqlite3_changes64(connection.raw()),
                ffi::sqlite3_last_insert_rowid(connection.raw()),
            ]
        };
        call.environment.report_numbers(numbers);
        call.undefined()
    })
}

/// `get(statement, bigints, row, ...values)`: what `row` makes of the first row's values, or
/// `undefined`.
fn get(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let row = call.arg(2)?;
    once(call, 3, |connection, running| {
        if !running.first_row(call, connection)? {
            return call.undefined();
        }
        running.row(call, call.flag(1), row)
    })
}

/// `all(statement, bigints, rows, ...values)`: calls `rows` with the values of some rows, again
/// and again.
fn all(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let bigints = call.flag(1);
    let rows = call.arg(2)?;
    once(call, 3, |connection, running| {
        let mut more = running.first_row(call, connection)?;
        let columns = running.statement.columns.get();
        let width = usize::try_from(columns).unwrap_or(0);
        let mut values =
            Vec::with_capacity(if more { CHUNK.min(width.saturating_mul(12)) } else { 0 });
        // The first values' handles go with the callback's own scope.
        let mut scope = None;
        // Functions in SQL make calls of their own, which report, while this one steps.
        let renamed = if running.renamed.get() { flag::RENAMED } else { 0 };
        while more {
            if values.len() + width > CHUNK && !values.is_empty() {
                call.environment.report(renamed);
                if let Some(reopening) = running.statement.database.reopening() {
                    reopening.has_effect();
                }
                emit_rows(call.env, rows, &values)?;
                values.clear();
                drop(scope.take());
                scope = Some(Scope::open(call.env)?);
            }
            // SAFETY: there is a row.
            unsafe { read(call.env, running.raw(), columns, bigints, &mut values) }?;
            more = running.step(connection)?;
        }
        if !values.is_empty() {
            call.environment.report(renamed);
            emit_rows(call.env, rows, &values)?;
        }
        drop(scope);
        call.undefined()
    })
}

/// `start(statement, ...values)`: binds the values for `next`.
fn start(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let statement = find(call.environment, call.number(0)?)?;
    statement.read_begins(call)?;
    let mut parameters = call.environment.take_parameters();
    let result = statement.database.using(|connection| {
        parameters.read(call.env, call.rest(1), statement.parameters)?;
        let running = statement.enter(connection)?;
        running.reset();
        statement.iterating.set(true);
        // SAFETY: the values are copied.
        unsafe { running.bind(connection, &parameters, true) }
    });
    call.environment.give_parameters(parameters);
    result?;
    call.undefined()
}

/// `next(statement, bigints, row)`: what `row` makes of the next row's values; after the last
/// reports [`flag::DONE`] and is reset. An error keeps the values, as in node:sqlite, where the
/// call after it runs the statement again.
fn next(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let statement = find(call.environment, call.number(0)?)?;
    statement.bigints.set(call.flag(1));
    let row = call.arg(2)?;
    if statement.iterating.get() && statement.raw.get().is_null() {
        return Err(Thrown::state("iterator was invalidated: its connection was reopened"));
    }
    let result = statement.database.using(|connection| {
        let watch = Watch::start(connection, &statement.database);
        let running = statement.enter(connection)?;
        running.may_write(connection)?;
        let mut done = 0;
        let result = with_sync_call(turn(connection), || {
            match running.first_row(call, connection) {
                Ok(true) => return running.row(call, statement.bigints.get(), row),
                Ok(false) => {
                    done = flag::DONE;
                    running.reset();
                }
                Err(error) => {
                    // SAFETY: the statement is prepared.
                    unsafe { ffi::sqlite3_reset(running.raw()) };
                    return Err(error);
                }
            }
            call.undefined()
        });
        call.environment.report(watch.end(connection, &running, &result) | done);
        result
    });
    result.or_else(|thrown| {
        // The rows that were delivered are not delivered again.
        if let Some(reopening) = statement.database.reopening() {
            reopening.has_effect();
        }
        statement.database.mend(call.environment, thrown, false)?;
        call.undefined()
    })
}

/// `readBigInts(statement, bigints)`, from a function that a step of `next` calls: what that step
/// is to make of integers.
fn read_bigints(call: &Call<'_>) -> Outcome<sys::napi_value> {
    find(call.environment, call.number(0)?)?.bigints.set(call.flag(1));
    call.undefined()
}

/// `reset(statement)`: ends an iteration.
fn reset(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let statement = find(call.environment, call.number(0)?)?;
    statement.iterating.set(false);
    statement.database.using(|connection| {
        let watch = Watch::start(connection, &statement.database);
        let running = statement.enter(connection)?;
        with_sync_call(turn(connection), || running.reset());
        call.environment.report(watch.end(connection, &running, &Ok(())));
        Ok(())
    })?;
    call.undefined()
}

impl Running<'_> {
    /// What the JavaScript function `row` makes of the current row's values.
    #[inline]
    fn row(
        &self,
        call: &Call<'_>,
        bigints: bool,
        row: sys::napi_value,
    ) -> Outcome<sys::napi_value> {
        let columns = self.statement.columns.get();
        let mut values = Vec::with_capacity(usize::try_from(columns).unwrap_or(0));
        // SAFETY: there is a row.
        unsafe { read(call.env, self.raw(), columns, bigints, &mut values) }?;
        emit_rows(call.env, row, &values)
    }
}

/// `prepare(database, sql)`: the number of a new statement; reports [`flag::CACHEABLE`],
/// [`flag::NAMED`] and the number of columns.
fn prepare(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find_database(call.environment, call.number(0)?)?;
    let mut sql = call.environment.take_parameters();
    call.environment.report(flag::SCHEMA_UNSURE);
    let result = sql.read(call.env, &[call.arg(1)?], 1).and_then(|()| {
        let sql = sql.terminated();
        database.mending(call.environment, || {
            database.using(|connection| prepare_statement(call, &database, connection, sql))
        })
    });
    call.environment.give_parameters(sql);
    let number = result?;
    let mut value = ptr::null_mut();
    // SAFETY: `env` is that of the running callback.
    check(unsafe { sys::napi_create_uint32(call.env, number, &mut value) })?;
    Ok(value)
}

/// `sql` ends with a NUL byte.
fn prepare_statement(
    call: &Call<'_>,
    database: &Rc<Database>,
    connection: &Connection,
    sql: &[u8],
) -> Outcome<u32> {
    database.begin(!connection.is_autocommit());
    let (neutral, of_rows) = (schema_effect::is_neutral(sql), schema_effect::is_of_rows(sql));
    let setting = schema_effect::setting_flag(sql);
    // A statement that is kept must not hold the connection's few lookaside slots.
    let persistence = if neutral { ffi::SQLITE_PREPARE_PERSISTENT } else { 0 };
    let mut raw = ptr::null_mut();
    // SAFETY: the connection is open and this thread's; `sql` is readable for its length, which
    // includes the terminating NUL.
    let code = with_sync_call(turn(connection), || unsafe {
        ffi::sqlite3_prepare_v3(
            connection.raw(),
            sql.as_ptr().cast::<c_char>(),
            c_int::try_from(sql.len()).unwrap_or(c_int::MAX),
            persistence,
            &mut raw,
            ptr::null_mut(),
        )
    });
    if code != ffi::SQLITE_OK {
        return Err(connection.last_error().into());
    }
    if raw.is_null() {
        return Err(Thrown::of(
            ErrorKind::Type,
            "ERR_INVALID_ARG_VALUE",
            "The SQL query contains no statements.",
        ));
    }
    // SAFETY: the statement was just prepared; a parameter's name is null or NUL-terminated.
    let (parameters, columns, named) = unsafe {
        let count = ffi::sqlite3_bind_parameter_count(raw);
        let named = (1..=count).any(|index| {
            let name = ffi::sqlite3_bind_parameter_name(raw, index);
            !name.is_null() && *name.cast::<u8>() != b'?'
        });
        (count, ffi::sqlite3_column_count(raw), named)
    };
    let statement = Rc::new(Statement {
        raw: Cell::new(raw),
        database: Rc::clone(database),
        parameters: usize::try_from(parameters).unwrap_or(0),
        neutral,
        of_rows,
        setting,
        columns: Cell::new(columns),
        names: Cell::new(None),
        reprepared: Cell::new(0),
        reprepared_before: Cell::new(0),
        running: Cell::new(false),
        laid_down: RefCell::default(),
        iterating: Cell::new(false),
        bigints: Cell::new(false),
        held: RefCell::default(),
    });
    let number = call.environment.statements.borrow_mut().insert(statement);
    let number = number.ok_or_else(|| Thrown::state("too many prepared statements"))?;
    call.environment.report_numbers([i64::from(columns), i64::from(parameters)]);
    call.environment.report(
        if neutral { flag::CACHEABLE } else { flag::SCHEMA_UNSURE | setting }
            | if named { flag::NAMED } else { 0 },
    );
    Ok(number)
}

/// `finalize(statement)`: does nothing if it is finalised already.
fn finalize(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let number = call.number(0)?;
    let Ok(statement) = find(call.environment, number) else {
        return call.undefined();
    };
    let _: Outcome<()> = statement.database.using(|connection| {
        let running = statement.enter(connection)?;
        with_sync_call(turn(connection), || running.reset());
        Ok(())
    });
    let removed = call.environment.statements.borrow_mut().remove(number);
    drop(removed);
    call.undefined()
}

/// A list of what `item` returns for the indices from 0 to `count`.
fn list(
    env: sys::napi_env,
    count: c_int,
    mut item: impl FnMut(c_int) -> Outcome<sys::napi_value>,
) -> Outcome<sys::napi_value> {
    let mut list = ptr::null_mut();
    // SAFETY: `env` is that of the running callback, in which all handles are made.
    unsafe {
        check(sys::napi_create_array_with_length(
            env,
            usize::try_from(count).unwrap_or(0),
            &mut list,
        ))?;
        for index in 0..count {
            let value = item(index)?;
            check(sys::napi_set_element(env, list, index.cast_unsigned(), value))?;
        }
    }
    Ok(list)
}

/// A string, or null for a null pointer.
///
/// # Safety
/// `start` is null or NUL-terminated.
unsafe fn nullable(env: sys::napi_env, start: *const c_char) -> Outcome<sys::napi_value> {
    if start.is_null() {
        return null(env);
    }
    // SAFETY: the caller's.
    text(env, unsafe { CStr::from_ptr(start) }.to_bytes())
}

/// `columnNames(statement)`, also while it is running.
fn column_names(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let statement = look_up(call.environment, call.number(0)?)?;
    let raw = statement.prepared()?;
    // SAFETY: the statement is prepared and the index one of its columns'.
    list(call.env, statement.columns.get(), |index| unsafe {
        nullable(call.env, ffi::sqlite3_column_name(raw, index))
    })
}

/// `columns(statement)`: column, database, name, table and type of each column, one after the
/// other.
fn columns(call: &Call<'_>) -> Outcome<sys::napi_value> {
    const FACTS: [unsafe extern "C" fn(*mut ffi::sqlite3_stmt, c_int) -> *const c_char; 5] = [
        ffi::sqlite3_column_origin_name,
        ffi::sqlite3_column_database_name,
        ffi::sqlite3_column_name,
        ffi::sqlite3_column_table_name,
        ffi::sqlite3_column_decltype,
    ];
    let statement = find(call.environment, call.number(0)?)?;
    let raw = statement.prepared()?;
    // SAFETY: the statement is prepared.
    let count = unsafe { ffi::sqlite3_column_count(raw) };
    list(call.env, count.saturating_mul(5), |index| {
        match FACTS.get(index.cast_unsigned() as usize % 5) {
            // SAFETY: the statement is prepared and the index one of its columns'; the result is
            // null or NUL-terminated.
            Some(fact) => unsafe { nullable(call.env, fact(raw, index / 5)) },
            None => call.undefined(),
        }
    })
}

/// `parameterNames(statement)`: the names of the parameters, null for those without.
fn parameter_names(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let statement = find(call.environment, call.number(0)?)?;
    let raw = statement.prepared()?;
    let count = c_int::try_from(statement.parameters).unwrap_or(0);
    // SAFETY: the statement is prepared; the result is null or NUL-terminated.
    list(call.env, count, |index| unsafe {
        nullable(call.env, ffi::sqlite3_bind_parameter_name(raw, index + 1))
    })
}

/// `sourceSQL(statement)`.
fn source_sql(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let statement = find(call.environment, call.number(0)?)?;
    // SAFETY: the statement is prepared; its text is NUL-terminated.
    unsafe { nullable(call.env, ffi::sqlite3_sql(statement.prepared()?)) }
}

/// `expandedSQL(statement, asBound, ...values)`: the text with the values in place of the
/// parameters; with those that are bound now if `asBound`.
fn expanded_sql(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let statement = find(call.environment, call.number(0)?)?;
    let expand = |raw| {
        // SAFETY: the statement is prepared; the text is null or NUL-terminated and freed once.
        unsafe {
            let expanded = ffi::sqlite3_expanded_sql(raw);
            if expanded.is_null() {
                return Err(Thrown::sqlite(ffi::SQLITE_TOOBIG));
            }
            let value = nullable(call.env, expanded);
            ffi::sqlite3_free(expanded.cast());
            value
        }
    };
    if call.flag(1) {
        // Also while it is running.
        let raw = statement.prepared()?;
        return statement.database.asking(|_| expand(raw));
    }
    let mut parameters = call.environment.take_parameters();
    let result = parameters.read(call.env, call.rest(2), statement.parameters).and_then(|()| {
        statement.database.asking(|connection| {
            let running = statement.enter(connection)?;
            let _reset = Reset(&running);
            // SAFETY: `_reset` clears the bindings before `parameters` is given back.
            unsafe { running.bind(connection, &parameters, false) }?;
            expand(running.raw())
        })
    });
    call.environment.give_parameters(parameters);
    result
}

/// `stat(statement, op)`: a counter of SQLite's, also while it is running.
fn stat(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let statement = find(call.environment, call.number(0)?)?;
    let op = call.number(1)?.cast_signed();
    let raw = statement.prepared()?;
    // SAFETY: the statement is prepared; SQLite answers 0 for a counter it does not know.
    let mut count = unsafe { ffi::sqlite3_stmt_status(raw, op, 0) };
    if op == ffi::SQLITE_STMTSTATUS_REPREPARE {
        count -= statement.reprepared_before.get();
    }
    number_value(call.env, f64::from(count))
}

/// `resetStats(statement)`: all counters but the memory in use start again at 0.
fn reset_stats(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let statement = find(call.environment, call.number(0)?)?;
    let raw = statement.prepared()?;
    // SAFETY: the statement is prepared.
    let status = |op, reset: bool| unsafe { ffi::sqlite3_stmt_status(raw, op, c_int::from(reset)) };
    for op in [
        ffi::SQLITE_STMTSTATUS_FULLSCAN_STEP,
        ffi::SQLITE_STMTSTATUS_SORT,
        ffi::SQLITE_STMTSTATUS_AUTOINDEX,
        ffi::SQLITE_STMTSTATUS_VM_STEP,
        ffi::SQLITE_STMTSTATUS_RUN,
        ffi::SQLITE_STMTSTATUS_FILTER_MISS,
        ffi::SQLITE_STMTSTATUS_FILTER_HIT,
    ] {
        status(op, true);
    }
    statement.reprepared_before.set(status(ffi::SQLITE_STMTSTATUS_REPREPARE, false));
    call.undefined()
}

impl Statement {
    /// The statement, if it is still prepared.
    fn prepared(&self) -> Outcome<*mut ffi::sqlite3_stmt> {
        if self.raw.get().is_null() {
            self.database.using(|connection| self.take_up(connection))?;
        }
        Ok(self.raw.get())
    }
}
