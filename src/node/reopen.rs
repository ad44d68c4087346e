//! Transparent reopen of hardened connections: JavaScript keeps its `DatabaseSync` and
//! `StatementSync`; the native connection behind their numbers is replaced.
//!
//! - A call outside a transaction fails with an error that a stale `-shm` or `-wal` explains: those
//!   are recovered ([`DatabaseFile::recover_connections`](crate::engine::DatabaseFile::recover_connections)), and the call is
//!   made again if it had no effect.
//! - A call inside a transaction fails with such an error: the error is thrown as it is. The next
//!   call outside a transaction recovers first.
//! - A COMMIT fails, and may have taken place: `ERR_FUSION_COMMIT_UNKNOWN` is thrown after the
//!   recovery.
//! - The connection is stale: the thread's event loop closes it, and its next call reopens it.
//! - The path no longer leads to the connection's file: writes fail, see below.
//! - JavaScript calls `reopen()`: a connection to the file that is now at the path replaces it.
//!
//! SQLite's commit hook shows whether a call had an effect: a statement in autocommit mode that
//! failed before SQLite began to commit was rolled back as a whole.
//!
//! The new connection gets the settings, limits, functions, aggregates and the authorizer of the
//! old one. Temporary tables, attached databases, sessions and loaded extensions would be lost, so
//! a connection that has any is not closed: `ERR_FUSION_WEDGED`.
//!
//! SQLite reports no error for a write to a file that was replaced or deleted, and the write is
//! lost. So each transaction checks the path when it begins to write and again in the commit hook,
//! which turns the COMMIT into a rollback. The file's log then stops, too. Reads go on: they see
//! the old file as it was.
//!
//! Plain `DatabaseSync` connections are never touched. Runs on the connection's own thread.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::authorizer::Authorizer;
use super::database::Database;
use super::environment::Environment;
use super::errors::{Outcome, Thrown};
use crate::agent_log;
use crate::engine::{self, Class, Connection, Error, Place, Profile, Remedy, Result, errstr};

/// The state that SQLite's commit hook uses.
#[derive(Debug)]
struct Commits {
    /// SQLite began to commit in the running call.
    has_begun: Cell<bool>,
    place: Option<Place>,
    /// The connection's.
    generation: u32,
    /// Why the last refused commit was refused.
    refusal: RefCell<Option<Error>>,
}

/// How a hardened connection was opened.
#[derive(Debug)]
pub struct OpenParams {
    /// As it was given.
    pub path: PathBuf,
    /// As they were given.
    pub flags: OpenFlags,
    /// Its settings.
    pub profile: Profile,
}

/// Defines something on a connection.
pub type Define = dyn Fn(&Connection) -> Outcome<()>;

/// A function or aggregate, by name and number of arguments, and what defines it.
pub struct Definition {
    /// As SQLite compares it: ASCII lower case, up to the first NUL.
    pub name: Vec<u8>,
    /// Arguments; -1 for any number.
    pub argc: c_int,
    /// Defines it on a connection.
    pub define: Rc<Define>,
}

/// What reopening a hardened connection needs, and what its running call did.
pub struct Reopen {
    how: OpenParams,
    /// Set while the connection is closed to be reopened by its next call.
    away: Cell<Option<Settings>>,
    definitions: RefCell<Vec<Definition>>,
    has_extensions: Cell<bool>,
    /// The running call began inside a transaction.
    in_transaction: Cell<bool>,
    /// The running call has had an effect that a second run would repeat.
    has_effect: Cell<bool>,
    /// In a box, because SQLite has its address.
    commits: RefCell<Box<Commits>>,
    /// An error inside a transaction that a stale `-shm` or `-wal` would explain.
    doubt: RefCell<Option<Error>>,
}

impl std::fmt::Debug for Reopen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Healing").field("how", &self.how).finish_non_exhaustive()
    }
}

/// Switches of `sqlite3_db_config` that JavaScript can change, or the profile sets.
const SWITCHES: &[c_int] = &[
    ffi::SQLITE_DBCONFIG_ENABLE_FKEY,
    ffi::SQLITE_DBCONFIG_ENABLE_TRIGGER,
    ffi::SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION,
    ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
    ffi::SQLITE_DBCONFIG_DEFENSIVE,
    ffi::SQLITE_DBCONFIG_WRITABLE_SCHEMA,
    ffi::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE,
    ffi::SQLITE_DBCONFIG_DQS_DML,
    ffi::SQLITE_DBCONFIG_DQS_DDL,
    ffi::SQLITE_DBCONFIG_ENABLE_VIEW,
    ffi::SQLITE_DBCONFIG_TRUSTED_SCHEMA,
];

/// PRAGMAs that are settings of a connection, and can be read even if the file cannot.
const PRAGMAS: &[&str] = &[
    "busy_timeout",
    "synchronous",
    "cache_size",
    "temp_store",
    "recursive_triggers",
    "query_only",
    "journal_size_limit",
    "wal_autocheckpoint",
    "read_uncommitted",
    "reverse_unordered_selects",
    "automatic_index",
    "ignore_check_constraints",
    "cell_size_check",
];

/// The settings of a connection.
#[derive(Debug)]
struct Settings {
    switches: Vec<(c_int, c_int)>,
    limits: Vec<(c_int, c_int)>,
    pragmas: Vec<(&'static str, i64)>,
    last_rowid: i64,
}

impl Settings {
    /// The settings of `connection`. A setting that cannot be read gets the profile's value.
    fn of(connection: &Connection) -> Self {
        let db = connection.raw();
        let switches = SWITCHES.iter().filter_map(|&switch| {
            let mut now: c_int = -1;
            // SAFETY: the connection is open; switches take an int, where -1 asks, and a pointer
            // to an int.
            let rc = unsafe { ffi::sqlite3_db_config(db, switch, -1 as c_int, &raw mut now) };
            (rc == ffi::SQLITE_OK).then_some((switch, now))
        });
        let limits = (0..=ffi::SQLITE_LIMIT_WORKER_THREADS)
            // SAFETY: the connection is open; -1 asks.
            .map(|limit| (limit, unsafe { ffi::sqlite3_limit(db, limit, -1) }));
        let pragmas = PRAGMAS.iter().filter_map(|&name| {
            let sql = connection.sql().ok()?;
            let value = sql.pragma_query_value(None, name, |row| row.get(0)).ok()?;
            Some((name, value))
        });
        Self {
            switches: switches.collect(),
            limits: limits.collect(),
            pragmas: pragmas.collect(),
            // SAFETY: the connection is open.
            last_rowid: unsafe { ffi::sqlite3_last_insert_rowid(db) },
        }
    }

    fn apply(&self, connection: &Connection) -> Result<()> {
        let db = connection.raw();
        for (name, value) in &self.pragmas {
            let set = connection.sql()?.pragma_update(None, name, value);
            set.map_err(|error| Error::from(error).at(connection.path()))?;
        }
        for &(switch, value) in &self.switches {
            // SAFETY: as in `of`.
            let rc =
                unsafe { ffi::sqlite3_db_config(db, switch, value, std::ptr::null_mut::<c_int>()) };
            if rc != ffi::SQLITE_OK {
                return Err(Error::sqlite(rc, errstr(rc)).at(connection.path()));
            }
        }
        // SAFETY: the connection is open.
        unsafe {
            for &(limit, value) in &self.limits {
                ffi::sqlite3_limit(db, limit, value);
            }
            ffi::sqlite3_set_last_insert_rowid(db, self.last_rowid);
        }
        Ok(())
    }
}

impl Reopen {
    /// For a connection that was opened so and has read the file.
    pub fn new(how: OpenParams, connection: &Connection) -> Self {
        let reopening = Self {
            how,
            away: Cell::default(),
            definitions: RefCell::default(),
            has_extensions: Cell::default(),
            in_transaction: Cell::default(),
            has_effect: Cell::default(),
            doubt: RefCell::default(),
            commits: RefCell::new(Commits::of(connection)),
        };
        reopening.watch_commits(connection);
        reopening
    }

    /// How long a call waits for another connection.
    pub fn patience(&self) -> Duration {
        self.how.profile.busy_timeout
    }

    /// As [`Commits::check_place`], and stops the file's log if it does not.
    fn check_place(&self) -> Outcome<()> {
        if self.how.flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY) {
            return Ok(());
        }
        let checked = self.commits.borrow().check_place();
        checked.map_err(|error| {
            self.stop_log(&error);
            error.into()
        })
    }

    /// Stops the log of the file, if `error` says that the path leads elsewhere.
    fn stop_log(&self, error: &Error) {
        if let Some(place) = &self.commits.borrow().place
            && error.class() == Class::Replaced
        {
            agent_log::replaced(place.file().id, error);
        }
    }

    fn watch_commits(&self, connection: &Connection) {
        let commits = Commits::of(connection);
        let data: *const Commits = &raw const *commits;
        // SAFETY: the connection is open and this thread's. The box belongs to the database that
        // owns the connection, and is dropped after that was closed: see `Database`'s fields, and
        // below, where the connection that has the one before is closed already.
        unsafe {
            ffi::sqlite3_commit_hook(
                connection.raw(),
                Some(begins_to_commit),
                data.cast_mut().cast::<c_void>(),
            );
        }
        self.commits.replace(commits);
    }

    /// A call begins on `connection`.
    #[inline]
    pub fn begin(&self, in_transaction: bool) {
        self.in_transaction.set(in_transaction);
        self.has_effect.set(false);
        self.commits.borrow().has_begun.set(false);
    }

    /// The running call has done something that making it again would repeat.
    #[inline]
    pub fn has_effect(&self) {
        self.has_effect.set(true);
    }

    /// An extension was loaded.
    pub fn has_extensions(&self) {
        self.has_extensions.set(true);
    }

    /// Keeps a definition, in place of another of its name and number of arguments.
    pub fn keep(&self, definition: Definition) {
        let mut definitions = self.definitions.borrow_mut();
        definitions
            .retain(|other| (&other.name, other.argc) != (&definition.name, definition.argc));
        definitions.push(definition);
    }

    /// The settings it was opened with.
    pub fn profile(&self) -> &Profile {
        &self.how.profile
    }

    /// JavaScript closed the connection.
    pub fn end(&self) {
        self.away.take();
        self.doubt.take();
        self.definitions.take();
    }

    /// Whether the connection is closed until its next call reopens it.
    pub fn is_closed_for_reopen(&self) -> bool {
        let settings = self.away.take();
        let away = settings.is_some();
        self.away.set(settings);
        away
    }

    /// Opens a connection to the file, with the settings of the old one, once all stale connections
    /// are closed. With `another` it opens the file that is at the path now.
    fn open(
        &self,
        authorizer: Option<&Rc<Authorizer>>,
        another: Option<Another>,
    ) -> Outcome<Connection> {
        let mut flags = self.how.flags;
        // A file that has vanished must not come back empty.
        if another != Some(Another::MayBeMade) {
            flags &= !OpenFlags::SQLITE_OPEN_CREATE;
        }
        if another.is_none() {
            self.commits.borrow().check_place()?;
        }
        // A relative path may lead to another file now, but a URI has more than the path.
        let is_uri = self.how.path.as_os_str().as_encoded_bytes().starts_with(b"file:");
        let resolved = self.commits.borrow().place.as_ref().map(|it| it.path().to_path_buf());
        let path = resolved.filter(|_| !is_uri).unwrap_or_else(|| self.how.path.clone());
        let connection = Connection::open_hardened(&path, flags, &self.how.profile)?;
        if another.is_none() {
            self.commits.borrow().check_place()?;
        }
        engine::watch_wal(&connection);
        self.watch_commits(&connection);
        for definition in self.definitions.borrow().iter() {
            (definition.define)(&connection)?;
        }
        let settings = self.away.take();
        let applied = settings.as_ref().map_or(Ok(()), |settings| settings.apply(&connection));
        if let Err(error) = applied {
            self.away.set(settings);
            return Err(error.into());
        }
        if let Some(authorizer) = authorizer {
            authorizer.install(&connection);
        }
        Ok(connection)
    }
}

impl Commits {
    fn of(connection: &Connection) -> Box<Self> {
        Box::new(Self {
            has_begun: Cell::new(false),
            place: Place::of(connection),
            generation: connection.generation(),
            refusal: RefCell::default(),
        })
    }

    /// Checks that the path still leads to the file.
    fn check_place(&self) -> Result<()> {
        self.place.as_ref().map_or(Ok(()), Place::check)
    }

    /// Checks that a commit goes to the file at the path, and to the WAL next to it.
    fn check(&self) -> Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        if place.file().connection_set.generation() != self.generation {
            return Err(Error::stale());
        }
        place.check_briefly()
    }
}

/// The commit hook: refuses a commit to a file or a WAL that is no longer at its path. A result
/// other than 0 turns the COMMIT into a rollback.
unsafe extern "C" fn begins_to_commit(data: *mut c_void) -> c_int {
    // SAFETY: what `watch_commits` passed, on the connection's thread.
    let commits = unsafe { &*data.cast::<Commits>() };
    let checked = commits.check();
    commits.has_begun.set(checked.is_ok());
    let is_refused = checked.is_err();
    if is_refused {
        commits.refusal.replace(checked.err());
    } else if let Some(place) = &commits.place {
        place.file().wal.committed_without();
    }
    c_int::from(is_refused)
}

/// The file at the path is not the one that was open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Another {
    /// The file must exist.
    IsThere,
    /// The file is made if it does not exist.
    MayBeMade,
}

impl Database {
    /// Reopens the connection if it is stale or closed for that, and carries out the recovery that
    /// an error inside a transaction postponed. Does nothing for a plain `DatabaseSync`.
    ///
    /// # Errors
    /// `ERR_FUSION_WEDGED`; those of opening.
    #[inline]
    pub fn refresh(self: &Rc<Self>, environment: &Environment) -> Outcome<()> {
        match self.reopening() {
            Some(reopening) => self.refresh_hardened(environment, reopening),
            None => Ok(()),
        }
    }

    fn refresh_hardened(
        self: &Rc<Self>,
        environment: &Environment,
        reopening: &Reopen,
    ) -> Outcome<()> {
        let Some((is_stale, is_autocommit)) = self.at_rest() else {
            return Ok(());
        };
        if reopening.is_closed_for_reopen() || (is_stale && is_autocommit) {
            return self.reopen(environment, reopening);
        }
        if is_autocommit && let Some(error) = reopening.doubt.take() {
            // If the recovery fails, the call that is about to be made reports why.
            drop(self.recover(environment, reopening, &error));
        }
        Ok(())
    }

    /// Closes the connection if it is stale and idle in autocommit mode, because other connections
    /// of this process wait for that. Its next call reopens it.
    ///
    /// # Errors
    /// `ERR_FUSION_WEDGED` if the close would lose something, unless the connection is `given_up`.
    pub fn close_if_stale(
        self: &Rc<Self>,
        environment: &Environment,
        given_up: bool,
    ) -> Outcome<()> {
        let Some(reopening) = self.reopening() else {
            return Ok(());
        };
        if self.at_rest() != Some((true, true)) || (given_up && self.sharing().is_shared()) {
            return Ok(());
        }
        if !given_up && let Some(reason) = self.blocks_reopen(environment, reopening)? {
            return Err(Error::fusion(
                "ERR_FUSION_WEDGED",
                format!(
                    "the -wal or -shm file of the database was replaced while it was open, and \
                     this connection has {reason}, which would be lost if it were reopened. \
                     Close the database and open it again"
                ),
            )
            .into());
        }
        if given_up {
            super::session::delete_all(environment, self);
        }
        self.close_to_reopen(environment, reopening)
    }

    /// Closes the connection and keeps its settings for the next one.
    fn close_to_reopen(
        self: &Rc<Self>,
        environment: &Environment,
        reopening: &Reopen,
    ) -> Outcome<()> {
        self.put_away(environment, |connection| {
            let settings = Settings::of(connection);
            connection.close()?;
            reopening.away.set(Some(settings));
            Ok(())
        })
    }

    /// Recovers a `-wal` that was deleted while this connection had it open, if the connection is
    /// idle in autocommit mode. It may be the only one of this process that still has that file.
    fn save_what_was_deleted(&self) {
        if self.reopening().is_some() && self.at_rest() == Some((false, true)) {
            // A failure is not reported: the writer that requested this requests it again.
            drop(self.asking(|connection| {
                if let Some(file) = connection.file()
                    && file.check_sidecars().is_err()
                {
                    let remedy = file.recover_connections(Some(connection), Duration::ZERO)?;
                    file.recovery.attempted(Error::stale(), remedy);
                    file.suspect();
                }
                Ok(())
            }));
        }
    }

    /// What closing this connection would lose, for an error message.
    fn blocks_reopen(
        self: &Rc<Self>,
        environment: &Environment,
        reopening: &Reopen,
    ) -> Outcome<Option<&'static str>> {
        if reopening.has_extensions.get() {
            return Ok(Some("a loaded extension"));
        }
        if self.sharing().is_shared() {
            return Ok(Some("a backup under way"));
        }
        let of_this = |other: &Rc<Database>| Rc::ptr_eq(other, self);
        if super::session::has_any(environment, &of_this) {
            return Ok(Some("a session"));
        }
        let authorizer = self.authorizer();
        self.asking(|connection| {
            // SAFETY: the connection is open and this thread's.
            if unsafe { !ffi::sqlite3_db_name(connection.raw(), 2).is_null() } {
                return Ok(Some("an attached database"));
            }
            // The authorizer is not asked about a query of this package.
            Authorizer::remove(connection);
            let temporary: rusqlite::Result<i64> =
                connection
                    .sql()?
                    .query_row("SELECT count(*) FROM temp.sqlite_schema", [], |row| row.get(0));
            if let Some(authorizer) = &authorizer {
                authorizer.install(connection);
            }
            // If it cannot be read, the connection cannot use its temporary tables either.
            Ok((temporary.unwrap_or(0) > 0).then_some("temporary tables"))
        })
    }

    fn reopen(self: &Rc<Self>, environment: &Environment, reopening: &Reopen) -> Outcome<()> {
        self.close_if_stale(environment, false)?;
        // The recovery waits for every stale connection of the process, so close this thread's.
        close_all_stale(environment);
        let connection = reopening.open(self.authorizer().as_ref(), None)?;
        self.put_back(connection);
        Ok(())
    }

    /// Opens the file that is at the path now in place of the one that was open. Statements are
    /// prepared again when they are next run; functions, aggregates, the authorizer, limits and
    /// settings stay. Sessions, temporary tables, attached databases and loaded extensions go.
    ///
    /// # Errors
    /// `ERR_INVALID_STATE` without a file, while a statement runs or a backup is under way; those
    /// of opening, after which the connection stays closed until this succeeds.
    pub fn reopen_at_path(
        self: &Rc<Self>,
        environment: &Environment,
        another: Another,
    ) -> Outcome<()> {
        let Some(reopening) = self.reopening() else {
            return Err(Thrown::state("the database has no file"));
        };
        if self.sharing().is_shared() {
            return Err(Thrown::state("a backup of the database is under way"));
        }
        if !reopening.is_closed_for_reopen() {
            super::session::delete_all(environment, self);
            self.close_to_reopen(environment, reopening)?;
        }
        reopening.doubt.take();
        reopening.has_extensions.set(false);
        let connection = reopening.open(self.authorizer().as_ref(), Some(another))?;
        self.put_back(connection);
        Ok(())
    }

    /// Checks that the path still leads to the connection's file, if `statement` is about to begin
    /// to write in a transaction that goes on after it. The commit hook checks a statement that
    /// writes and commits at once.
    ///
    /// # Errors
    /// `ERR_FUSION_REPLACED`, `ERR_FUSION_UNLINKED`. Nothing was written.
    ///
    /// # Safety
    /// `statement` is prepared on `connection`, which is this database's.
    #[inline]
    pub(super) unsafe fn may_write(
        &self,
        connection: &Connection,
        statement: *mut ffi::sqlite3_stmt,
        is_of_rows: bool,
    ) -> Outcome<()> {
        // SAFETY: the caller's; both are this thread's.
        unsafe {
            if ffi::sqlite3_stmt_readonly(statement) != 0 {
                return Ok(());
            }
            let Some(reopening) = self.reopening() else { return Ok(()) };
            if is_of_rows && connection.is_autocommit() {
                return Ok(());
            }
            let state = ffi::sqlite3_txn_state(connection.raw(), c"main".as_ptr());
            if state == ffi::SQLITE_TXN_WRITE {
                return Ok(());
            }
            reopening.check_place()
        }
    }

    /// Why the last COMMIT was refused, if it was.
    pub(super) fn take_refusal(&self) -> Option<Thrown> {
        let refusal = self.reopening()?.commits.borrow().refusal.take()?;
        Some(self.refused(refusal))
    }

    /// The error for a commit that was refused because of `refusal`.
    fn refused(&self, refusal: Error) -> Thrown {
        let code = refusal.code;
        if let Some(reopening) = self.reopening() {
            reopening.stop_log(&refusal);
        }
        let lead = if refusal.class() == Class::Replaced {
            "The transaction was rolled back."
        } else {
            "The transaction was rolled back: make it again."
        };
        refusal.explained(code, lead).into()
    }

    /// Recovers the stale `-shm` or `-wal` that `error` may come from.
    fn recover(
        self: &Rc<Self>,
        environment: &Environment,
        reopening: &Reopen,
        error: &Error,
    ) -> Outcome<()> {
        let (file, remedy) = self.asking(|connection| {
            let Some(file) = connection.file() else {
                return Err(Thrown::state("the database has no file"));
            };
            let patience = reopening.how.profile.busy_timeout;
            Ok((Arc::clone(file), file.recover_connections(Some(connection), patience)?))
        })?;
        file.recovery.attempted(error.clone(), remedy);
        // The next write or checkpoint verifies the whole file first.
        file.suspect();
        if remedy != Remedy::IndexRebuilt {
            self.reopen(environment, reopening)?;
        }
        Ok(())
    }

    /// Recovers after a call that failed with `thrown`. `Ok`: make the call again. `again`: it was
    /// made again already.
    ///
    /// # Errors
    /// The error to throw.
    #[cold]
    pub fn mend(
        self: &Rc<Self>,
        environment: &Environment,
        thrown: Thrown,
        again: bool,
    ) -> Outcome<()> {
        let (Some(reopening), Thrown::Error(exception)) = (self.reopening(), &thrown) else {
            return Err(thrown);
        };
        let Some((errcode, _)) = &exception.sqlite else {
            return Err(thrown);
        };
        let mut error = Error::sqlite(*errcode, exception.message.clone());
        if let Some((cause, errno)) = exception.system {
            (error.cause, error.errno) = (Some(cause), errno);
        }
        let class = error.class();
        if error.errcode == ffi::SQLITE_CONSTRAINT_COMMITHOOK
            && let Some(refused) = self.take_refusal()
        {
            return Err(refused);
        }
        if class == Class::Replaced {
            // SQLite itself reports this with a rollback journal.
            reopening.check_place()?;
        }
        let is_unknown = reopening.commits.borrow().has_begun.get()
            && (class == Class::Corrupt || error.errcode & 0xff == ffi::SQLITE_IOERR)
            && self.at_rest().is_some_and(|(_, is_autocommit)| is_autocommit);
        let thrown = if is_unknown {
            error
                .clone()
                .explained(
                    "ERR_FUSION_COMMIT_UNKNOWN",
                    "COMMIT failed, and it is unknown whether the transaction was stored all the \
                     same: check before you make it again.",
                )
                .into()
        } else {
            thrown
        };
        let file = self.asking(|connection| Ok(connection.file().cloned())).ok().flatten();
        if !file.as_ref().map_or_else(|| error.may_be_stale(), |file| file.may_be_stale(&error)) {
            return Err(thrown);
        }
        if again {
            if let Some(file) = file {
                file.recovery.failed();
            }
            return Err(thrown);
        }
        match self.at_rest() {
            Some((_, true)) => {}
            Some((_, false)) => {
                reopening.doubt.replace(Some(error));
                return Err(thrown);
            }
            // A call inside another one.
            None => return Err(thrown),
        }
        match self.recover(environment, reopening, &error) {
            Ok(())
                if is_unknown || reopening.in_transaction.get() || reopening.has_effect.get() =>
            {
                Err(thrown)
            }
            Ok(()) => Ok(()),
            Err(Thrown::Error(other)) if other.code.starts_with("ERR_FUSION_") && !is_unknown => {
                Err(Thrown::Error(other))
            }
            Err(_) => Err(thrown),
        }
    }

    /// A call that was made again has succeeded.
    #[cold]
    pub fn mended(&self) {
        if let Ok(Some(file)) = self.asking(|connection| Ok(connection.file().cloned())) {
            file.recovery.confirmed();
        }
    }
}

/// Closes the connections of this thread that are stale and idle in autocommit mode.
pub fn close_all_stale(environment: &Environment) {
    let databases: Vec<_> = {
        let databases = environment.databases.borrow();
        let numbers = databases.numbers(|_| true);
        numbers.into_iter().filter_map(|number| databases.get(number).map(Rc::clone)).collect()
    };
    for database in databases {
        database.save_what_was_deleted();
        // A connection that cannot be closed reports that at its next call.
        drop(database.close_if_stale(environment, false));
    }
}
