//! Agent logs for JavaScript: entries in, receipts and events out.
//!
//! | call | what it is to the JavaScript thread |
//! |---|---|
//! | `logStage` | one raw callback a row: V8 writes the strings straight into an arena |
//! | `logSubmit` | hands the arena over: one lock, no copy |
//! | `logAppendOne` | copies one row into the queue's own arena |
//!
//! Arenas form a stack, because a getter of an entry may run an append of its own while the
//! entry is being read. Logs are known by numbers, as in [`super::environment`].

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use napi::sys;
use rusqlite::{OpenFlags, ffi};

use super::argument::{is_absent, millis, read_string, string};
use super::database::{
    adopt_hardened, configure, find as find_database, own_transaction, path, with_connection,
    with_connection_as_is,
};
use super::environment::Environment;
use super::errors::{Outcome, Thrown, check};
use super::handle_table::HandleTable;
use super::js_events::ToJavaScript;
use super::js_queue::{LogEvent, Message};
use super::log_entry::{entry_value, read_entry};
use super::log_options::{options, profile};
use super::log_stats::stats_value;
use super::raw_call::{Call, Raw, callback, text};
use super::reopen::{OpenParams, Reopen, close_all_stale};
use super::value::{boolean, new_array, number_value, set_element};
use crate::agent_log::{self, CallerTransaction, Entries, Log, Refusal};
use crate::checkpoint::{self, Mode};
use crate::engine::{
    self, Connection, Error, FileId, JournalMode, Profile, Wal, shown, with_sync_call,
};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[
    (c"openHardened", callback!(open_hardened)),
    (c"checkpointOnClose", callback!(checkpoint_on_close)),
    (c"changedSettings", callback!(changed_settings)),
    (c"logFlushBeforeReads", callback!(flush_before_reads)),
    (c"logOpen", callback!(open)),
    (c"logSql", callback!(sql)),
    (c"logColumns", callback!(columns)),
    (c"logBegin", callback!(begin)),
    (c"logStage", callback!(stage)),
    (c"logInternType", callback!(intern_type)),
    (c"logAbort", callback!(abort)),
    (c"logSubmit", callback!(submit)),
    (c"logTurnEnded", callback!(turn_ended)),
    (c"logAppendOne", callback!(append_one)),
    (c"logFlush", callback!(flush)),
    (c"logFlushSync", callback!(flush_sync)),
    (c"logTransactionEnded", callback!(transaction_ended)),
    (c"logIsDisplaced", callback!(is_displaced)),
    (c"logMove", callback!(move_to)),
    (c"logTakePending", callback!(take_pending)),
    (c"logCheckpoint", callback!(checkpoint_now)),
    (c"logStats", callback!(stats)),
    (c"logRelease", callback!(release)),
    (c"logWaitEnded", callback!(wait_ended)),
    (c"logWhenEnded", callback!(when_ended)),
];

/// How much sooner than after `busyTimeout` a transaction is reported: the writer asks now and
/// then.
const REPORT_EARLY: Duration = Duration::from_millis(200);

/// A log that JavaScript has open.
struct Handle {
    log: Log,
    /// Number of the database it was opened through; none for `appendAgentLogs(path, …)`.
    database: Option<u32>,
    in_memory: bool,
    borrowed: RefCell<Option<CallerTransaction>>,
    /// Number of the JavaScript function that takes its events.
    receiver: u32,
}

/// The logs of an environment.
#[derive(Default)]
pub struct Logs {
    handles: RefCell<HandleTable<Rc<Handle>>>,
    /// JavaScript functions that take events, each until its log is released.
    receivers: RefCell<HandleTable<sys::napi_ref>>,
    /// Arenas being filled, innermost last.
    stages: RefCell<Vec<Entries>>,
    spare: Cell<Entries>,
    /// Size of the arena that was handed over last.
    last_bytes: Cell<usize>,
    /// Types that entries may name by number.
    interned: RefCell<Vec<Box<[u8]>>>,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logs").finish_non_exhaustive()
    }
}

impl Logs {
    /// The function that takes the events of the log with this receiver; none once it is released.
    ///
    /// # Errors
    /// N-API's.
    pub(super) fn receiver(
        &self,
        env: sys::napi_env,
        number: u32,
    ) -> Outcome<Option<sys::napi_value>> {
        let Some(&reference) = self.receivers.borrow().get(number) else { return Ok(None) };
        let mut function = ptr::null_mut();
        // SAFETY: the reference is deleted when it is taken out of the table.
        check(unsafe { sys::napi_get_reference_value(env, reference, &mut function) })?;
        Ok(Some(function))
    }

    /// No more events go to this receiver.
    fn ignore(&self, env: sys::napi_env, number: u32) {
        if let Some(reference) = self.receivers.borrow_mut().remove(number) {
            // SAFETY: the table had it, once; `env` is its environment.
            unsafe { sys::napi_delete_reference(env, reference) };
        }
    }
}

fn find(call: &Call<'_>) -> Outcome<Rc<Handle>> {
    let handles = call.environment.logs.handles.borrow();
    let handle = handles.get(call.number(0)?).map(Rc::clone);
    handle.ok_or_else(|| Thrown::state("database is not open"))
}

/// `logInternType(type)`: the number under which a type is known in this thread; undefined if it is too
/// long, or too many are.
fn intern_type(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let mut bytes = Vec::new();
    if !read_string(call.env, call.arg(0)?, &mut bytes)? || bytes.is_empty() || bytes.len() > 64 {
        return call.undefined();
    }
    let mut interned = call.environment.logs.interned.borrow_mut();
    let number = match interned.iter().position(|known| **known == *bytes) {
        Some(number) => number,
        None if interned.len() == 256 => return call.undefined(),
        None => {
            interned.push(bytes.into_boxed_slice());
            interned.len() - 1
        }
    };
    number_value(call.env, number as f64)
}

#[cold]
fn refused(refusal: Refusal) -> Thrown {
    let error = match refusal {
        Refusal::Full { queued, offered, limit } => Error::fusion(
            "ERR_FUSION_QUEUE_FULL",
            format!(
                "the log's queue is full: {queued} of {limit} bytes are waiting to be written, and \
                 {offered} more were offered. Nothing was taken; await earlier appends or \
                 flushAgentLogs() and try again, or raise queueBytes."
            ),
        ),
        Refusal::TooLarge { offered, limit } => Error::fusion(
            "ERR_FUSION_TOO_LARGE",
            format!(
                "the entries need {offered} bytes, more than the whole queue may hold ({limit}). \
                 Nothing was taken; append them in smaller parts, or raise queueBytes."
            ),
        ),
        Refusal::Stopped(error) => {
            let lead = "Writing has stopped for good, so nothing was taken; takePending() hands \
                        back what was accepted earlier.";
            let code = error.code;
            error.explained(code, lead)
        }
        Refusal::Closed => Error::fusion("ERR_INVALID_STATE", "database is not open"),
    };
    error.into()
}

/// The environment ends, and its logs with it.
pub fn end_all(environment: &Environment) {
    // Windows allows no wait for a thread once the process ends, so that a worker waits
    // here; elsewhere the process's end does.
    #[cfg(windows)]
    super::environment::abandon_transactions();
    #[cfg(windows)]
    drop(agent_log::flush_until(std::time::Instant::now() + agent_log::END_DEADLINE));
    let logs = &environment.logs;
    drop(logs.handles.take());
    let receivers = logs.receivers.borrow().numbers(|_| true);
    for number in receivers {
        logs.ignore(environment.env, number);
    }
    drop((logs.stages.take(), logs.spare.take(), logs.interned.take()));
}

/// How [`open_hardened`] opens a file, as bits.
mod opening {
    pub const READ_ONLY: u32 = 1;
    pub const MUST_EXIST: u32 = 2;
    pub const INSISTS_ON_WAL: u32 = 4;
    pub const EXTENSIONS: u32 = 8;
}

/// `openHardened(path, how, busyTimeout, synchronous, journalSizeLimit, allowHardLinks,
/// allowNetwork, switches)`: the number of a new connection with the hardened profile. `path` is a
/// string or a `Uint8Array`, `how` are bits of [`opening`].
fn open_hardened(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let path = path(call.env, call.arg(0)?)?;
    let how = call.number(1)?;
    let is = |bit: u32| how & bit != 0;
    let mut flags = OpenFlags::SQLITE_OPEN_URI;
    if is(opening::READ_ONLY) {
        flags |= OpenFlags::SQLITE_OPEN_READ_ONLY;
    } else {
        flags |= OpenFlags::SQLITE_OPEN_READ_WRITE;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, !is(opening::MUST_EXIST));
    }
    let profile = profile(call, 2)?;
    let connection = Connection::open_hardened(&path, flags, &profile).map_err(|error| {
        let is_missing = is(opening::MUST_EXIST)
            && error.errcode & 0xff == ffi::SQLITE_CANTOPEN
            && std::fs::symlink_metadata(&path)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let error = error.at(&path);
        if is_missing {
            error.explained("ERR_FUSION_MISSING", "there is no such file, and mustExist is set")
        } else {
            error
        }
    })?;
    if is(opening::INSISTS_ON_WAL) {
        connection.insist_on_wal()?;
    }
    if is(opening::EXTENSIONS) {
        configure(&connection, ffi::SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, true)?;
    }
    engine::watch_wal(&connection);
    let how = OpenParams { path, flags, profile };
    let number = adopt_hardened(call.env, connection, how)?;
    number_value(call.env, f64::from(number))
}

/// `checkpointOnClose(database)`: the file's last connection may remove the WAL, which the writer
/// has emptied.
fn checkpoint_on_close(call: &Call<'_>) -> Outcome<sys::napi_value> {
    with_connection_as_is(call.env, call.number(0)?, |connection| {
        if !connection.raw().is_null() {
            connection.checkpoint_on_close(true);
        }
        Ok(())
    })?;
    call.undefined()
}

/// `logOpen(receiver, database, path, explicit_options, batch, queue, checkpoint, counter, profile…)`: the
/// number of a handle on the log of an open database, or of the file at `path`. Its events go to
/// `receiver(name, …)` until it is released.
fn open(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let logs = &call.environment.logs;
    let database = if is_absent(call.env, call.arg(1)?) { None } else { Some(call.number(1)?) };
    let options = options(call)?;
    let explicit_options = call.flag(3);
    let mailbox = call.environment.mailbox()?;
    let mut reference = ptr::null_mut();
    // SAFETY: the argument is a handle of the running callback.
    check(unsafe { sys::napi_create_reference(call.env, call.arg(0)?, 1, &mut reference) })?;
    let inserted = logs.receivers.borrow_mut().insert(reference);
    let receiver = inserted.ok_or_else(|| Thrown::state("too many open logs"))?;
    let listener = Arc::new(ToJavaScript { mailbox, receiver });
    let opened = match database {
        Some(number) => with_connection(call.env, number, |connection| {
            let Some(file) = connection.file() else {
                return Ok((agent_log::open_in_memory(options, listener), true));
            };
            let log = agent_log::open(file, options, explicit_options, listener)?;
            log.look_for_table(connection);
            Ok((log, false))
        }),
        None => string(call, 2).and_then(|path| {
            let path = PathBuf::from(path.unwrap_or_default());
            let (file, _made) = file_at(&path, &options.profile)?;
            Ok((agent_log::open(&file, options, explicit_options, listener)?, false))
        }),
    };
    let (log, in_memory) = opened.inspect_err(|_| logs.ignore(call.env, receiver))?;
    let borrowed = RefCell::default();
    let handle = Rc::new(Handle { log, database, in_memory, borrowed, receiver });
    let number = logs.handles.borrow_mut().insert(handle);
    number_value(call.env, f64::from(number.ok_or_else(|| Thrown::state("too many open logs"))?))
}

/// `logSql()`: the table's SQL, and the statement that increases a change counter.
fn sql(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let array = new_array(call.env)?;
    for (index, sql) in (0..).zip([agent_log::SCHEMA, agent_log::BUMP]) {
        set_element(call.env, array, index, text(call.env, sql.as_bytes())?)?;
    }
    Ok(array)
}

/// `logColumns(log)`: the further columns of a log, which its first handle named.
fn columns(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let array = new_array(call.env)?;
    for (index, column) in (0..).zip(find(call)?.log.options().columns.iter()) {
        set_element(call.env, array, index, text(call.env, column.as_bytes())?)?;
    }
    Ok(array)
}

/// The database file at `path`. Where it was made, it comes with the connection that made it.
fn file_at(
    path: &std::path::Path,
    profile: &Profile,
) -> Outcome<(Arc<engine::DatabaseFile>, Option<Connection>)> {
    engine::init()?;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::sqlite(
            ffi::SQLITE_CANTOPEN,
            "it is a directory. Name a database file inside it",
        )
        .at(&path)
        .into());
    }
    if let Ok(id) = FileId::of(&path) {
        return Ok((engine::DatabaseFile::shared(id, &path), None));
    }
    // A file that has vanished does not come back empty.
    let create =
        if engine::was_opened(&path) { OpenFlags::empty() } else { OpenFlags::SQLITE_OPEN_CREATE };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | create;
    let made = Connection::open_hardened(&path, flags, profile).map_err(|error| error.at(&path))?;
    let file = made.file().map(Arc::clone);
    let file = file.ok_or_else(|| Thrown::state("the path names no file"))?;
    Ok((file, Some(made)))
}

/// `logBegin()`: a new, empty arena is to be filled.
fn begin(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let logs = &call.environment.logs;
    let mut entries = logs.spare.take();
    // As much as the last batch needed: growing step by step would copy it each time.
    entries.reserve(logs.last_bytes.get());
    logs.stages.borrow_mut().push(entries);
    call.undefined()
}

/// `logStage(shape, taskId, timestamp, text, type, detail, agent, …columns)`: adds an entry to the
/// arena.
fn stage(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let logs = &call.environment.logs;
    let mut stages = logs.stages.borrow_mut();
    let entries = stages.last_mut().ok_or_else(|| Thrown::state("no batch was begun"))?;
    read_entry(call, 0, &logs.interned.borrow(), entries)?;
    call.undefined()
}

/// `logAbort()`: drops the arena.
fn abort(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let logs = &call.environment.logs;
    if let Some(mut entries) = logs.stages.borrow_mut().pop() {
        entries.clear();
        logs.spare.set(entries);
    }
    call.undefined()
}

/// `logSubmit(log)`: hands the arena over; a promise for the receipt. Throws, and has taken
/// nothing, where the entries are refused.
fn submit(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let logs = &call.environment.logs;
    let entries = logs.stages.borrow_mut().pop().unwrap_or_default();
    let handle = find(call)?;
    let size = entries.byte_len().min(1 << 20);
    call.environment.promise(call.env, |ticket, mailbox| {
        let reply = Box::new(move |answer| mailbox.post(Message::Receipt(ticket, answer)));
        logs.spare.set(handle.log.append(entries, reply).map_err(refused)?);
        logs.last_bytes.set(size);
        handle.write_in_memory(call)
    })
}

/// `logTurnEnded(log)`: the turn of the event loop has ended in which `logSubmit` was called. A
/// log that was closed since needs no such report.
fn turn_ended(call: &Call<'_>) -> Outcome<sys::napi_value> {
    if let Ok(handle) = find(call) {
        handle.log.turn_ended();
    }
    call.undefined()
}

/// `logAppendOne(log, shape, taskId, timestamp, text, type, detail, agent, …columns)`: whether it
/// was taken.
fn append_one(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    let logs = &call.environment.logs;
    let mut entry = logs.spare.take();
    let read = read_entry(call, 1, &logs.interned.borrow(), &mut entry);
    let taken = read.and_then(|()| match handle.log.append_one(&entry) {
        Ok(()) => Ok(true),
        Err(Refusal::Full { .. }) => Ok(false),
        Err(refusal) => Err(refused(refusal)),
    });
    entry.clear();
    logs.spare.set(entry);
    let taken = taken?;
    if taken {
        handle.write_in_memory(call)?;
    }
    boolean(call.env, taken)
}

impl Handle {
    /// Writes what is queued on the database's own connection.
    fn write_here(&self, call: &Call<'_>) -> Outcome<crate::engine::Result<()>> {
        let Some(number) = self.database else { return Ok(Ok(())) };
        with_connection(call.env, number, |connection| {
            let mut borrowed = self.borrowed.borrow_mut();
            Ok(with_sync_call(connection.file().map(|file| &file.turn), || {
                self.log.write_in_caller_transaction(connection, &mut borrowed)
            }))
        })
    }

    /// Does the same for a database in memory, which has no writer thread. For a database with a
    /// file it does nothing. The entries are queued already, so this call does not fail with the
    /// error: the waiting appends fail with it, an event reports it, and the next call tries again.
    fn write_in_memory(&self, call: &Call<'_>) -> Outcome<()> {
        if self.in_memory
            && let Err(error) = self.write_here(call)?
        {
            self.log.fail_waiting(&error);
        }
        Ok(())
    }

    /// How long a call of the handle waits for another connection.
    fn patience(&self, environment: &Environment) -> Duration {
        let databases = environment.databases.borrow();
        let database = self.database.and_then(|number| databases.get(number));
        let reopening = database.and_then(|database| database.reopening());
        reopening.map_or(self.log.options().profile.busy_timeout, Reopen::patience)
    }

    /// Checks that a blocking wait for the writer can end: no connection of this thread holds the
    /// write lock that the writer waits for.
    fn refuse_to_wait(&self, environment: &Environment) -> Outcome<()> {
        if self.log.has_pending()
            && let Some((_, error)) = own_transaction(environment, self.log.file())
        {
            return Err(pending(error).into());
        }
        Ok(())
    }

    /// Waits until what was handed over is committed, or is part of the database's own transaction.
    fn flush_sync(&self, call: &Call<'_>, timeout: Duration) -> Outcome<()> {
        if self.in_memory || self.is_in_the_way(call)? {
            self.write_here(call)??;
        } else {
            self.refuse_to_wait(call.environment)?;
            self.log.flush_while(timeout, &|| close_all_stale(call.environment))?;
        }
        Ok(())
    }

    /// Whether the writer would wait for the database's own connection: it is in a write
    /// transaction, or, with a rollback journal, in any transaction.
    fn is_in_the_way(&self, call: &Call<'_>) -> Outcome<bool> {
        let Some(number) = self.database else { return Ok(false) };
        with_connection_as_is(call.env, number, |connection| {
            if connection.raw().is_null() {
                return Ok(false);
            }
            // SAFETY: the connection is open and used by this thread alone.
            let state = unsafe { ffi::sqlite3_txn_state(connection.raw(), c"main".as_ptr()) };
            // In autocommit mode a statement is in the middle of writing, and ends with a COMMIT.
            // In WAL mode a connection that reads has the -wal open.
            Ok(state == ffi::SQLITE_TXN_WRITE && !connection.is_autocommit()
                || state == ffi::SQLITE_TXN_READ && !Wal::path(connection.path()).exists())
        })
    }
}

/// `logFlush(log)`: a promise of a barrier. Inside a write transaction of the database what is
/// pending is written in that transaction.
fn flush(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    call.environment.promise(call.env, |ticket, mailbox| {
        if handle.in_memory || handle.is_in_the_way(call)? {
            handle.write_here(call)??;
            mailbox.post(Message::Done(ticket, Ok(())));
        } else {
            handle.log.barrier(move |outcome| mailbox.post(Message::Done(ticket, outcome)));
        }
        Ok(())
    })
}

/// `logFlushSync(log, timeout)`: the same, but blocks the thread until then.
fn flush_sync(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let timeout = millis(call, 1)?;
    find(call)?.flush_sync(call, timeout)?;
    call.undefined()
}

/// `logFlushBeforeReads(log, timeout)`: from here on every read of the log's database comes after
/// what was handed over before it.
fn flush_before_reads(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let (number, timeout) = (call.number(0)?, millis(call, 1)?);
    let Some(database) = find(call)?.database else { return call.undefined() };
    let flush = move |call: &Call<'_>| -> Outcome<()> {
        let handle = call.environment.logs.handles.borrow().get(number).map(Rc::clone);
        match handle.filter(|handle| handle.database == Some(database)) {
            Some(handle) if handle.log.has_pending() => handle.flush_sync(call, timeout),
            _ => Ok(()),
        }
    };
    find_database(call.environment, database)?.before_reads(Rc::new(flush));
    call.undefined()
}

/// `changedSettings(database)`, after a PRAGMA: puts back what the file's writer depends on, and
/// returns the names of the settings that are not the profile's, each with its value and the
/// profile's, in one array.
fn changed_settings(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find_database(call.environment, call.number(0)?)?;
    let Some(profile) = database.reopening().map(|reopening| reopening.profile().clone()) else {
        return new_array(call.env);
    };
    let changed = database.unasked(|connection| {
        let mut changed: Vec<(&str, String, String)> = profile
            .changed_on(connection)?
            .into_iter()
            .map(|(name, now, own)| (name, now.to_string(), own.to_string()))
            .collect();
        // PRAGMA wal_autocheckpoint takes the place of the hook, whatever its value.
        engine::watch_wal(connection);
        connection.mode_may_have_changed()?;
        if profile.journal_mode == JournalMode::Wal && !connection.is_wal()? {
            changed.push(("journal_mode", "rollback".to_owned(), "wal".to_owned()));
        }
        if connection.is_exclusive()? {
            changed.push(("locking_mode", "exclusive".to_owned(), "normal".to_owned()));
        }
        Ok(changed)
    })?;
    let array = new_array(call.env)?;
    let mut index = 0;
    for (name, now, own) in &changed {
        for part in [name, now.as_str(), own.as_str()] {
            set_element(call.env, array, index, text(call.env, part.as_bytes())?)?;
            index += 1;
        }
    }
    Ok(array)
}

/// The writer of one of this thread's logs has waited long for the write lock. If a transaction of
/// this thread holds that lock, reports it to the appends of this thread that wait. The event loop
/// has come round since, so no running call is about to end that transaction.
pub(super) fn report_own_transactions(environment: &Rc<Environment>) -> Outcome<()> {
    let handles: Vec<_> = {
        let handles = environment.logs.handles.borrow();
        let numbers = handles.numbers(|_| true);
        numbers.into_iter().filter_map(|it| handles.get(it).map(Rc::clone)).collect()
    };
    let mailbox = environment.mailbox()?;
    let (mut failed_files, mut reported) = (Vec::new(), Vec::new());
    for handle in handles {
        let file = handle.log.file();
        if handle.in_memory || !handle.log.has_pending() {
            continue;
        }
        let Some((database, error)) = own_transaction(environment, file) else {
            continue;
        };
        let error = pending(error);
        let patience = handle.patience(environment).saturating_sub(REPORT_EARLY);
        let waiting =
            handle.log.report_own_transaction(std::thread::current().id(), patience, &error);
        if waiting.reported {
            failed_files.push(file.id);
        } else if waiting.lasts && !failed_files.contains(&file.id) && !database.is_reported() {
            mailbox.post(Message::Event(handle.receiver, LogEvent::Failure("error", error)));
        } else {
            continue;
        }
        reported.push(database);
    }
    for database in reported {
        database.set_reported();
    }
    Ok(())
}

/// Adds to `error`, which keeps the log from writing, what it means for the log's entries.
fn pending(mut error: Error) -> Error {
    error.message.push_str(". The log entries are kept, and are written once that has ended");
    error
}

/// `logIsDisplaced(log)`: whether writing has stopped because the path leads elsewhere.
fn is_displaced(call: &Call<'_>) -> Outcome<sys::napi_value> {
    boolean(call.env, find(call)?.log.is_displaced())
}

/// `logMove(log, next)`: moves the uncommitted entries, and the calls that wait for them, to log
/// `next`.
fn move_to(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    let next = call.number(1)?;
    let next = call.environment.logs.handles.borrow().get(next).map(Rc::clone);
    let next = next.ok_or_else(|| Thrown::state("database is not open"))?;
    handle.log.move_to(&next.log);
    call.undefined()
}

/// `logTransactionEnded(log)`: a transaction of a database in memory has ended. A ROLLBACK may have
/// undone entries, which are queued again.
fn transaction_ended(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    if handle.log.has_queued() {
        handle.write_in_memory(call)?;
    }
    call.undefined()
}

/// `logTakePending(log)`: what was accepted and is not committed, as an array of entries.
fn take_pending(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    let array = new_array(call.env)?;
    let mut index = 0;
    for entries in handle.log.take_pending() {
        let mut position = agent_log::Position::default();
        while let Some((entry, next)) = entries.at(position) {
            set_element(
                call.env,
                array,
                index,
                entry_value(call.env, &entry, &handle.log.options().columns)?,
            )?;
            index += 1;
            position = next;
        }
    }
    Ok(array)
}

/// `logCheckpoint(log, mode)`: a promise for the result.
fn checkpoint_now(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    let mode = string(call, 1)?.as_deref().and_then(Mode::named).unwrap_or(Mode::Passive);
    call.environment.promise(call.env, |ticket, mailbox| {
        let done = move |outcome| mailbox.post(Message::Checkpoint(ticket, outcome));
        if handle.in_memory {
            done(Ok(checkpoint::CheckpointOutcome { mode, busy: false, frames: 0, backfilled: 0 }));
        } else {
            handle.log.checkpoint(mode, done);
        }
        Ok(())
    })
}

/// `logRelease(log)`: releases the handle; whether it was the file's last.
fn release(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let Some(handle) = take(call)? else { return call.undefined() };
    call.environment.logs.ignore(call.env, handle.receiver);
    // The number stays usable for `logWaitEnded`, through a new one.
    let Ok(mut handle) = Rc::try_unwrap(handle) else { return call.undefined() };
    let last = handle.log.release() && !handle.in_memory;
    if !last {
        return call.undefined();
    }
    if handle.database.is_none() {
        // The next append by this path opens the file that is then at the path: no handle is left
        // that would reopen.
        handle.log.file().leave_path();
    }
    let number = call.environment.logs.handles.borrow_mut().insert(Rc::new(handle));
    number_value(call.env, f64::from(number.ok_or_else(|| Thrown::state("too many open logs"))?))
}

/// Takes the handle out of the table.
fn take(call: &Call<'_>) -> Outcome<Option<Rc<Handle>>> {
    let number = call.number(0)?;
    Ok(call.environment.logs.handles.borrow_mut().remove(number))
}

/// `logWaitEnded(log, timeout)`: blocks the thread until the writer of a released log has ended;
/// whether it has ended and left the file in order.
fn wait_ended(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let timeout = millis(call, 1)?;
    let handle = take(call)?;
    let meanwhile = || close_all_stale(call.environment);
    let in_order = handle.is_some_and(|handle| handle.log.wait_ended(timeout, &meanwhile));
    boolean(call.env, in_order)
}

/// `logWhenEnded(log)`: a promise of the same.
fn when_ended(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = take(call)?;
    call.environment.promise(call.env, |ticket, mailbox| {
        let done = move |outcome| mailbox.post(Message::Done(ticket, outcome));
        match handle {
            Some(handle) => handle.log.when_ended(done),
            None => done(Ok(())),
        }
        Ok(())
    })
}

/// `flushAll(isLast)`: the process ends. Blocks the thread, up to a deadline, until every log of
/// the process is written. If this is the last call before the end, rolls back this thread's open
/// transactions first, for which the writers may wait; else the end of the environment does so, and
/// waits for the rest. Returns an array of sentences about logs with entries that were not written.
pub fn flush_all(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let lost = new_array(call.env)?;
    if !call.flag(0) {
        agent_log::flush_unlocked();
        return Ok(lost);
    }
    for (index, sentence) in (0..).zip(agent_log::flush_all()) {
        set_element(call.env, lost, index, text(call.env, shown(&sentence).as_bytes())?)?;
    }
    Ok(lost)
}

/// `logStats(log)`: the figures, flat.
fn stats(call: &Call<'_>) -> Outcome<sys::napi_value> {
    stats_value(call.env, &find(call)?.log)
}
