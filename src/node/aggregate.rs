//! Aggregate and window functions in JavaScript
//! (<https://sqlite.org/windowfunctions.html#udfwinfunc>).
//!
//! What a group has accumulated is any JavaScript value. It stays in JavaScript, in a list
//! (`lib/aggregate.js`); here a group is an index into that list. A negative index, `!index`,
//! marks a new group.
//!
//! SQLite calls `xFinal` for every group that it began, also for the groups of a statement that is
//! abandoned: after an error, when it is reset or finalised, while its connection is closed.
//! JavaScript must not run then, and SQLite discards the result: see [`in_reset`].

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::rc::Rc;

use napi::sys;
use rusqlite::ffi;

use super::database::find;
use super::errors::{Outcome, Thrown};
use super::function::{Signature, setting};
use super::js_callback::{JsCallback, attempt};
use super::raw_call::{self, Raw, callback};
use super::result::{refuse, set_result};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[(c"defineAggregate", callback!(define))];

/// The aggregate's user data in SQLite, as one count of an `Rc`. A call takes another count.
#[derive(Debug)]
struct Aggregate {
    /// `step(index, ...values)`
    step: JsCallback,
    /// `inverse(index, ...values)`
    inverse: Option<JsCallback>,
    /// `value(index)`: the result so far.
    value: JsCallback,
    /// `finish(index)`: the result, and the end of the group.
    finish: JsCallback,
    bigints: bool,
    /// Indices below `next` that no group has.
    free: RefCell<Vec<i32>>,
    next: Cell<i32>,
}

impl Aggregate {
    fn take_index(&self) -> i32 {
        self.free.borrow_mut().pop().unwrap_or_else(|| {
            let index = self.next.get();
            // Wrapping is 2^31 unfinished groups away.
            self.next.set(index.wrapping_add(1) & i32::MAX);
            index
        })
    }
}

/// What SQLite keeps for a group: zeroed memory at first.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Group {
    /// The group's index and one; 0 if it is new.
    place: u32,
    /// A window's result was asked for. SQLite has no use for another at its end, and
    /// JavaScript is not asked for one.
    window: bool,
    /// A call failed. JavaScript is not called for this group again.
    failed: bool,
}

impl Group {
    fn index(self) -> Option<i32> {
        self.place.checked_sub(1).map(u32::cast_signed)
    }
}

/// What SQLite calls an aggregate for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Row,
    WindowResult,
    Result,
}

thread_local! {
    static ABANDONING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`, which resets or finalises statements: groups that end in it are dropped, and
/// JavaScript is not asked for their results.
pub fn in_reset<R>(body: impl FnOnce() -> R) -> R {
    let outer = ABANDONING.replace(true);
    let result = body();
    ABANDONING.set(outer);
    result
}

/// `defineAggregate(database, name, argc, settings, step, value, finish, inverse)`, `inverse` only
/// for what can be a window function.
fn define(call: &raw_call::Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let mut signature = Signature::read(call)?;
    let callee = |index| JsCallback::new(call.env, call.arg(index)?);
    let inverse = if call.args.len() > 7 { Some(callee(7)?) } else { None };
    let window = inverse.is_some();
    let aggregate = Rc::new(Aggregate {
        step: callee(4)?,
        inverse,
        value: callee(5)?,
        finish: callee(6)?,
        bigints: signature.is(setting::BIGINTS),
        free: RefCell::default(),
        next: Cell::new(0),
    });
    database.has_aggregates();
    let (name, argc, flags) = (signature.owned_name(), signature.argc, signature.flags());
    database.define(call.env, signature.owned_name(), argc, move |connection| {
        // SAFETY: the connection is open and this thread's; the name ends with a NUL. SQLite
        // takes a count of the aggregate, also when it fails: it gives it to `forget` then.
        let code = unsafe {
            ffi::sqlite3_create_window_function(
                connection.raw(),
                name.as_ptr(),
                argc,
                flags,
                Rc::into_raw(Rc::clone(&aggregate)).cast_mut().cast::<c_void>(),
                Some(step),
                Some(finish),
                window.then_some(value as _),
                window.then_some(inverse_step as _),
                Some(forget),
            )
        };
        // SAFETY: the connection is open and this thread's.
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(unsafe { Thrown::last(connection.raw()) }) }
    })?;
    call.undefined()
}

/// SQLite drops an aggregate (`xDestroy`).
unsafe extern "C" fn forget(data: *mut c_void) {
    // SAFETY: `define` gave this count to SQLite.
    drop(unsafe { Rc::<Aggregate>::from_raw(data.cast()) });
}

/// The aggregate that `context` belongs to, for as long as the result is kept.
///
/// # Safety
/// `context` is that of a call of one of this module's functions by SQLite.
unsafe fn of(context: *mut ffi::sqlite3_context) -> Rc<Aggregate> {
    // SAFETY: SQLite passes what `define` gave it, with a count that lasts until the function is
    // redefined.
    unsafe {
        let data = ffi::sqlite3_user_data(context).cast::<Aggregate>().cast_const();
        Rc::increment_strong_count(data);
        Rc::from_raw(data)
    }
}

/// Calls `body` with the index of the group that `context` belongs to, as JavaScript takes it.
///
/// # Safety
/// `context` is that of the running call by SQLite, of `aggregate`.
unsafe fn in_group(
    context: *mut ffi::sqlite3_context,
    aggregate: &Aggregate,
    call: Call,
    body: impl FnOnce(i32) -> Outcome<()>,
) {
    // SAFETY: the caller's. SQLite zeroes the memory and keeps it, where it is, until the group
    // ends; a group is used by one call at a time.
    unsafe {
        let room = ffi::sqlite3_aggregate_context(context, size_of::<Group>() as c_int);
        let group = room.cast::<Group>();
        if group.is_null() {
            ffi::sqlite3_result_error_nomem(context);
            return;
        }
        if (*group).failed {
            refuse(context, "");
            return;
        }
        if ABANDONING.get() || (call == Call::Result && (*group).window) {
            if let Some(index) = (*group).index() {
                aggregate.free.borrow_mut().push(index);
            }
            return;
        }
        let (index, argument) = match (*group).index() {
            Some(index) => (index, index),
            None => {
                let index = aggregate.take_index();
                (index, !index)
            }
        };
        // Until the call succeeds: a statement that is abandoned by an error asks for results.
        (*group).failed = true;
        let done = attempt(aggregate.step.env(), || body(argument)).is_some();
        if done {
            (*group).failed = false;
            (*group).place = index.cast_unsigned() + 1;
            (*group).window |= call == Call::WindowResult;
        } else {
            refuse(context, "");
        }
        if !done || call == Call::Result {
            aggregate.free.borrow_mut().push(index);
        }
    }
}

/// SQLite adds a row.
unsafe extern "C" fn step(
    context: *mut ffi::sqlite3_context,
    argc: c_int,
    argv: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite's context and arguments are those of this call, for as long as it takes.
    unsafe {
        let aggregate = of(context);
        in_group(context, &aggregate, Call::Row, |index| {
            aggregate.step.call_with(Some(index), argc, argv, aggregate.bigints)?;
            Ok(())
        });
    }
}

/// SQLite takes a row out of the window.
unsafe extern "C" fn inverse_step(
    context: *mut ffi::sqlite3_context,
    argc: c_int,
    argv: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite's context and arguments are those of this call, for as long as it takes.
    unsafe {
        let aggregate = of(context);
        let Some(inverse) = &aggregate.inverse else {
            return;
        };
        in_group(context, &aggregate, Call::Row, |index| {
            inverse.call_with(Some(index), argc, argv, aggregate.bigints)?;
            Ok(())
        });
    }
}

/// SQLite asks for the result of a window.
unsafe extern "C" fn value(context: *mut ffi::sqlite3_context) {
    // SAFETY: the context is that of this call.
    unsafe {
        let aggregate = of(context);
        in_group(context, &aggregate, Call::WindowResult, |index| {
            answer(context, &aggregate.value, index)
        });
    }
}

/// SQLite asks for the result of a group, or drops it.
unsafe extern "C" fn finish(context: *mut ffi::sqlite3_context) {
    // SAFETY: the context is that of this call.
    unsafe {
        let aggregate = of(context);
        in_group(context, &aggregate, Call::Result, |index| {
            answer(context, &aggregate.finish, index)
        });
    }
}

/// # Safety
/// `context` is that of the running call by SQLite.
unsafe fn answer(
    context: *mut ffi::sqlite3_context,
    callee: &JsCallback,
    index: i32,
) -> Outcome<()> {
    // SAFETY: there are no arguments of SQLite's; the rest is the caller's.
    unsafe {
        let value = callee.call_with(Some(index), 0, std::ptr::null_mut(), false)?;
        set_result(context, callee.env(), value)
    }
}
