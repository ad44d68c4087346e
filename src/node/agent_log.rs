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
use std::ffi::{CStr, c_char, c_void};
use std::path::PathBuf;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use napi::sys;
use rusqlite::{OpenFlags, ffi};

use super::callback::{Call, Raw, callback, text};
use super::database::{adopt, with_connection};
use super::errors::{Kind, Outcome, Thrown, check, error_value};
use super::mailbox::{Happening, Mailbox, Message};
use super::slab::Slab;
use crate::agent_log::{
    self, Borrowed, Entries, Event, Field, Latency, Listener, Log, Options, Refusal,
};
use crate::checkpoint::{self, Mode};
use crate::engine::{self, Connection, Error, FileId, Profile, Stage, Synchronous, during};

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
    (c"logTakePending", callback!(take_pending)),
    (c"logCheckpoint", callback!(checkpoint_now)),
    (c"logStats", callback!(stats)),
    (c"logRelease", callback!(release)),
    (c"logWaitEnded", callback!(wait_ended)),
    (c"logWhenEnded", callback!(when_ended)),
    (c"flushAll", callback!(flush_all)),
];

/// A log that JavaScript has open.
struct Handle {
    log: Log,
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

/// A number argument, as JavaScript has it.
pub(super) fn double(call: &Call<'_>, index: usize) -> Outcome<f64> {
    let mut value = 0.0;
    // SAFETY: the argument is a handle of the running callback.
    check(unsafe { sys::napi_get_value_double(call.env, call.arg(index)?, &mut value) })?;
    Ok(value)
}

/// A number argument of milliseconds.
pub(super) fn millis(call: &Call<'_>, index: usize) -> Outcome<Duration> {
    Ok(Duration::try_from_secs_f64(double(call, index)? / 1000.0).unwrap_or(Duration::MAX))
}

/// A number argument as an integer, bounded to its type.
fn integer(call: &Call<'_>, index: usize) -> Outcome<u64> {
    Ok(double(call, index)? as u64)
}

/// A string argument; none if it is something else.
pub(super) fn string(call: &Call<'_>, index: usize) -> Outcome<Option<String>> {
    let mut bytes = Vec::new();
    if read_string(call.env, call.arg(index)?, &mut bytes)? {
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    } else {
        Ok(None)
    }
}

/// Appends `value` to `bytes` as UTF-8, lone surrogates as U+FFFD; `false` if it is no string.
#[inline]
fn read_string(env: sys::napi_env, value: sys::napi_value, bytes: &mut Vec<u8>) -> Outcome<bool> {
    bytes.reserve(256);
    loop {
        let (length, room) = (bytes.len(), bytes.capacity() - bytes.len());
        let mut written = 0;
        // SAFETY: the spare capacity behind `length` is writable for `room` bytes; `value` is a
        // handle of the running callback.
        let status = unsafe {
            sys::napi_get_value_string_utf8(
                env,
                value,
                bytes.as_mut_ptr().add(length).cast::<c_char>(),
                room,
                &mut written,
            )
        };
        if status == sys::Status::napi_string_expected {
            return Ok(false);
        }
        check(status)?;
        // One byte is for the NUL; up to three are left where a character did not fit.
        if written + 4 < room {
            // SAFETY: V8 wrote `written` bytes of UTF-8 behind `length`.
            unsafe { bytes.set_len(length + written) };
            return Ok(true);
        }
        let mut needed = 0;
        // SAFETY: without a buffer the call only measures.
        check(unsafe {
            sys::napi_get_value_string_utf8(env, value, ptr::null_mut(), 0, &mut needed)
        })?;
        bytes.try_reserve(needed + 8).map_err(|_| {
            Thrown::of(Kind::Plain, "ERR_FUSION_MEMORY", "not enough memory for a log entry")
        })?;
    }
}

/// Whether `value` is null or undefined.
fn is_absent(env: sys::napi_env, value: sys::napi_value) -> bool {
    let mut kind = sys::ValueType::napi_undefined;
    // SAFETY: `value` is a handle of the running callback.
    unsafe { sys::napi_typeof(env, value, &mut kind) };
    kind == sys::ValueType::napi_undefined || kind == sys::ValueType::napi_null
}

/// How JavaScript abbreviates an entry: bits of `shape`, the number in front of its values.
mod shape {
    /// `taskId`, `timestamp` and `agent` are those of the entry before.
    pub const SAME_TASK: u32 = 1;
    pub const SAME_TIMESTAMP: u32 = 2;
    pub const SAME_AGENT: u32 = 4;
    /// `detail` and `agent` are NULL.
    pub const NO_DETAIL: u32 = 8;
    pub const NO_AGENT: u32 = 16;
    /// `type` is one that was learnt: its number is in the bits from `LEARNT_SHIFT` on.
    pub const LEARNT_TYPE: u32 = 32;
    pub const LEARNT_SHIFT: u32 = 8;
}

/// Reads an entry to the end of `entries`: its shape and its six values, from argument `first`
/// on. Most of its values are usually known, and need not be read out of V8 again.
#[inline]
fn read_entry(
    call: &Call<'_>,
    first: usize,
    learnt: &[Box<[u8]>],
    entries: &mut Entries,
) -> Outcome<()> {
    let shape = call.number(first)?;
    let is = |bit: u32| shape & bit != 0;
    entries.begin();
    for (field, value) in Field::ALL.into_iter().zip(call.rest(first + 1)) {
        let (same, absent) = match field {
            Field::TaskId => (is(shape::SAME_TASK), false),
            Field::Timestamp => (is(shape::SAME_TIMESTAMP), false),
            Field::Agent => (is(shape::SAME_AGENT), is(shape::NO_AGENT)),
            Field::Detail => (false, is(shape::NO_DETAIL)),
            Field::Text | Field::Type => (false, false),
        };
        if absent {
            // The header says NULL from the start.
            continue;
        }
        if same {
            entries.repeat(field);
            continue;
        }
        let read = entries.value(field, |bytes| {
            if field == Field::Type && is(shape::LEARNT_TYPE) {
                let known = learnt.get((shape >> shape::LEARNT_SHIFT) as usize);
                bytes.extend_from_slice(known.map_or(&[][..], |known| known));
                return Ok(());
            }
            read_value(call.env, field, *value, bytes)
        });
        if let Err(thrown) = read {
            entries.abandon();
            return Err(thrown);
        }
    }
    entries.finish();
    Ok(())
}

#[inline]
fn read_value(
    env: sys::napi_env,
    field: Field,
    value: sys::napi_value,
    bytes: &mut Vec<u8>,
) -> Outcome<()> {
    let start = bytes.len();
    if !read_string(env, value, bytes)? {
        return Err(bad_value(
            field,
            if field.is_optional() { "must be a string or null" } else { "must be a string" },
        ));
    }
    if bytes.len() == start && !field.is_optional() && field != Field::Text {
        return Err(bad_value(field, "must not be empty"));
    }
    Ok(())
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

/// Names the property; the call's JavaScript adds which entry it was.
#[cold]
fn bad_value(field: Field, wanted: &str) -> Thrown {
    Thrown::of(Kind::Type, "ERR_INVALID_ARG_TYPE", format!("{} {wanted}", field.name()))
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
    let connection = Connection::open_hardened(&path, flags, &profile(call, 2)?)
        .map_err(|error| Thrown::from(error.at(&path)))?;
    engine::watch_wal(&connection);
    let number = adopt(call.env, connection)?;
    number_value(call.env, f64::from(number))
}

/// `checkpointOnClose(database)`: the file's last connection may remove the WAL, which the writer
/// has emptied.
fn checkpoint_on_close(call: &Call<'_>) -> Outcome<sys::napi_value> {
    with_connection(call.env, call.number(0)?, |connection| {
        connection.checkpoint_on_close(true);
        Ok(())
    })?;
    call.undefined()
}

/// The profile that arguments from `first` on describe.
fn profile(call: &Call<'_>, first: usize) -> Outcome<Profile> {
    let synchronous = match string(call, first + 1)?.as_deref() {
        Some("FULL") => Synchronous::Full,
        Some("EXTRA") => Synchronous::Extra,
        _ => Synchronous::Normal,
    };
    Ok(Profile {
        busy_timeout: millis(call, first)?,
        synchronous,
        journal_size_limit: integer(call, first + 2)?.cast_signed(),
        allow_hard_links: call.flag(first + 3),
        allow_network_file_system: call.flag(first + 4),
        foreign_keys: call.flag(first + 5),
        ..Profile::default()
    })
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
    let handle = Rc::new(Handle { log, database, in_memory, borrowed: RefCell::default() });
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

fn options(call: &Call<'_>) -> Outcome<Options> {
    // Arguments 4 and up, in the order of lib/options.js.
    let size = |index| Ok::<usize, Thrown>(usize::try_from(integer(call, index)?).unwrap_or(0));
    Ok(Options {
        batch_rows: size(4)?.max(1),
        batch_bytes: size(5)?.max(1),
        linger: millis(call, 6)?,
        awaited_linger: millis(call, 7)?,
        queue_bytes: size(8)?,
        retry_deadline: millis(call, 9)?,
        change_counter: string(call, 10)?,
        checkpoints: checkpoint::Policy {
            due_frames: u32::try_from(integer(call, 11)?).unwrap_or(u32::MAX),
            idle: millis(call, 12)?,
            interval: millis(call, 13)?,
            limit_bytes: integer(call, 16)?,
        },
        // Each connection has its own patience; the writer's waits are not SQLite's.
        profile: Profile { busy_timeout: Profile::default().busy_timeout, ..profile(call, 14)? },
        repair: call.flag(20),
    })
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
    let mut value = ptr::null_mut();
    // SAFETY: `env` is the running callback's.
    check(unsafe { sys::napi_get_boolean(call.env, taken, &mut value) })?;
    Ok(value)
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

    /// Whether the database's own connection is in a write transaction.
    fn is_writing(&self, call: &Call<'_>) -> Outcome<bool> {
        let Some(number) = self.database else { return Ok(false) };
        with_connection(call.env, number, |connection| {
            // SAFETY: the connection is open and used by this thread alone.
            let state = unsafe { ffi::sqlite3_txn_state(connection.raw(), c"main".as_ptr()) };
            Ok(state == ffi::SQLITE_TXN_WRITE)
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
        handle.log.flush(timeout)?;
    }
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
    let in_order = handle.is_some_and(|handle| handle.log.wait_ended(timeout));
    let mut value = ptr::null_mut();
    // SAFETY: `env` is the running callback's.
    check(unsafe { sys::napi_get_boolean(call.env, in_order, &mut value) })?;
    Ok(value)
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

/// `flushAll()`: stands still until every log of the process is written, with a deadline; an
/// array of sentences about those that are not.
fn flush_all(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let lost = new_array(call.env)?;
    for (index, sentence) in (0..).zip(agent_log::flush_all()) {
        set_element(call.env, lost, index, text(call.env, sentence.as_bytes())?)?;
    }
    Ok(lost)
}

/// A log's events, for the thread that opened the handle.
struct ToJavaScript {
    mailbox: Arc<Mailbox>,
    id: f64,
}

impl ToJavaScript {
    fn tell(&self, name: &'static str, what: &impl serde::Serialize) {
        // It has no form only if the path is not Unicode; then the writer's state has to do.
        if let Ok(json) = serde_json::to_string(what) {
            self.mailbox.post(Message::Told(self.id, name, json));
        }
    }
}

impl Listener for ToJavaScript {
    fn event(&self, event: &Event) {
        let happening = match event {
            Event::Error(error) => Happening::Failure("error", error.clone()),
            Event::Corrupt(error) => Happening::Failure("corrupt", error.clone()),
            Event::Replaced(error) => Happening::Failure("replaced", error.clone()),
            Event::Recovering(health) => return self.tell("recovering", health),
            Event::Recovered(report) => return self.tell("recovered", report),
            Event::Checkpoint(outcome) => Happening::Checkpoint(*outcome),
            Event::Rejected(entries, error) => {
                let mut copy = Entries::default();
                copy.append(entries);
                Happening::Rejected(copy, error.clone())
            }
            Event::Backpressure(full) => Happening::Backpressure(*full),
        };
        self.mailbox.post(Message::Event(self.id, happening));
    }
}

/// Calls `receiver(kind, number, …)` for each message.
fn deliver(env: sys::napi_env, receiver: sys::napi_value, messages: Vec<Message>) {
    for message in messages {
        // A receiver that throws has its exception handled by Node as any callback's; a message
        // that cannot be built for want of memory is lost with the process.
        drop(deliver_one(env, receiver, message));
    }
}

fn deliver_one(env: sys::napi_env, receiver: sys::napi_value, message: Message) -> Outcome<()> {
    let mut scope = ptr::null_mut();
    let mut undefined = ptr::null_mut();
    // SAFETY: `env` is alive on this thread; the scope is closed below.
    unsafe {
        check(sys::napi_open_handle_scope(env, &mut scope))?;
        check(sys::napi_get_undefined(env, &mut undefined))?;
    }
    let called = arguments(env, message, undefined).map(|arguments| {
        let mut result = ptr::null_mut();
        // SAFETY: the handles are alive in the scope above.
        let status = unsafe {
            sys::napi_call_function(
                env,
                undefined,
                receiver,
                arguments.len(),
                arguments.as_ptr(),
                &mut result,
            )
        };
        if status == sys::Status::napi_pending_exception {
            let mut exception = ptr::null_mut();
            // SAFETY: an exception is pending; it is handed to Node as uncaught.
            unsafe {
                sys::napi_get_and_clear_last_exception(env, &mut exception);
                sys::napi_fatal_exception(env, exception);
            }
        }
    });
    // SAFETY: opened above.
    unsafe { sys::napi_close_handle_scope(env, scope) };
    called
}

fn arguments(
    env: sys::napi_env,
    message: Message,
    undefined: sys::napi_value,
) -> Outcome<[sys::napi_value; 7]> {
    let named = |kind: &str, number: f64| {
        Ok::<_, Thrown>((text(env, kind.as_bytes())?, number_value(env, number)?))
    };
    let ok = |kind: &str, number: f64| {
        let (kind, number) = named(kind, number)?;
        Ok::<_, Thrown>([kind, number, undefined, undefined, undefined, undefined, undefined])
    };
    let with = |kind: &str, number: f64, values: [sys::napi_value; 5]| {
        let (kind, number) = named(kind, number)?;
        let [a, b, c, d, e] = values;
        Ok::<_, Thrown>([kind, number, a, b, c, d, e])
    };
    match message {
        Message::Receipt(ticket, answer) => {
            let (error, receipt) = match answer {
                Ok(receipt) => (undefined, receipt),
                Err((error, receipt)) => (error_value(env, &error)?, receipt),
            };
            let rejected = new_array(env)?;
            for (index, rejection) in (0..).zip(&receipt.rejected) {
                let row = new_object(env)?;
                set(env, row, c"index", number_value(env, rejection.index as f64)?)?;
                set(env, row, c"code", text(env, rejection.error.code.as_bytes())?)?;
                set(env, row, c"errcode", number_value(env, f64::from(rejection.error.errcode))?)?;
                set(env, row, c"message", text(env, rejection.error.message.as_bytes())?)?;
                set_element(env, rejected, index, row)?;
            }
            let id = |id: Option<i64>| match id {
                Some(id) => number_value(env, id as f64),
                None => null(env),
            };
            let committed = number_value(env, receipt.committed as f64)?;
            let (first, last) = (id(receipt.first_id)?, id(receipt.last_id)?);
            with("receipt", ticket, [error, committed, rejected, first, last])
        }
        Message::Done(ticket, Ok(())) => ok("done", ticket),
        Message::Done(ticket, Err(error)) | Message::Checkpoint(ticket, Err(error)) => {
            let error = error_value(env, &error)?;
            with("done", ticket, [error, undefined, undefined, undefined, undefined])
        }
        Message::Checkpoint(ticket, Ok(outcome)) => {
            let outcome = checkpoint_value(env, &outcome)?;
            with("done", ticket, [undefined, outcome, undefined, undefined, undefined])
        }
        Message::Json(ticket, Ok(json)) => {
            let json = text(env, json.as_bytes())?;
            with("json", ticket, [json, undefined, undefined, undefined, undefined])
        }
        Message::Json(ticket, Err(error)) => {
            let error = error_value(env, &error)?;
            with("done", ticket, [error, undefined, undefined, undefined, undefined])
        }
        Message::Stage(ticket, Stage { name, done, total }) => {
            let name = text(env, name.as_bytes())?;
            let (done, total) = (number_value(env, done as f64)?, number_value(env, total as f64)?);
            with("stage", ticket, [name, done, total, undefined, undefined])
        }
        Message::Told(log, name, json) => {
            let (name, json) = (text(env, name.as_bytes())?, text(env, json.as_bytes())?);
            with("told", log, [name, json, undefined, undefined, undefined])
        }
        Message::Event(log, happening) => {
            let (name, first, second) = match happening {
                Happening::Failure(name, error) => (name, error_value(env, &error)?, undefined),
                Happening::Checkpoint(outcome) => {
                    ("checkpoint", checkpoint_value(env, &outcome)?, undefined)
                }
                Happening::Rejected(entries, error) => {
                    let entry = match entries.at(agent_log::Position::default()) {
                        Some((entry, _)) => entry_value(env, &entry)?,
                        None => undefined,
                    };
                    ("rejected", error_value(env, &error)?, entry)
                }
                Happening::Backpressure(full) => {
                    let mut value = ptr::null_mut();
                    // SAFETY: `env` is alive on this thread.
                    check(unsafe { sys::napi_get_boolean(env, full, &mut value) })?;
                    ("backpressure", value, undefined)
                }
            };
            with("event", log, [text(env, name.as_bytes())?, first, second, undefined, undefined])
        }
    }
}

fn checkpoint_value(env: sys::napi_env, outcome: &checkpoint::Outcome) -> Outcome<sys::napi_value> {
    let object = new_object(env)?;
    let mut busy = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_get_boolean(env, outcome.busy, &mut busy) })?;
    set(env, object, c"mode", text(env, outcome.mode.name().as_bytes())?)?;
    set(env, object, c"busy", busy)?;
    set(env, object, c"frames", number_value(env, f64::from(outcome.frames))?)?;
    set(env, object, c"backfilled", number_value(env, f64::from(outcome.backfilled))?)?;
    Ok(object)
}

fn entry_value(env: sys::napi_env, entry: &agent_log::Entry<'_>) -> Outcome<sys::napi_value> {
    let object = new_object(env)?;
    for (field, value) in Field::ALL.into_iter().zip(entry.values) {
        let value = match value {
            Some(bytes) => text(env, bytes)?,
            None => null(env)?,
        };
        let name = text(env, field.name().as_bytes())?;
        // SAFETY: the handles were made in the scope that is open.
        check(unsafe { sys::napi_set_property(env, object, name, value) })?;
    }
    Ok(object)
}

/// `logStats(log)`: the figures, flat; lib/agent-log.js gives them their shape.
fn stats(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let env = call.env;
    let handle = find(call)?;
    let (stats, rows, bytes, wal, failure) = handle.log.stats();
    let object = new_object(env)?;
    let quantile = |latency: &Latency, share| latency.quantile(share).as_secs_f64() * 1000.0;
    let [passive, full, restart, truncate] = wal.completed;
    let since =
        wal.prevented_since.and_then(|time: SystemTime| time.duration_since(UNIX_EPOCH).ok());
    let figures: [(&CStr, f64); 31] = [
        (c"queuedRows", rows as f64),
        (c"queuedBytes", bytes as f64),
        (c"limitBytes", handle.log.options().queue_bytes as f64),
        (c"batches", stats.batches as f64),
        (c"rows", stats.rows as f64),
        (c"rejected", stats.rejected as f64),
        (c"bytes", stats.bytes as f64),
        (c"retries", stats.retries as f64),
        (c"failures", stats.failures as f64),
        (c"refused", stats.refused as f64),
        (c"takenBack", stats.taken_back as f64),
        (c"commitP50", quantile(&stats.commit, 0.5)),
        (c"commitP99", quantile(&stats.commit, 0.99)),
        (c"commitMax", stats.commit.max().as_secs_f64() * 1000.0),
        (c"appendP50", quantile(&stats.append, 0.5)),
        (c"appendP99", quantile(&stats.append, 0.99)),
        (c"appendMax", stats.append.max().as_secs_f64() * 1000.0),
        (c"walFrames", f64::from(wal.frames)),
        (c"walBackfilled", f64::from(wal.backfilled)),
        (c"walBytes", wal.bytes as f64),
        (c"walPeakBytes", wal.peak_bytes as f64),
        (c"passive", passive as f64),
        (c"full", full as f64),
        (c"restart", restart as f64),
        (c"truncate", truncate as f64),
        (c"busy", wal.prevented as f64),
        (c"busySince", since.map_or(f64::NAN, |since| since.as_millis() as f64)),
        (c"checkpointsFailed", wal.failed as f64),
        (c"batchRows", handle.log.options().batch_rows as f64),
        (c"batchBytes", handle.log.options().batch_bytes as f64),
        (c"linger", handle.log.options().linger.as_secs_f64() * 1000.0),
    ];
    for (name, value) in figures {
        set(env, object, name, number_value(env, value)?)?;
    }
    if let Some((stopped, error)) = failure {
        let state = if stopped { "stopped" } else { "retrying" };
        set(env, object, c"state", text(env, state.as_bytes())?)?;
        set(env, object, c"error", error_value(env, &error)?)?;
    }
    Ok(object)
}

fn number_value(env: sys::napi_env, number: f64) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_create_double(env, number, &mut value) })?;
    Ok(value)
}

fn null(env: sys::napi_env) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_get_null(env, &mut value) })?;
    Ok(value)
}

fn new_object(env: sys::napi_env) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_create_object(env, &mut value) })?;
    Ok(value)
}

fn new_array(env: sys::napi_env) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_create_array(env, &mut value) })?;
    Ok(value)
}

fn set(
    env: sys::napi_env,
    object: sys::napi_value,
    name: &CStr,
    value: sys::napi_value,
) -> Outcome<()> {
    // SAFETY: the handles were made in the scope that is open.
    check(unsafe { sys::napi_set_named_property(env, object, name.as_ptr(), value) })
}

fn set_element(
    env: sys::napi_env,
    array: sys::napi_value,
    index: u32,
    value: sys::napi_value,
) -> Outcome<()> {
    // SAFETY: the handles were made in the scope that is open.
    check(unsafe { sys::napi_set_element(env, array, index, value) })
}
