//! What one JavaScript thread (one N-API environment) has open, and the numbers it is handed.
//!
//! Used on that thread only. When the environment ends, by a natural exit or a worker's end,
//! everything is closed. `process.exit()` and an uncaught exception end the process without that:
//! then open transactions are rolled back before the logs are waited for, and the operating system
//! does the rest.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;
use std::rc::Rc;

use napi::sys;

use super::backup::{self, Backing};
use super::bind::Parameters;
use super::database::Database;
use super::errors::{Outcome, Thrown, check};
use super::session::Session;
use super::slab::Slab;
use super::statement::Statement;

/// What a call reports beside its result, to save JavaScript a property or an object each: 48
/// bytes that JavaScript reads through three typed arrays.
///
/// | bytes | view | content |
/// |---|---|---|
/// | 0..4 | `Int32Array[0]` | the bits of [`flag`] |
/// | 4..12 | `Int32Array[1..3]` | both numbers, unless one does not fit |
/// | 12..16 | `Int32Array[3]` | 1 if one does not fit, else 0 |
/// | 16..32 | `Float64Array[2..4]` | both numbers, nearest double |
/// | 32..48 | `BigInt64Array[4..6]` | both numbers, exactly |
#[derive(Debug)]
#[repr(C, align(16))]
struct Report {
    flags: i32,
    narrow: [i32; 2],
    wide: i32,
    double: [f64; 2],
    exact: [i64; 2],
}

/// Bits of a call's report.
pub mod flag {
    /// The statement's columns have other names than before.
    pub const RENAMED: i32 = 1;
    /// The call ended a transaction that was open before it.
    pub const TRANSACTION_ENDED: i32 = 2;
    /// Statements that were prepared earlier may mean something else now, or nothing.
    pub const SCHEMA_UNSURE: i32 = 4;
    /// The statement may be kept for the next one with the same text.
    pub const CACHEABLE: i32 = 8;
    /// The statement has parameters with names other than `?NNN`.
    pub const NAMED: i32 = 16;
    /// The statement has no more rows.
    pub const DONE: i32 = 32;
    /// The call may have changed a setting of the connection.
    pub const SETTING: i32 = 64;
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Environment {
    env: sys::napi_env,
    /// Open connections.
    pub databases: RefCell<Slab<Rc<Database>>>,
    /// Prepared statements.
    pub statements: RefCell<Slab<Rc<Statement>>>,
    /// Sessions, of open connections.
    pub sessions: RefCell<Slab<Rc<Session>>>,
    /// Backups that are under way.
    pub backups: RefCell<Slab<Rc<Backing>>>,
    /// Room for one call's parameters; taken by the call that uses it.
    parameters: RefCell<Option<Box<Parameters>>>,
    /// Lives in an `ArrayBuffer` that `buffer` keeps.
    report: *mut Report,
    buffer: Cell<sys::napi_ref>,
    handed_out: Cell<bool>,
    /// See [`Environment::view_of`]; null until it is given.
    viewer: Cell<sys::napi_ref>,
}

thread_local! {
    /// The environments of this thread, of which Node has one. Never dropped: the process's end
    /// looks for them after the thread's other locals are gone.
    static ALL: RefCell<ManuallyDrop<Vec<Rc<Environment>>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

impl Environment {
    /// Makes the state of `env` and sees to its end.
    pub(super) fn create(env: sys::napi_env) -> napi::Result<Rc<Self>> {
        let mut report = ptr::null_mut();
        let mut buffer = ptr::null_mut();
        let mut reference = ptr::null_mut();
        // SAFETY: `env` is the environment that is being registered. The reference keeps the
        // buffer, and so its memory, for the environment's whole life: see `take_report`.
        unsafe {
            for status in [
                sys::napi_create_arraybuffer(env, size_of::<Report>(), &mut report, &mut buffer),
                sys::napi_create_reference(env, buffer, 1, &mut reference),
            ] {
                if status != sys::Status::napi_ok {
                    return Err(napi::Error::from_status(napi::Status::from(status)));
                }
            }
        }
        let this = Rc::new(Self {
            env,
            databases: RefCell::default(),
            statements: RefCell::default(),
            sessions: RefCell::default(),
            backups: RefCell::default(),
            parameters: RefCell::default(),
            report: report.cast(),
            buffer: Cell::new(reference),
            handed_out: Cell::new(false),
            viewer: Cell::new(ptr::null_mut()),
        });
        ALL.with_borrow_mut(|all| all.push(Rc::clone(&this)));
        // SAFETY: the hook runs once, on this thread, with the count given to it here.
        unsafe {
            sys::napi_add_env_cleanup_hook(
                env,
                Some(end),
                Rc::into_raw(Rc::clone(&this)).cast_mut().cast::<c_void>(),
            );
        }
        Ok(this)
    }

    /// The state of `env`, for callbacks that were not made by [`super::callback::export`].
    ///
    /// # Errors
    /// `ERR_INVALID_STATE` when the environment has ended.
    pub fn of(env: sys::napi_env) -> Outcome<Rc<Self>> {
        ALL.with_borrow(|all| all.iter().find(|one| one.env == env).map(Rc::clone))
            .ok_or_else(|| Thrown::state("the environment has ended"))
    }

    /// The buffer of the reports, to the first who asks: whoever has it could detach it, so it
    /// belongs to this package's own JavaScript, which asks while it is loaded.
    ///
    /// # Errors
    /// N-API's.
    pub fn take_report(&self) -> Outcome<sys::napi_value> {
        let mut buffer = ptr::null_mut();
        if !self.handed_out.replace(true) {
            // SAFETY: the reference was made in `create` and is not deleted.
            check(unsafe {
                sys::napi_get_reference_value(self.env, self.buffer.get(), &mut buffer)
            })?;
        }
        Ok(buffer)
    }

    /// Takes the function for [`Self::view_of`] from the first who has one: this package's own
    /// JavaScript, while it is loaded.
    ///
    /// # Errors
    /// N-API's, if it is no function or object.
    pub fn give_viewer(&self, function: sys::napi_value) -> Outcome<()> {
        if self.viewer.get().is_null() {
            let mut reference = ptr::null_mut();
            // SAFETY: the handle is one of the running callback's.
            check(unsafe { sys::napi_create_reference(self.env, function, 1, &mut reference) })?;
            self.viewer.set(reference);
        }
        Ok(())
    }

    /// A typed array on `value` if that is a `SharedArrayBuffer`, to which N-API has no access.
    ///
    /// # Errors
    /// N-API's.
    pub fn view_of(&self, value: sys::napi_value) -> Outcome<Option<sys::napi_value>> {
        let (mut viewer, mut view) = (ptr::null_mut(), ptr::null_mut());
        let mut kind = 0;
        if self.viewer.get().is_null() {
            return Ok(None);
        }
        // SAFETY: the reference was made in `give_viewer` and is not deleted; the handles are
        // those of the running callback.
        unsafe {
            check(sys::napi_get_reference_value(self.env, self.viewer.get(), &mut viewer))?;
            check(sys::napi_call_function(self.env, viewer, viewer, 1, &value, &mut view))?;
            check(sys::napi_typeof(self.env, view, &mut kind))?;
        }
        Ok((kind == sys::ValueType::napi_object).then_some(view))
    }

    /// Reports `flags`.
    #[inline]
    pub fn report(&self, flags: i32) {
        // SAFETY: the buffer lives as long as the environment, nobody detaches it, and this
        // thread is the only one to use it.
        unsafe { (*self.report).flags = flags };
    }

    /// Reports two numbers.
    #[inline]
    pub fn report_numbers(&self, numbers: [i64; 2]) {
        let [first, second] = numbers;
        // SAFETY: as in `report`; JavaScript does not run while the reference lives.
        let report = unsafe { &mut *self.report };
        report.wide = match (i32::try_from(first), i32::try_from(second)) {
            (Ok(first), Ok(second)) => {
                report.narrow = [first, second];
                0
            }
            _ => 1,
        };
        report.exact = numbers;
        report.double = [first as f64, second as f64];
    }

    /// Room for parameters; give it back with [`Self::give_parameters`].
    #[inline]
    pub fn take_parameters(&self) -> Box<Parameters> {
        self.parameters.take().unwrap_or_default()
    }

    /// Takes back what [`Self::take_parameters`] gave.
    #[inline]
    pub fn give_parameters(&self, mut parameters: Box<Parameters>) {
        parameters.clear();
        self.parameters.replace(Some(parameters));
    }
}

/// The process ends on this thread, and none of its JavaScript runs any more: rolls back the
/// transactions that it left open, for which the logs would wait in vain.
pub(super) fn abandon_transactions() {
    let _ = std::panic::catch_unwind(|| {
        // None can be added: nothing that opens one runs.
        let environments = ALL.try_with(|all| all.borrow().to_vec()).unwrap_or_default();
        for environment in environments {
            let databases: Vec<_> = {
                let databases = environment.databases.borrow();
                let numbers = databases.numbers(|_| true);
                numbers.into_iter().filter_map(|it| databases.get(it).map(Rc::clone)).collect()
            };
            for database in databases {
                database.abandon(&environment);
            }
        }
    });
}

/// The environment ends: closes everything in it.
unsafe extern "C" fn end(data: *mut c_void) {
    // SAFETY: `create` gave this count to the hook.
    let environment = unsafe { Rc::<Environment>::from_raw(data.cast()) };
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ALL.with_borrow_mut(|all| {
            all.retain(|one| !Rc::ptr_eq(one, &environment));
            all.shrink_to_fit();
        });
        backup::end_all(&environment);
        let databases = environment.databases.take();
        for number in databases.numbers(|_| true) {
            if let Some(database) = databases.get(number) {
                let _ = database.close(&environment);
            }
        }
        drop(environment.statements.take());
        drop(environment.parameters.take());
    }));
}
