//! Opening, closing, scripts.
//!
//! Seams for other modules of this crate, all on the connection's own JavaScript thread:
//! * [`adopt`] makes a connection that was opened elsewhere (with another profile, say) one that
//!   `DatabaseSync` uses: a native function of its own opens and adopts it, and a subclass passes
//!   that function to the constructor (see `lib/internal.js`);
//! * [`with_connection`] lends the connection behind the number that JavaScript has.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use napi::sys;
use rusqlite::{OpenFlags, ffi};

use super::aggregate::in_reset;
use super::authorizer::Authorizer;
use super::backup_gate::{Entered, Sharing};
use super::bind::Parameters;
use super::environment::{Environment, flag};
use super::errors::{Outcome, Thrown, check, is_schema_neutral};
use super::js_callback::stepping;
use super::profile::Profile;
use super::raw_call::{Call, Raw, callback, text};
use super::reopen::{Another, Definition, OpenParams, Reopen, close_all_stale};
use super::schema_effect;
use super::session;
use super::value::{boolean, null};
use crate::engine::{
    Class, Connection, DatabaseFile, Error, Presence, WriteGate, errstr, explain, new_network, utc,
    with_sync_call,
};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[
    (c"realm", callback!(realm)),
    (c"open", callback!(open)),
    (c"owner", callback!(owner)),
    (c"close", callback!(close)),
    (c"exec", callback!(exec)),
    (c"location", callback!(location)),
    (c"newNetwork", callback!(network)),
    (c"isTransaction", callback!(is_transaction)),
    (c"finalizeStatements", callback!(finalize_statements)),
    (c"giveUp", callback!(recovery_failed)),
    (c"prepareReopen", callback!(prepare_reopen)),
    (c"reopen", callback!(reopen)),
    (c"refuseOwnTransaction", callback!(refuse_own_transaction)),
    (c"isBusy", callback!(is_busy)),
    (c"requireUsable", callback!(require_usable)),
];

/// Settings of [`open`], as bits.
mod setting {
    pub const READ_ONLY: u32 = 1;
    pub const FOREIGN_KEYS: u32 = 2;
    pub const DOUBLE_QUOTED_STRINGS: u32 = 4;
    pub const DEFENSIVE: u32 = 8;
    pub const EXTENSIONS: u32 = 16;
    /// Errors say their cause. Of the command line: a DatabaseSync says what node:sqlite says.
    pub const EXPLAINS: u32 = 32;
}

/// A connection that JavaScript has open.
///
/// The `RefCell` is the rule that a connection is not closed while it runs a statement: running
/// borrows it, closing borrows it mutably.
///
/// While SQLite prepares a statement, no other use of the connection may change the schema. The
/// authorizer is JavaScript that runs at that time. See [`Database::using`].
pub struct Database {
    connection: RefCell<Connection>,
    schema: Schema,
    sharing: Sharing,
    /// The authorizer is running.
    preparing: Rc<Cell<bool>>,
    authorizer: RefCell<Option<Rc<Authorizer>>>,
    /// JavaScript has defined aggregates.
    aggregates: Cell<bool>,
    /// The environment of JavaScript that has defined functions; null without functions.
    functions: Cell<sys::napi_env>,
    profile: Profile,
    /// None for a plain `DatabaseSync`. After the connection, which has its address.
    reopening: Option<Reopen>,
    /// Since when a transaction is open, and whether it was reported as blocking a log's writer.
    transaction: Cell<Option<(SystemTime, bool)>>,
    /// Comes before every read; none unless the handle asks for it.
    before_reads: RefCell<Option<Rc<BeforeReads>>>,
}

/// What comes before a read.
pub type BeforeReads = dyn Fn(&Call<'_>) -> Outcome<()>;

/// The version of the schema that this connection saw last.
///
/// SQLite re-prepares a statement for two reasons, and does not report which: the schema changed,
/// or a value was bound that the plan may depend on (`LIMIT ?`, `LIKE ?`). The second is frequent
/// and leaves other statements valid.
#[derive(Debug)]
struct Schema {
    /// `PRAGMA schema_version`, prepared when it is first needed.
    query: Cell<*mut ffi::sqlite3_stmt>,
    version: Cell<Option<i64>>,
}

impl Schema {
    fn finalize(&self) {
        // SAFETY: the statement is null or prepared on the connection of the same `Database`,
        // which is still open, and the pointer is forgotten here.
        unsafe { ffi::sqlite3_finalize(self.query.replace(ptr::null_mut())) };
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Database {
    /// Sets `first` to be called before every read.
    pub(super) fn before_reads(&self, first: Rc<BeforeReads>) {
        self.before_reads.replace(Some(first));
    }

    /// A read is about to begin. Not one that a function of a running statement makes: its
    /// statement holds the connection.
    ///
    /// # Errors
    /// Those of what comes before it.
    #[inline]
    pub(super) fn read_begins(&self, call: &Call<'_>) -> Outcome<()> {
        let first = self.before_reads.borrow().as_ref().map(Rc::clone);
        match first {
            Some(first) if self.is_idle() => first(call),
            _ => Ok(()),
        }
    }

    /// Lends the connection for queries of this package, about which the authorizer is not asked.
    ///
    /// # Errors
    /// As [`Self::using`]; those of `body`.
    pub(super) fn unasked<R>(&self, body: impl FnOnce(&Connection) -> Outcome<R>) -> Outcome<R> {
        let authorizer = self.authorizer();
        self.using(|connection| {
            let Some(authorizer) = authorizer else { return body(connection) };
            Authorizer::remove(connection);
            let result = body(connection);
            authorizer.install(connection);
            result
        })
    }

    /// Lends the connection.
    ///
    /// # Errors
    /// `ERR_INVALID_STATE` while it is being closed, or once it is closed, and to the authorizer.
    #[inline]
    pub fn using<R>(&self, body: impl FnOnce(&Connection) -> Outcome<R>) -> Outcome<R> {
        if self.preparing.get() {
            return Err(Thrown::state("database cannot be accessed from an authorizer callback"));
        }
        self.asking(body)
    }

    /// Lends the connection for work that neither prepares nor runs a statement, nor changes
    /// anything that a statement depends on: the authorizer may do such work, too.
    ///
    /// # Errors
    /// `ERR_INVALID_STATE` while it is being closed, or once it is closed.
    #[inline]
    pub fn asking<R>(&self, body: impl FnOnce(&Connection) -> Outcome<R>) -> Outcome<R> {
        let _entered = self.enter();
        match self.connection.try_borrow() {
            Ok(connection) if !connection.raw().is_null() => body(&connection),
            _ => Err(closed()),
        }
    }

    /// As [`Self::asking`], but also lends a connection that is closed until it is reopened.
    fn looking<R>(&self, body: impl FnOnce(&Connection) -> Outcome<R>) -> Outcome<R> {
        if self.reopening.as_ref().is_some_and(Reopen::is_closed_for_reopen)
            && let Ok(connection) = self.connection.try_borrow()
        {
            return body(&connection);
        }
        self.asking(body)
    }

    /// Keeps backups off the connection while the result lives, for calls of SQLite outside
    /// [`Self::using`].
    #[inline]
    pub fn enter(&self) -> Entered<'_> {
        self.sharing.enter()
    }

    /// The backups of this connection.
    pub fn sharing(&self) -> &Sharing {
        &self.sharing
    }

    /// Whether no call is using the connection.
    pub fn is_idle(&self) -> bool {
        self.connection.try_borrow_mut().is_ok()
    }

    /// What reopening the connection needs; `None` unless it is hardened and has a file.
    #[inline]
    pub fn reopening(&self) -> Option<&Reopen> {
        self.reopening.as_ref()
    }

    /// Whether the connection is stale, and whether it is in autocommit mode; `None` while a call
    /// is using it.
    #[inline]
    pub fn at_rest(&self) -> Option<(bool, bool)> {
        let connection = self.connection.try_borrow_mut().ok()?;
        Some((connection.is_stale(), connection.is_autocommit()))
    }

    /// What the subscribers to queries are handed.
    pub(super) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The authorizer.
    pub(super) fn authorizer(&self) -> Option<Rc<Authorizer>> {
        self.authorizer.borrow().clone()
    }

    /// Finalises the statements until they are next used, and lends the connection to `body`, which
    /// closes it.
    ///
    /// # Errors
    /// `ERR_INVALID_STATE` while a statement runs; those of `body`.
    pub(super) fn put_away(
        self: &Rc<Self>,
        environment: &Environment,
        body: impl FnOnce(&mut Connection) -> Outcome<()>,
    ) -> Outcome<()> {
        let _entered = self.enter();
        let Ok(mut connection) = self.connection.try_borrow_mut() else {
            return Err(Thrown::state("database is busy: a statement is running"));
        };
        let numbers = self.statements(environment);
        for number in numbers {
            let statement = environment.statements.borrow().get(number).map(Rc::clone);
            if let Some(statement) = statement {
                statement.lay_down();
            }
        }
        self.schema.finalize();
        self.schema.version.set(None);
        body(&mut connection)
    }

    /// The numbers of its statements.
    fn statements(self: &Rc<Self>, environment: &Environment) -> Vec<u32> {
        let statements = environment.statements.borrow();
        statements.numbers(|statement| Rc::ptr_eq(statement.database(), self))
    }

    /// Records that a transaction has begun or ended.
    #[cold]
    pub(super) fn note_transaction(&self, is_open: bool) {
        self.transaction.set(is_open.then(|| (SystemTime::now(), false)));
    }

    /// Whether this connection holds the write lock of `file`, between two calls: by a transaction,
    /// or by a statement in the middle of an iteration.
    fn is_writing_to(&self, file: &DatabaseFile) -> bool {
        let Ok(connection) = self.connection.try_borrow() else { return false };
        let db = connection.raw();
        if db.is_null() {
            return false;
        }
        // SAFETY: the connection is open and this thread's; past the last database the name is
        // null.
        let names = (0..).map(|index| unsafe { ffi::sqlite3_db_name(db, index) });
        names.take_while(|name| !name.is_null()).enumerate().any(|(index, name)| {
            // SAFETY: as above; the name is that of a database of the connection.
            if unsafe { ffi::sqlite3_txn_state(db, name) } != ffi::SQLITE_TXN_WRITE {
                return false;
            }
            if index == 0 {
                return connection.file().is_some_and(|own| own.id == file.id);
            }
            // An attached one, by its path. SAFETY: as above; the result is null or NUL-terminated,
            // and lives as long as the database is attached.
            let path = unsafe {
                let path = ffi::sqlite3_db_filename(db, name);
                if path.is_null() { c"" } else { CStr::from_ptr(path) }
            };
            let presence = path.to_str().ok().and_then(|path| file.id.presence(path.as_ref()).ok());
            presence == Some(Presence::Same)
        })
    }

    /// An error that says that this connection holds the write lock, if it holds that of `file`.
    fn in_the_way(&self, file: &DatabaseFile) -> Option<Error> {
        if !self.is_writing_to(file) {
            return None;
        }
        let class = if self.reopening.is_some() { "HardenedDatabase" } else { "DatabaseSync" };
        let what = match self.transaction.get() {
            Some((since, _)) => {
                format!("a transaction that this thread has open since {} on a {class}", utc(since))
            }
            None => {
                format!("an iteration of a statement that writes, on a {class} of this thread,")
            }
        };
        let mut error = Error::fusion(
            "ERR_FUSION_OWN_TRANSACTION",
            format!(
                "{what} holds the database's write lock, and ends only if this thread goes on: \
                 COMMIT or ROLLBACK it, or finish the iteration, first"
            ),
        )
        .at(&file.path);
        error.errcode = ffi::SQLITE_BUSY;
        error.errstr = errstr(ffi::SQLITE_BUSY);
        Some(error)
    }

    /// Whether the open transaction was reported as blocking a log's writer.
    pub(super) fn is_reported(&self) -> bool {
        self.transaction.get().is_some_and(|(_, is_reported)| is_reported)
    }

    /// Records that it was reported.
    pub(super) fn set_reported(&self) {
        self.transaction.set(self.transaction.get().map(|(since, _)| (since, true)));
    }

    /// Rolls back the transaction, with a statement that is in the middle of writing, and resets
    /// every statement: the thread's JavaScript has ended and cannot release their locks. Log
    /// entries in the transaction return to their log.
    pub(super) fn abandon(self: &Rc<Self>, environment: &Environment) {
        // The parser is on the stack, or a backup's thread may be using the connection.
        if self.preparing.get() || self.sharing.is_shared() {
            return;
        }
        if let Ok(connection) = self.connection.try_borrow()
            && !connection.raw().is_null()
        {
            // It is JavaScript.
            Authorizer::remove(&connection);
            // Makes a statement that is in the middle of writing part of what is rolled back.
            let begin = connection.is_autocommit().then_some(c"BEGIN");
            with_sync_call(turn(&connection), || {
                for sql in begin.into_iter().chain([c"ROLLBACK"]) {
                    // SAFETY: the connection is open and this thread's. No function of JavaScript
                    // is called by these two.
                    unsafe {
                        ffi::sqlite3_exec(
                            connection.raw(),
                            sql.as_ptr(),
                            None,
                            ptr::null_mut(),
                            ptr::null_mut(),
                        );
                    }
                }
            });
        }
        for number in self.statements(environment) {
            if let Some(statement) = environment.statements.borrow().get(number) {
                statement.abandon();
            }
        }
    }

    /// A call begins on the connection.
    #[inline]
    pub(super) fn begin(&self, in_transaction: bool) {
        if let Some(reopening) = &self.reopening {
            reopening.begin(in_transaction);
        }
    }

    /// Makes a call. Makes it again, once, if a stale `-shm` or `-wal` made it fail without an
    /// effect: see [`super::reopen`].
    ///
    /// # Errors
    /// Those of `call`; `ERR_FUSION_COMMIT_UNKNOWN`, `ERR_FUSION_WEDGED`.
    #[inline]
    pub(super) fn mending<R>(
        self: &Rc<Self>,
        environment: &Environment,
        call: impl Fn() -> Outcome<R>,
    ) -> Outcome<R> {
        let result = call();
        match (result, &self.reopening) {
            (Err(thrown), Some(_)) => {
                self.mend(environment, thrown, false)?;
                let again = call();
                match again {
                    Err(thrown) => match self.mend(environment, thrown, true) {
                        Err(thrown) => Err(thrown),
                        // It is never made a third time.
                        Ok(()) => Err(Thrown::state("the connection is wedged")),
                    },
                    Ok(value) => {
                        self.mended();
                        Ok(value)
                    }
                }
            }
            (result, _) => result,
        }
    }

    /// Replaces the connection that [`Self::put_away`] closed.
    pub(super) fn put_back(&self, connection: Connection) {
        self.profile.install(&connection);
        drop(self.connection.replace(connection));
    }

    /// Defines a function or aggregate of JavaScript in `env` by `define`, now and on each reopened
    /// connection.
    ///
    /// # Errors
    /// As [`Self::using`]; those of `define`.
    pub(super) fn define(
        &self,
        env: sys::napi_env,
        name: CString,
        argc: c_int,
        define: impl Fn(&Connection) -> Outcome<()> + 'static,
    ) -> Outcome<()> {
        self.using(|connection| {
            self.has_functions(env);
            define(connection)
        })?;
        if let Some(reopening) = &self.reopening {
            let name = name.into_bytes().to_ascii_lowercase();
            reopening.keep(Definition { name, argc, define: Rc::new(define) });
        }
        Ok(())
    }

    /// Finalises every statement, and lends the connection to `body` if that is done.
    ///
    /// # Errors
    /// `ERR_INVALID_STATE` with the message `refusal` while a call uses the connection; those of
    /// `body`.
    pub fn emptied<R>(
        self: &Rc<Self>,
        environment: &Environment,
        refusal: &str,
        body: impl FnOnce(&mut Connection) -> Outcome<R>,
    ) -> Outcome<R> {
        let _entered = self.enter();
        let Ok(mut connection) = self.connection.try_borrow_mut() else {
            return Err(Thrown::state(refusal));
        };
        let numbers = self.statements(environment);
        self.profile.muted(|| {
            for number in numbers {
                let statement = environment.statements.borrow_mut().remove(number);
                if let Some(statement) = statement {
                    statement.finalize();
                }
            }
            self.schema.finalize();
        });
        body(&mut connection)
    }

    /// Whether the schema may have changed since the last call. `true` where that is unknown: at
    /// the first call, if the version cannot be read, with attached databases, and with an
    /// authorizer, which must not be called for queries of this package.
    pub fn schema_changed(&self, connection: &Connection) -> bool {
        let db = connection.raw();
        // SAFETY: the connection is open and this thread's; the query is null or prepared on it:
        // `close` forgets it.
        let version = unsafe {
            if self.authorizer.borrow().is_some() || !ffi::sqlite3_db_name(db, 2).is_null() {
                return true;
            }
            // Asking would be the transaction's first look at the file.
            if !connection.is_autocommit()
                && ffi::sqlite3_txn_state(db, c"main".as_ptr()) == ffi::SQLITE_TXN_NONE
            {
                return true;
            }
            let mut query = self.schema.query.get();
            if query.is_null() {
                ffi::sqlite3_prepare_v3(
                    db,
                    c"PRAGMA main.schema_version".as_ptr(),
                    -1,
                    ffi::SQLITE_PREPARE_PERSISTENT,
                    &mut query,
                    ptr::null_mut(),
                );
                self.schema.query.set(query);
            }
            self.profile.muted(|| {
                let version = (ffi::sqlite3_step(query) == ffi::SQLITE_ROW)
                    .then(|| ffi::sqlite3_column_int64(query, 0));
                ffi::sqlite3_reset(query);
                version
            })
        };
        let before = self.schema.version.replace(version);
        version.is_none() || version != before
    }

    /// Set while the authorizer runs.
    pub(super) fn preparing(&self) -> &Rc<Cell<bool>> {
        &self.preparing
    }

    /// Keeps the authorizer that was set in SQLite, and drops the previous one.
    pub(super) fn keep_authorizer(&self, authorizer: Option<Rc<Authorizer>>) {
        drop(self.authorizer.replace(authorizer));
    }

    /// JavaScript in `env` defines a function.
    pub(super) fn has_functions(&self, env: sys::napi_env) {
        self.functions.set(env);
    }

    /// Runs `body`, which steps a statement: see [`stepping`].
    #[inline]
    pub(super) fn stepping<R>(&self, body: impl FnOnce() -> R) -> R {
        let env = self.functions.get();
        if env.is_null() { body() } else { stepping(env, body) }
    }

    /// JavaScript defines an aggregate.
    pub(super) fn has_aggregates(&self) {
        self.aggregates.set(true);
    }

    /// Runs `body`, which resets a statement: see [`in_reset`].
    #[inline]
    pub(super) fn in_reset<R>(&self, body: impl FnOnce() -> R) -> R {
        if self.aggregates.get() { in_reset(body) } else { body() }
    }

    /// Finalises the statements, deletes the sessions and closes. A connection that is being
    /// backed up stays open out of reach, until the last of its backups has ended.
    ///
    /// # Errors
    /// `ERR_INVALID_STATE` while a call uses the connection; SQLite's.
    pub fn close(self: &Rc<Self>, environment: &Environment) -> Outcome<()> {
        self.emptied(environment, "database cannot be closed while in a callback", |connection| {
            Profile::remove(connection);
            session::delete_all(environment, self);
            if self.sharing.is_shared() {
                self.sharing.keep(connection.take());
                return Ok(());
            }
            connection.close()?;
            self.keep_authorizer(None);
            if let Some(reopening) = &self.reopening {
                reopening.end();
            }
            Ok(())
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Before the connection, which cannot be closed while a statement is left. There are no
        // backups: each has a count of this.
        self.schema.finalize();
    }
}

/// Why a callback cannot have the content replaced.
pub(super) const NOT_REPLACED: &str = "database cannot be deserialized while in a callback";

fn closed() -> Thrown {
    Thrown::state("database is not open")
}

/// The turns of the file that `connection` has open.
#[inline]
pub fn turn(connection: &Connection) -> Option<&WriteGate> {
    connection.file().map(|file| &file.turn)
}

/// Takes `connection` in and returns its number, which `DatabaseSync` is made with.
///
/// # Errors
/// `ERR_INVALID_STATE` when the environment has ended or a million connections are open.
pub fn adopt(env: sys::napi_env, connection: Connection) -> Outcome<u32> {
    adopt_with(env, connection, None)
}

/// The same for a hardened connection, which is reopened as `how` says.
///
/// # Errors
/// As [`adopt`].
pub fn adopt_hardened(env: sys::napi_env, connection: Connection, how: OpenParams) -> Outcome<u32> {
    // A database in memory has no sidecar files that could become stale.
    let reopening = connection.file().is_some().then(|| Reopen::new(how, &connection));
    adopt_with(env, connection, reopening)
}

fn adopt_with(
    env: sys::napi_env,
    connection: Connection,
    reopening: Option<Reopen>,
) -> Outcome<u32> {
    let environment = Environment::of(env)?;
    let database = Rc::new(Database {
        connection: RefCell::new(connection),
        schema: Schema { query: Cell::new(ptr::null_mut()), version: Cell::new(None) },
        sharing: Sharing::default(),
        preparing: Rc::default(),
        authorizer: RefCell::default(),
        aggregates: Cell::new(false),
        functions: Cell::new(ptr::null_mut()),
        profile: Profile::default(),
        reopening,
        transaction: Cell::default(),
        before_reads: RefCell::default(),
    });
    let number = environment.databases.borrow_mut().insert(database);
    number.ok_or_else(|| Thrown::state("too many open databases"))
}

/// Lends the connection with `number`, which a `DatabaseSync` has from [`adopt`].
///
/// # Errors
/// `ERR_INVALID_STATE` if no connection has the number, or it is closed.
pub fn with_connection<R>(
    env: sys::napi_env,
    number: u32,
    body: impl FnOnce(&Connection) -> Outcome<R>,
) -> Outcome<R> {
    let environment = Environment::of(env)?;
    let database = find(&environment, number)?;
    database.using(body)
}

/// The same without reopening the connection: it may be closed until its next call.
///
/// # Errors
/// As [`with_connection`].
pub(super) fn with_connection_as_is<R>(
    env: sys::napi_env,
    number: u32,
    body: impl FnOnce(&Connection) -> Outcome<R>,
) -> Outcome<R> {
    let environment = Environment::of(env)?;
    look_up(&environment, number)?.looking(body)
}

/// The database with `number`. Reopens its connection first if that is due.
pub(super) fn find(environment: &Environment, number: u32) -> Outcome<Rc<Database>> {
    let database = look_up(environment, number)?;
    database.refresh(environment)?;
    Ok(database)
}

/// The database with `number` as it is.
pub(super) fn look_up(environment: &Environment, number: u32) -> Outcome<Rc<Database>> {
    environment.databases.borrow().get(number).map(Rc::clone).ok_or_else(closed)
}

/// `realm()`: what the addon's own realm has: see `realm.js`.
fn realm(call: &Call<'_>) -> Outcome<sys::napi_value> {
    call.environment.realm.object()
}

/// `open(path, settings, timeout)`: the number of a new connection. `path` is a string or a
/// `Uint8Array`; `settings` are bits of [`setting`]; `timeout` is in milliseconds.
fn open(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let path = path(call.env, call.arg(0)?)?;
    let settings = call.number(1)?;
    // SQLite's own limit: an int.
    let timeout = Duration::from_millis(u64::from(call.number(2)?.min(i32::MAX.cast_unsigned())));
    let set = |bit: u32| settings & bit != 0;
    let flags = OpenFlags::SQLITE_OPEN_URI
        | if set(setting::READ_ONLY) {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        };
    let opened = Connection::open(&path, flags, timeout);
    let mut connection = if set(setting::EXPLAINS) {
        let mut connection = opened.map_err(|error| explain(error, &path))?;
        connection.explain_errors();
        connection
    } else {
        opened.map_err(opening)?
    };
    if connection.is_stale() {
        // As a user of the deleted -wal and -shm it would fail, and keep the others from going on
        // with new ones: for ever, where a program opens the file again after each failure.
        close_all_stale(call.environment);
        connection.enter_generation(timeout)?;
    }
    for (option, enabled) in [
        (ffi::SQLITE_DBCONFIG_DQS_DML, set(setting::DOUBLE_QUOTED_STRINGS)),
        (ffi::SQLITE_DBCONFIG_DQS_DDL, set(setting::DOUBLE_QUOTED_STRINGS)),
        (ffi::SQLITE_DBCONFIG_ENABLE_FKEY, set(setting::FOREIGN_KEYS)),
        (ffi::SQLITE_DBCONFIG_DEFENSIVE, set(setting::DEFENSIVE)),
        (ffi::SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, set(setting::EXTENSIONS)),
    ] {
        configure(&connection, option, enabled)?;
    }
    number(call.env, adopt(call.env, connection)?)
}

/// Sets an on-or-off option of an open connection.
///
/// # Errors
/// SQLite's.
pub(super) fn configure(connection: &Connection, option: c_int, enabled: bool) -> Outcome<()> {
    // SAFETY: the connection is open and this thread's; the on-or-off options take an int and a
    // pointer to an int, which may be null.
    let code = unsafe {
        ffi::sqlite3_db_config(
            connection.raw(),
            option,
            c_int::from(enabled),
            ptr::null_mut::<c_int>(),
        )
    };
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(Thrown::sqlite(code)) }
}

/// What node:sqlite says when a file cannot be opened. rusqlite adds the path to the message.
pub(super) fn opening(mut error: Error) -> Error {
    error.path = None;
    if error.errcode & 0xff == ffi::SQLITE_CANTOPEN {
        error.errcode = ffi::SQLITE_CANTOPEN;
        error.message.clone_from(&error.errstr);
    }
    error
}

/// A path that JavaScript gave as a string or a `Uint8Array`.
pub(super) fn path(env: sys::napi_env, value: sys::napi_value) -> Outcome<PathBuf> {
    let mut parameters = Parameters::default();
    parameters.read(env, &[value], 1)?;
    let bytes = parameters.into_bytes();
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        Ok(std::ffi::OsString::from_vec(bytes).into())
    }
    #[cfg(not(unix))]
    {
        Ok(String::from_utf8_lossy(&bytes).into_owned().into())
    }
}

/// `number` for JavaScript.
pub(super) fn number(env: sys::napi_env, number: u32) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `env` is that of the running callback.
    check(unsafe { sys::napi_create_uint32(env, number, &mut value) })?;
    Ok(value)
}

/// `owner(database)`: a value that closes the connection when it is collected.
fn owner(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let number = call.number(0)?;
    let environment = Rc::into_raw(Rc::clone(call.environment)).cast_mut();
    let mut value = ptr::null_mut();
    // SAFETY: the finaliser runs once, on this thread, and takes back the count given to it;
    // the hint is a number in the guise of a pointer.
    let status = unsafe {
        sys::napi_create_external(
            call.env,
            environment.cast(),
            Some(collected),
            ptr::without_provenance_mut(number as usize),
            &mut value,
        )
    };
    if status != sys::Status::napi_ok {
        // SAFETY: N-API did not take the count.
        drop(unsafe { Rc::from_raw(environment) });
    }
    check(status)?;
    Ok(value)
}

unsafe extern "C" fn collected(_env: sys::napi_env, data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `owner` gave this count to the finaliser.
    let environment = unsafe { Rc::<Environment>::from_raw(data.cast()) };
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        if let Ok(number) = u32::try_from(hint.addr()) {
            // A connection that cannot be closed stays open: a finaliser cannot report an error.
            let _ = dispose(&environment, number);
        }
    }));
}

/// `close(database)`.
fn close(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let number = call.number(0)?;
    dispose(call.environment, number)?;
    call.undefined()
}

/// `giveUp(database)`: the connection is about to be closed. If it is stale, closes it now, so that
/// the other connections of this process stop waiting for it.
fn recovery_failed(call: &Call<'_>) -> Outcome<sys::napi_value> {
    look_up(call.environment, call.number(0)?)?.close_if_stale(call.environment, true)?;
    call.undefined()
}

/// `prepareReopen(database, create)`: null if the path still leads to the database's file. Else
/// removes that file's `-wal` and `-shm` from the path, and returns the path.
fn prepare_reopen(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = look_up(call.environment, call.number(0)?)?;
    let file = database.looking(|connection| Ok(connection.file().cloned()))?;
    let (Some(file), Some(reopening)) = (file, &database.reopening) else {
        return Err(Thrown::state("the database has no file"));
    };
    match file.check_identity() {
        Ok(()) => return null(call.env),
        Err(error) if error.code == "ERR_FUSION_UNLINKED" && !call.flag(1) => {
            return Err(error.into());
        }
        Err(error) if error.class() != Class::Replaced => return Err(error.into()),
        Err(_) => file.clear_path(reopening.patience())?,
    }
    text(call.env, file.path.to_string_lossy().as_bytes())
}

/// `reopen(database, create)`: see [`Database::reopen_at_path`].
fn reopen(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let another = if call.flag(1) { Another::MayBeMade } else { Another::IsThere };
    look_up(call.environment, call.number(0)?)?.reopen_at_path(call.environment, another)?;
    call.undefined()
}

/// The connection of this thread, other than `database`, that holds the write lock of `file`, and
/// the error that reports it. A blocking wait of this thread for that lock would never end.
pub(super) fn own_transaction(
    environment: &Environment,
    file: &DatabaseFile,
) -> Option<(Rc<Database>, Error)> {
    let databases = environment.databases.borrow();
    let mut all =
        databases.numbers(|_| true).into_iter().filter_map(|number| databases.get(number));
    all.find_map(|database| Some((Rc::clone(database), database.in_the_way(file)?)))
}

/// `refuseOwnTransaction(database)`: throws `ERR_FUSION_OWN_TRANSACTION` if a connection of this
/// thread holds the write lock of the database's file.
fn refuse_own_transaction(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = look_up(call.environment, call.number(0)?)?;
    let file = database.looking(|connection| Ok(connection.file().cloned()))?;
    if let Some(file) = file
        && let Some((_, error)) = own_transaction(call.environment, &file)
    {
        return Err(error.into());
    }
    call.undefined()
}

/// `finalizeStatements(database)`: all of them; the connection stays open.
fn finalize_statements(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    database.emptied(call.environment, NOT_REPLACED, |_| Ok(()))?;
    call.undefined()
}

/// `isBusy(database)`: whether a call uses the connection, so that this one comes from a callback.
fn is_busy(call: &Call<'_>) -> Outcome<sys::napi_value> {
    boolean(call.env, !look_up(call.environment, call.number(0)?)?.is_idle())
}

/// `requireUsable(database)`: throws as [`Database::using`] does.
fn require_usable(call: &Call<'_>) -> Outcome<sys::napi_value> {
    find(call.environment, call.number(0)?)?.using(|_| Ok(()))?;
    call.undefined()
}

fn dispose(environment: &Environment, number: u32) -> Outcome<()> {
    let database = look_up(environment, number)?;
    database.close(environment)?;
    let removed = environment.databases.borrow_mut().remove(number);
    drop(removed);
    Ok(())
}

/// `exec(database, sql)`: runs every statement of `sql`, up to the first that fails.
fn exec(call: &Call<'_>) -> Outcome<sys::napi_value> {
    call.environment.report(0);
    let database = find(call.environment, call.number(0)?)?;
    let mut sql = call.environment.take_parameters();
    let result = sql.read(call.env, &[call.arg(1)?], 1).and_then(|()| {
        let sql = sql.terminated();
        database.mending(call.environment, || {
            database.using(|connection| run_script(call, &database, connection, sql))
        })
    });
    call.environment.give_parameters(sql);
    result?;
    call.undefined()
}

/// `sql` ends with a NUL byte.
fn run_script(
    call: &Call<'_>,
    database: &Database,
    connection: &Connection,
    sql: &[u8],
) -> Outcome<()> {
    let db = connection.raw();
    // SAFETY: the connection is open, as `using` saw to, and this thread's.
    let in_transaction = || unsafe { ffi::sqlite3_get_autocommit(db) } == 0;
    let before = in_transaction();
    database.begin(before);
    let mut flags = 0;
    let result: Outcome<()> = with_sync_call(turn(connection), || {
        let mut rest = sql;
        loop {
            let statement_text = schema_effect::skip_space(rest);
            if matches!(statement_text, [] | [0, ..]) {
                return Ok(());
            }
            let neutral = schema_effect::is_neutral(statement_text);
            if !neutral {
                flags |= flag::SCHEMA_UNSURE;
                flags |= schema_effect::setting_flag(statement_text);
            }
            let mut statement = ptr::null_mut();
            let mut tail = ptr::null();
            let mut allowed = Ok(());
            // SAFETY: `rest` is readable for its length, which includes the terminating NUL, and
            // outlives the statement, which is finalised at once; `tail` points into it.
            let code = unsafe {
                let mut code = ffi::sqlite3_prepare_v2(
                    db,
                    rest.as_ptr().cast::<c_char>(),
                    c_int::try_from(rest.len()).unwrap_or(c_int::MAX),
                    &mut statement,
                    &mut tail,
                );
                if code == ffi::SQLITE_OK && !statement.is_null() {
                    allowed =
                        database.may_write(connection, statement, schema_effect::is_of_rows(rest));
                    while allowed.is_ok() {
                        code = ffi::sqlite3_step(statement);
                        if code != ffi::SQLITE_ROW {
                            break;
                        }
                    }
                    if ffi::sqlite3_stmt_status(statement, ffi::SQLITE_STMTSTATUS_REPREPARE, 0) > 0
                    {
                        flags |= flag::SCHEMA_UNSURE;
                    }
                }
                code
            };
            let result = match code {
                ffi::SQLITE_OK | ffi::SQLITE_DONE => Ok(()),
                _ => Err(connection.last_error().into()),
            };
            let result = allowed.and(result);
            // SAFETY: the statement is null or was prepared above.
            unsafe { ffi::sqlite3_finalize(statement) };
            result?;
            if let Some(reopening) = database.reopening() {
                reopening.has_effect();
            }
            let used = (tail.addr()).saturating_sub(rest.as_ptr().addr());
            // As SQLite's own exec: a statement's text is what subscribers to queries see.
            rest = rest.get(used.max(1)..).unwrap_or_default().trim_ascii_start();
        }
    });
    let after = in_transaction();
    if before != after {
        database.note_transaction(after);
        if !after {
            flags |= flag::TRANSACTION_ENDED;
        }
    }
    if let Err(Thrown::Error(exception)) = &result
        && let Some((errcode, _)) = exception.sqlite
        && (flags & flag::TRANSACTION_ENDED != 0 || !is_schema_neutral(errcode))
    {
        flags |= flag::SCHEMA_UNSURE;
    }
    call.environment.report(flags);
    result
}

/// `location(database, name)`: the path of the database `name`, or null.
fn location(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let mut name = Parameters::default();
    name.read(call.env, &[call.arg(1)?], 1)?;
    let name = name.terminated();
    database.asking(|connection| {
        // SAFETY: the connection is open and this thread's; `name` ends with a NUL. The result
        // is null or NUL-terminated and lives as long as the database is attached.
        let file = unsafe {
            let file = ffi::sqlite3_db_filename(connection.raw(), name.as_ptr().cast());
            if file.is_null() { c"" } else { CStr::from_ptr(file) }
        };
        if file.is_empty() { null(call.env) } else { text(call.env, file.to_bytes()) }
    })
}

/// `newNetwork(database)`: the network file system that the database is on, the first time that one
/// is opened in this process on its mount; else undefined.
fn network(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let found = with_connection(call.env, call.number(0)?, |connection| {
        let device = connection.file().map(|file| file.id.device);
        Ok(device.and_then(|device| new_network(connection.path(), device)))
    })?;
    match found {
        Some(file_system) => text(call.env, file_system.name.as_bytes()),
        None => call.undefined(),
    }
}

/// `isTransaction(database)`.
fn is_transaction(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = look_up(call.environment, call.number(0)?)?;
    database.looking(|connection| boolean(call.env, !connection.is_autocommit()))
}
