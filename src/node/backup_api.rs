//! Backups off the event loop.
//!
//! A backup runs like node:sqlite's: slice by slice, on threads of libuv's pool, through the
//! source's *own* connection. Only that connection sees its database in memory, its settings and
//! its attached databases. Pages that it writes meanwhile are copied without a restart of the
//! backup. The connection has no mutex; [`super::backup_gate`] keeps the slices and the JavaScript
//! thread apart. That thread waits where it would wait for SQLite's mutex in node:sqlite: if it
//! uses the source during a slice. Between slices JavaScript gets the progress (`lib/backup-api.js`).
//!
//! Closing the source during a backup closes it for JavaScript; the connection stays open until the
//! backup is done. When the environment ends, its backups end, and their copies are rolled back.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use napi::sys;
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{OpenFlags, ffi};

use super::backup_gate::BackupGate;
use super::bind::Parameters;
use super::database::{Database, find as find_database, number, opening, path};
use super::environment::Environment;
use super::errors::{Outcome, Thrown, check, error_value};
use super::raw_call::{Call, Raw, callback};
use crate::engine::{Backup, BackupProgress, Connection, Error, Likeness, errstr};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[
    (c"backupStart", callback!(start)),
    (c"backupStep", callback!(step)),
    (c"backupEnd", callback!(end)),
];

/// A backup that is under way, on the JavaScript thread.
#[derive(Debug)]
pub struct Backing {
    database: Rc<Database>,
    gate: Arc<BackupGate>,
    task: Arc<Mutex<Task>>,
    /// A slice is under way.
    busy: Cell<bool>,
    ended: Cell<bool>,
}

/// What the slices of one backup work on. Locked inside of the gate.
#[derive(Debug)]
struct Task {
    /// The backup to begin, until it has begun; or why its destination could not be opened.
    plan: Option<Result<Plan, Error>>,
    /// Begun and not ended.
    backup: Option<Backup>,
    source: *mut ffi::sqlite3,
    /// The source may be gone.
    ended: bool,
}

// SAFETY: `source` is used inside of the gate and only until `ended`, which is how long the
// connection is kept open; see `Backing::end`.
unsafe impl Send for Task {}

#[derive(Debug)]
struct Plan {
    /// Opened when the backup was asked for.
    destination: Connection,
    /// Names of databases, each with a NUL at its end.
    source: Vec<u8>,
    target: Vec<u8>,
}

fn lock(task: &Mutex<Task>) -> MutexGuard<'_, Task> {
    task.lock()
}

impl Backing {
    /// Ends the backup, which then no longer uses the source. Waits for a slice that is under way.
    fn end(&self) {
        if self.ended.replace(true) {
            return;
        }
        let entered = self.database.enter();
        let mut task = lock(&self.task);
        task.ended = true;
        (task.plan, task.backup) = (None, None);
        drop(task);
        drop(entered);
        self.database.sharing().unshare();
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        self.end();
    }
}

/// The environment ends, and its backups with it.
pub fn end_all(environment: &Environment) {
    let backups = environment.backups.take();
    for number in backups.numbers(|_| true) {
        if let Some(backing) = backups.get(number) {
            backing.end();
        }
    }
}

fn find(environment: &Environment, number: u32) -> Outcome<Rc<Backing>> {
    let backing = environment.backups.borrow().get(number).map(Rc::clone);
    backing.ok_or_else(|| Thrown::state("backup is not under way"))
}

fn name(call: &Call<'_>, index: usize) -> Outcome<Vec<u8>> {
    let mut name = Parameters::default();
    name.read(call.env, &[call.arg(index)?], 1)?;
    name.terminated();
    Ok(name.into_bytes())
}

/// `backupStart(database, path, source, target)`: the number of a backup of the database `source`
/// into the database `target` of the file at `path`, which is opened: a relative path is relative
/// to the current directory of this moment. The first slice reports if it could not be opened.
fn start(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find_database(call.environment, call.number(0)?)?;
    let (path, source, target) = (path(call.env, call.arg(1)?)?, name(call, 2)?, name(call, 3)?);
    let (raw, like) = database.asking(|connection| {
        let like = connection.file().map(|file| Likeness::of(&file.path));
        Ok((connection.raw(), like))
    })?;
    let plan = open(&path, like).map(|destination| Plan { destination, source, target });
    let source = raw;
    let task = Task { plan: Some(plan), backup: None, source, ended: false };
    let gate = database.sharing().share();
    let backing = Rc::new(Backing {
        database,
        gate,
        task: Arc::new(Mutex::new(task)),
        busy: Cell::new(false),
        ended: Cell::new(false),
    });
    let inserted = call.environment.backups.borrow_mut().insert(backing);
    number(call.env, inserted.ok_or_else(|| Thrown::state("too many backups"))?)
}

/// `backupEnd(backup)`.
fn end(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let number = call.number(0)?;
    find(call.environment, number)?;
    let removed = call.environment.backups.borrow_mut().remove(number);
    drop(removed);
    call.undefined()
}

/// One slice. Libuv's thread has `task`, `gate`, `pages` and `result` from when the slice is
/// queued until it is complete; the JavaScript thread has the rest.
struct Slice {
    task: Arc<Mutex<Task>>,
    gate: Arc<BackupGate>,
    pages: c_int,
    result: Option<Result<BackupProgress, Error>>,
    backing: Rc<Backing>,
    deferred: sys::napi_deferred,
    work: sys::napi_async_work,
}

/// `backupStep(backup, pages)`: copies up to `pages` pages off this thread; a promise for
/// `[total, remaining]`, with `remaining` -1 once the copy is complete. With 0 pages, what was
/// copied is rolled back instead.
fn step(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let backing = find(call.environment, call.number(0)?)?;
    let pages = c_int::try_from(call.number(1)?).unwrap_or(c_int::MAX);
    if backing.busy.get() {
        return Err(Thrown::state("backup is busy"));
    }
    let (mut name, mut promise, mut deferred) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: `env` is that of the running callback.
    unsafe {
        check(sys::napi_create_string_utf8(
            call.env,
            c"fusion-sqlite.backup".as_ptr(),
            20,
            &mut name,
        ))?;
        check(sys::napi_create_promise(call.env, &mut deferred, &mut promise))?;
    }
    let slice = Box::into_raw(Box::new(Slice {
        task: Arc::clone(&backing.task),
        gate: Arc::clone(&backing.gate),
        pages,
        result: None,
        backing: Rc::clone(&backing),
        deferred,
        work: ptr::null_mut(),
    }));
    // SAFETY: `slice` lives until `complete` takes it, which Node calls once for a work that was
    // queued; it is taken back here if that failed.
    unsafe {
        let mut status = sys::napi_create_async_work(
            call.env,
            ptr::null_mut(),
            name,
            Some(execute),
            Some(complete),
            slice.cast(),
            &raw mut (*slice).work,
        );
        if status == sys::Status::napi_ok {
            status = sys::napi_queue_async_work(call.env, (*slice).work);
        }
        if status != sys::Status::napi_ok {
            drop(Box::from_raw(slice));
            return Err(Thrown::node(status));
        }
    }
    backing.busy.set(true);
    Ok(promise)
}

/// A thread of libuv's pool carries out a slice.
unsafe extern "C" fn execute(_: sys::napi_env, slice: *mut c_void) {
    let slice = slice.cast::<Slice>();
    // SAFETY: `step` passed it and does not touch these fields until it is complete.
    let (task, gate, pages, result) =
        unsafe { (&(*slice).task, &(*slice).gate, (*slice).pages, &mut (*slice).result) };
    *result = catch_unwind(AssertUnwindSafe(|| carry_out(task, gate, pages))).ok();
}

fn carry_out(task: &Mutex<Task>, gate: &BackupGate, pages: c_int) -> Result<BackupProgress, Error> {
    let _inside = gate.go_in();
    let mut task = lock(task);
    if task.ended {
        return Err(Error::fusion("ERR_INVALID_STATE", "backup was cut off"));
    }
    if pages == 0 {
        (task.plan, task.backup) = (None, None);
        return Ok(BackupProgress { total: 0, remaining: 0, done: true });
    }
    if let Some(plan) = task.plan.take() {
        let Plan { destination, source, target } = plan?;
        let source = CStr::from_bytes_until_nul(&source).unwrap_or_default();
        let target = CStr::from_bytes_until_nul(&target).unwrap_or_default();
        // SAFETY: the source is open until `ended`; this thread is inside the gate, and every
        // thread is that steps or ends the backup.
        let backup = unsafe { Backup::begin(task.source, source, destination, target) };
        task.backup = Some(backup?);
    }
    let Some(backup) = &mut task.backup else {
        return Err(Error::fusion("ERR_INVALID_STATE", "backup has ended"));
    };
    // SAFETY: as above.
    let result = unsafe { backup.step(pages) };
    if !matches!(result, Ok(BackupProgress { done: false, .. })) {
        task.backup = None;
    }
    result
}

/// Opens the destination. A new file gets the permissions of the source. SQLite interprets a URI.
fn open(path: &Path, like: Option<Likeness>) -> Result<Connection, Error> {
    let name = path.as_os_str().as_encoded_bytes();
    if let Some(like) = like
        && !name.is_empty()
        && name != b":memory:"
        && !name.starts_with(b"file:")
    {
        // An existing file stays as it is, and SQLite reports what is wrong with the path.
        drop(like.create(path));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI;
    Connection::open(path, flags, Duration::ZERO).map_err(opening)
}

/// The slice is carried out, or was cancelled; on the JavaScript thread.
unsafe extern "C" fn complete(env: sys::napi_env, _: sys::napi_status, slice: *mut c_void) {
    // SAFETY: `step` passed the box; Node calls this once.
    let slice = unsafe { Box::from_raw(slice.cast::<Slice>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| {
        slice.backing.busy.set(false);
        // SAFETY: `env` is alive: Node completes its works before it ends.
        unsafe { sys::napi_delete_async_work(env, slice.work) };
        // An environment that has ended has no promise to settle.
        if Environment::of(env).is_ok() {
            let _ = settle(env, &slice);
        }
    }));
}

fn settle(env: sys::napi_env, slice: &Slice) -> Outcome<()> {
    let panicked = || {
        let error = Error::fusion(
            "ERR_FUSION_INTERNAL",
            "internal error in fusion-sqlite: a backup panicked",
        );
        Err(error)
    };
    match slice.result.clone().unwrap_or_else(panicked) {
        Ok(BackupProgress { total, remaining, done }) => {
            let mut pair = ptr::null_mut();
            // SAFETY: `env` is alive and Node opened a handle scope for this callback; the
            // deferred is used once.
            unsafe {
                check(sys::napi_create_array_with_length(env, 2, &mut pair))?;
                for (index, number) in [total, if done { -1 } else { remaining }].iter().enumerate()
                {
                    let mut value = ptr::null_mut();
                    check(sys::napi_create_int32(env, *number, &mut value))?;
                    check(sys::napi_set_element(env, pair, index as u32, value))?;
                }
                check(sys::napi_resolve_deferred(env, slice.deferred, pair))
            }
        }
        Err(cause) => {
            let is_lock = matches!(cause.errcode, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED);
            let error = if is_lock {
                // node:sqlite's message for a lock: it reads the error of a connection that has
                // none. The real error is the cause.
                let error =
                    error_value(env, &Error::sqlite(ffi::SQLITE_OK, errstr(ffi::SQLITE_OK)))?;
                add_cause(env, error, &cause)?;
                error
            } else {
                error_value(env, &cause)?
            };
            // SAFETY: as above.
            check(unsafe { sys::napi_reject_deferred(env, slice.deferred, error) })
        }
    }
}

/// Gives `error` the `cause`, as `new Error(message, { cause })` does: not enumerable.
fn add_cause(env: sys::napi_env, error: sys::napi_value, cause: &Error) -> Outcome<()> {
    let property = sys::napi_property_descriptor {
        utf8name: c"cause".as_ptr(),
        name: ptr::null_mut(),
        method: None,
        getter: None,
        setter: None,
        value: error_value(env, cause)?,
        attributes: sys::PropertyAttributes::writable | sys::PropertyAttributes::configurable,
        data: ptr::null_mut(),
    };
    // SAFETY: `error` and the value are handles of the running callback in `env`.
    check(unsafe { sys::napi_define_properties(env, error, 1, &property) })
}
