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
use std::ffi::{CStr, c_void};
use std::path::PathBuf;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use napi::sys;
use rusqlite::{OpenFlags, ffi};

use super::argument::{double, is_absent, millis, read_string, string};
use super::callback::{Call, Raw, callback, text};
use super::database::{adopt_hardened, own_transaction, with_connection, with_connection_as_is};
use super::delivery::{ToJavaScript, deliver};
use super::environment::{self, Environment};
use super::errors::{Outcome, Thrown, check};
use super::healing::{Healing, How, let_go_all};
use super::log_entry::{entry_value, read_entry};
use super::log_options::{options, profile};
use super::log_stats::stats_value;
use super::mailbox::{Happening, Mailbox, Message};
use super::slab::Slab;
use super::value::{boolean, new_array, number_value, set_element};
use crate::agent_log::{self, Borrowed, Entries, Log, Refusal};
use crate::checkpoint::{self, Mode};
use crate::engine::{self, Connection, Error, FileId, during};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[
    (c"connectMailbox", callback!(connect_mailbox)),
    (c"keepAlive", callback!(keep_alive)),
    (c"openHardened", callback!(open_hardened)),
    (c"checkpointOnClose", callback!(checkpoint_on_close)),
    (c"logOpen", callback!(open)),
    (c"logBegin", callback!(begin)),
    (c"logStage", callback!(stage)),
    (c"logLearn", callback!(learn)),
    (c"logAbort", callback!(abort)),
    (c"logSubmit", callback!(submit)),
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
    (c"flushAll", callback!(flush_all)),
];

/// How much sooner than after `busyTimeout` a transaction is reported: the writer asks now and then.
const REPORT_EARLY: Duration = Duration::from_millis(200);

/// A log that JavaScript has open.
struct Handle {
    log: Log,
    /// By which events name it.
    id: f64,
    /// Number of the database it was opened through; none for `appendAgentLogs(path, …)`.
    database: Option<u32>,
    in_memory: bool,
    borrowed: RefCell<Option<Borrowed>>,
}

#[derive(Default)]
struct Thread {
    logs: RefCell<Slab<Rc<Handle>>>,
    /// Arenas being filled, innermost last.
    stages: RefCell<Vec<Entries>>,
    spare: Cell<Entries>,
    /// Size of the arena that was handed over last.
    last_bytes: Cell<usize>,
    mailbox: RefCell<Option<Arc<Mailbox>>>,
    /// Types that entries may name by number.
    learnt: RefCell<Vec<Box<[u8]>>>,
}

thread_local! {
    static THREAD: Thread = Thread::default();
}

fn with_thread<R>(body: impl FnOnce(&Thread) -> Outcome<R>) -> Outcome<R> {
    match THREAD.try_with(body) {
        Ok(outcome) => outcome,
        Err(_) => Err(Thrown::state("the environment has ended")),
    }
}

fn find(call: &Call<'_>) -> Outcome<Rc<Handle>> {
    let number = call.number(0)?;
    with_thread(|thread| {
        thread
            .logs
            .borrow()
            .get(number)
            .map(Rc::clone)
            .ok_or_else(|| Thrown::state("database is not open"))
    })
}

/// This thread's mailbox.
pub(super) fn mailbox() -> Outcome<Arc<Mailbox>> {
    with_thread(|thread| {
        thread
            .mailbox
            .borrow()
            .as_ref()
            .map(Arc::clone)
            .ok_or_else(|| Thrown::state("the environment has ended"))
    })
}

/// `logLearn(type)`: the number under which a type is known from now on; undefined if it is too
/// long, or too many are.
fn learn(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let mut bytes = Vec::new();
    if !read_string(call.env, call.arg(0)?, &mut bytes)? || bytes.is_empty() || bytes.len() > 64 {
        return call.undefined();
    }
    let number = with_thread(|thread| {
        let mut learnt = thread.learnt.borrow_mut();
        let number = (learnt.len() < 256).then_some(learnt.len());
        if number.is_some() {
            learnt.push(bytes.into_boxed_slice());
        }
        Ok(number)
    })?;
    match number {
        Some(number) => number_value(call.env, number as f64),
        None => call.undefined(),
    }
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

/// `connectMailbox(receiver)`: where this thread's answers and events go. Once a thread.
fn connect_mailbox(call: &Call<'_>) -> Outcome<sys::napi_value> {
    if mailbox().is_ok() {
        return Err(Thrown::state("the mailbox is connected already"));
    }
    let created = Mailbox::create(call.env, call.arg(0)?, deliver)?;
    with_thread(|thread| {
        *thread.mailbox.borrow_mut() = Some(created);
        Ok(())
    })?;
    agent_log::at_end(environment::abandon_transactions);
    // SAFETY: the hook runs on this thread, before it ends.
    check(unsafe { sys::napi_add_env_cleanup_hook(call.env, Some(end_thread), ptr::null_mut()) })?;
    call.undefined()
}

unsafe extern "C" fn end_thread(_: *mut c_void) {
    // Only fails once the thread's locals are gone, and with them the logs.
    let _ = THREAD.try_with(|thread| {
        // Windows lets nobody wait for a thread once the process ends, so that a worker waits
        // here; elsewhere the process's end does.
        #[cfg(windows)]
        environment::abandon_transactions();
        #[cfg(windows)]
        drop(agent_log::flush_until(std::time::Instant::now() + agent_log::END_DEADLINE));
        thread.logs.take();
        thread.mailbox.take();
        thread.stages.take();
    });
}

/// `keepAlive(alive)`
fn keep_alive(call: &Call<'_>) -> Outcome<sys::napi_value> {
    mailbox()?.keep_alive(call.env, call.flag(0))?;
    call.undefined()
}

/// `openHardened(path, readOnly, busyTimeout, synchronous, journalSizeLimit, allowHardLinks,
/// allowNetwork, foreignKeys)`: the number of a new connection with the hardened profile.
fn open_hardened(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let path = PathBuf::from(string(call, 0)?.unwrap_or_default());
    let flags = OpenFlags::SQLITE_OPEN_URI
        | if call.flag(1) {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        };
    let profile = profile(call, 2)?;
    let connection = Connection::open_hardened(&path, flags, &profile)
        .map_err(|error| Thrown::from(error.at(&path)))?;
    engine::watch_wal(&connection);
    let how = How { path, flags, profile };
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

/// `logOpen(id, database, path, insists, batch, queue, checkpoint, counter, profile…)`: the
/// number of a handle on the log of an open database, or of the file at `path`. Events name the
/// handle by `id`.
fn open(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let id = double(call, 0)?;
    let database = if is_absent(call.env, call.arg(1)?) { None } else { Some(call.number(1)?) };
    let options = options(call)?;
    let insists = call.flag(3);
    let listener = Arc::new(ToJavaScript { mailbox: mailbox()?, id });
    let (log, in_memory) = match database {
        Some(number) => with_connection(call.env, number, |connection| {
            Ok(match connection.file() {
                Some(file) => (agent_log::open(file, options, insists, listener)?, false),
                None => (agent_log::open_in_memory(options, listener), true),
            })
        })?,
        None => {
            let path = PathBuf::from(string(call, 2)?.unwrap_or_default());
            let file = file_at(&path)?;
            (agent_log::open(&file, options, insists, listener)?, false)
        }
    };
    let handle = Rc::new(Handle { log, id, database, in_memory, borrowed: RefCell::default() });
    let number = with_thread(|thread| Ok(thread.logs.borrow_mut().insert(handle)))?
        .ok_or_else(|| Thrown::state("too many open logs"))?;
    number_value(call.env, f64::from(number))
}

/// The database file at `path`, which must exist: a log needs Fusion's tables.
fn file_at(path: &std::path::Path) -> Outcome<Arc<engine::DatabaseFile>> {
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
    match FileId::of(&path) {
        Ok(id) => Ok(engine::DatabaseFile::shared(id, &path)),
        Err(error) => Err(Error::sqlite(
            ffi::SQLITE_CANTOPEN,
            format!("there is no database to append to: {error}. Create it with Fusion's schema."),
        )
        .at(&path)
        .into()),
    }
}

/// `logBegin()`: a new, empty arena is to be filled.
fn begin(call: &Call<'_>) -> Outcome<sys::napi_value> {
    with_thread(|thread| {
        let mut entries = thread.spare.take();
        // As much as the last batch needed: growing step by step would copy it each time.
        entries.reserve(thread.last_bytes.get());
        thread.stages.borrow_mut().push(entries);
        Ok(())
    })?;
    call.undefined()
}

/// `logStage(shape, taskId, timestamp, text, type, detail, agent)`: adds an entry to the arena.
fn stage(call: &Call<'_>) -> Outcome<sys::napi_value> {
    with_thread(|thread| {
        let mut stages = thread.stages.borrow_mut();
        let entries = stages.last_mut().ok_or_else(|| Thrown::state("no batch was begun"))?;
        read_entry(call, 0, &thread.learnt.borrow(), entries)
    })?;
    call.undefined()
}

/// `logAbort()`: drops the arena.
fn abort(call: &Call<'_>) -> Outcome<sys::napi_value> {
    with_thread(|thread| {
        if let Some(mut entries) = thread.stages.borrow_mut().pop() {
            entries.clear();
            thread.spare.set(entries);
        }
        Ok(())
    })?;
    call.undefined()
}

/// `logSubmit(log, ticket)`: hands the arena over; the receipt comes by mail. Throws, and has
/// taken nothing, where the entries are refused.
fn submit(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let entries = with_thread(|thread| Ok(thread.stages.borrow_mut().pop()))?.unwrap_or_default();
    let handle = find(call)?;
    let size = entries.byte_len().min(1 << 20);
    let (ticket, mailbox) = (double(call, 1)?, mailbox()?);
    let reply = Box::new(move |answer| mailbox.post(Message::Receipt(ticket, answer)));
    let spare = handle.log.append(entries, reply).map_err(refused)?;
    with_thread(|thread| {
        thread.spare.set(spare);
        thread.last_bytes.set(size);
        Ok(())
    })?;
    handle.write_in_memory(call)?;
    call.undefined()
}

/// `logAppendOne(log, shape, taskId, timestamp, text, type, detail, agent)`: whether it was taken.
fn append_one(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    let mut entry = with_thread(|thread| Ok(thread.spare.take()))?;
    let taken = with_thread(|thread| read_entry(call, 1, &thread.learnt.borrow(), &mut entry))
        .and_then(|()| match handle.log.append_one(&entry) {
            Ok(()) => Ok(true),
            Err(Refusal::Full { .. }) => Ok(false),
            Err(refusal) => Err(refused(refusal)),
        });
    entry.clear();
    with_thread(|thread| {
        thread.spare.set(entry);
        Ok(())
    })?;
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
            Ok(during(connection.file().map(|file| &file.turn), || {
                self.log.write_on(connection, &mut borrowed)
            }))
        })
    }

    /// The same for a database in memory, which has no writer, and nothing for one with a file.
    /// The entries were taken, so a failure is not the call's own: those who wait are told, and
    /// the listeners, and the next call tries again.
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
        let healing = database.and_then(|database| database.healing());
        healing.map_or(self.log.options().profile.busy_timeout, Healing::patience)
    }

    /// That standing still until everything is written can end: no connection of this thread holds
    /// the write lock that the writer waits for.
    fn refuse_to_wait(&self, environment: &Environment) -> Outcome<()> {
        if self.log.has_pending()
            && let Some((_, error)) = own_transaction(environment, self.log.file())
        {
            return Err(pending(error).into());
        }
        Ok(())
    }

    /// Whether the database's own connection is in a write transaction, to which rows can be added.
    fn is_writing(&self, call: &Call<'_>) -> Outcome<bool> {
        let Some(number) = self.database else { return Ok(false) };
        with_connection_as_is(call.env, number, |connection| {
            if connection.raw().is_null() {
                return Ok(false);
            }
            // SAFETY: the connection is open and used by this thread alone.
            let state = unsafe { ffi::sqlite3_txn_state(connection.raw(), c"main".as_ptr()) };
            // In autocommit mode a statement is in the middle of writing, and ends with a COMMIT.
            Ok(state == ffi::SQLITE_TXN_WRITE && !connection.is_autocommit())
        })
    }
}

/// `logFlush(log, ticket)`: a barrier; its answer comes by mail. Inside a write transaction of
/// the database what is pending is written in that transaction.
fn flush(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    let (ticket, mailbox) = (double(call, 1)?, mailbox()?);
    if handle.in_memory || handle.is_writing(call)? {
        handle.write_here(call)??;
        mailbox.post(Message::Done(ticket, Ok(())));
    } else {
        handle.log.barrier(move |outcome| mailbox.post(Message::Done(ticket, outcome)));
    }
    call.undefined()
}

/// `logFlushSync(log, timeout)`: the same, and stands still until then.
fn flush_sync(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    let timeout = millis(call, 1)?;
    if handle.in_memory || handle.is_writing(call)? {
        handle.write_here(call)??;
    } else {
        handle.refuse_to_wait(call.environment)?;
        handle.log.flush_while(timeout, &|| let_go_all(call.environment))?;
    }
    call.undefined()
}

/// The writer of one of this thread's logs has waited for the write lock for long: reports to those
/// of this thread who wait for it, if it is this thread that holds the lock. Its event loop has come
/// round, so that nothing is about to end that transaction.
pub(super) fn report_own_transactions(environment: &Environment) -> Outcome<()> {
    let handles: Vec<_> = with_thread(|thread| {
        let logs = thread.logs.borrow();
        Ok(logs
            .numbers(|_| true)
            .into_iter()
            .filter_map(|it| logs.get(it).map(Rc::clone))
            .collect())
    })?;
    let mailbox = mailbox()?;
    let (mut told, mut reported) = (Vec::new(), Vec::new());
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
        if waiting.told {
            told.push(file.id);
        } else if waiting.lasts && !told.contains(&file.id) && !database.is_reported() {
            mailbox.post(Message::Event(handle.id, Happening::Failure("error", error)));
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

/// What `error`, which is in the way of the log, means for its entries.
fn pending(mut error: Error) -> Error {
    error.message.push_str(". The log entries are kept, and are written once that has ended");
    error
}

/// `logIsDisplaced(log)`: whether writing has stopped because the path leads elsewhere.
fn is_displaced(call: &Call<'_>) -> Outcome<sys::napi_value> {
    boolean(call.env, find(call)?.log.is_displaced())
}

/// `logMove(log, next)`: moves what is not committed, and who waits for it, to log `next`.
fn move_to(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    let next = call.number(1)?;
    let next = with_thread(|thread| Ok(thread.logs.borrow().get(next).map(Rc::clone)))?;
    let next = next.ok_or_else(|| Thrown::state("database is not open"))?;
    handle.log.move_to(&next.log);
    call.undefined()
}

/// `logTransactionEnded(log)`: a transaction of a database in memory has ended, and may have given
/// entries back.
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
            set_element(call.env, array, index, entry_value(call.env, &entry)?)?;
            index += 1;
            position = next;
        }
    }
    Ok(array)
}

/// `logCheckpoint(log, mode, ticket)`: the result comes by mail.
fn checkpoint_now(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let handle = find(call)?;
    let mode = string(call, 1)?.as_deref().and_then(Mode::named).unwrap_or(Mode::Passive);
    let (ticket, mailbox) = (double(call, 2)?, mailbox()?);
    if handle.in_memory {
        let nothing = checkpoint::Outcome { mode, busy: false, frames: 0, backfilled: 0 };
        mailbox.post(Message::Checkpoint(ticket, Ok(nothing)));
    } else {
        handle
            .log
            .checkpoint(mode, move |outcome| mailbox.post(Message::Checkpoint(ticket, outcome)));
    }
    call.undefined()
}

/// `logRelease(log)`: gives the handle up; whether it was the file's last.
fn release(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let number = call.number(0)?;
    let handle = with_thread(|thread| Ok(thread.logs.borrow_mut().remove(number)))?;
    let Some(handle) = handle else { return call.undefined() };
    // The number stays usable for `logWaitEnded`, through a new one.
    let Ok(mut handle) = Rc::try_unwrap(handle) else { return call.undefined() };
    let last = handle.log.release() && !handle.in_memory;
    if !last {
        return call.undefined();
    }
    let number = with_thread(|thread| Ok(thread.logs.borrow_mut().insert(Rc::new(handle))))?
        .ok_or_else(|| Thrown::state("too many open logs"))?;
    number_value(call.env, f64::from(number))
}

/// `logWaitEnded(log, timeout)`: stands still until the writer of a released log has ended;
/// whether it has, and left the file in order.
fn wait_ended(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let number = call.number(0)?;
    let timeout = millis(call, 1)?;
    let handle = with_thread(|thread| Ok(thread.logs.borrow_mut().remove(number)))?;
    let meanwhile = || let_go_all(call.environment);
    let in_order = handle.is_some_and(|handle| handle.log.wait_ended(timeout, &meanwhile));
    boolean(call.env, in_order)
}

/// `logWhenEnded(log, ticket)`: the same, and answers by mail.
fn when_ended(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let number = call.number(0)?;
    let (ticket, mailbox) = (double(call, 1)?, mailbox()?);
    let handle = with_thread(|thread| Ok(thread.logs.borrow_mut().remove(number)))?;
    match handle {
        Some(handle) => {
            handle.log.when_ended(move |outcome| mailbox.post(Message::Done(ticket, outcome)));
        }
        None => mailbox.post(Message::Done(ticket, Ok(()))),
    }
    call.undefined()
}

/// `flushAll(isLast)`: the process ends. Stands still until every log of the process is written, with
/// a deadline. Transactions that this thread has open, for which that may wait, are rolled back if
/// this is the last that is called before the end; else the end itself does so, and waits for the
/// rest. An array of sentences about logs that are not written for good.
fn flush_all(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let lost = new_array(call.env)?;
    if !call.flag(0) {
        agent_log::flush_unlocked();
        return Ok(lost);
    }
    for (index, sentence) in (0..).zip(agent_log::flush_all()) {
        set_element(call.env, lost, index, text(call.env, sentence.as_bytes())?)?;
    }
    Ok(lost)
}

/// `logStats(log)`: the figures, flat.
fn stats(call: &Call<'_>) -> Outcome<sys::napi_value> {
    stats_value(call.env, &find(call)?.log)
}
