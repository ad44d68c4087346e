//! What one JavaScript thread (one N-API environment) has open, and the numbers it is handed.
//!
//! Used on that thread only. When the environment ends, by a natural exit or a worker's end,
//! everything is closed. `process.exit()` and an uncaught exception end the process without that:
//! then open transactions are rolled back before the logs are waited for, and the operating system
//! does the rest.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use napi::sys;

use super::agent_log::{self, Logs};
use super::backup_api::{self, Backing};
use super::bind::Parameters;
use super::database::Database;
use super::errors::{Outcome, Thrown, check};
use super::handle_table::HandleTable;
use super::js_events::deliver;
use super::js_queue::JsQueue;
use super::promise::Promises;
use super::raw_call::{self, callback};
use super::realm::Realm;
use super::session::Session;
use super::statement::Statement;

/// What a call reports in addition to its result: 48 bytes that JavaScript reads through three
/// typed arrays, which saves a property or an object a value.
///
/// | bytes | view | content |
/// |---|---|---|
/// | 0..4 | `Int32Array[0]` | the bits of [`flag`] |
/// | 4..12 | `Int32Array[1..3]` | both numbers, unless one does not fit |
/// | 12..16 | `Int32Array[3]` | 1 if one does not fit, else 0 |
/// | 16..32 | `Float64Array[2..4]` | both numbers, nearest double |
/// | 32..48 | `BigInt64Array[4..6]` | both numbers, exactly |
#[derive(Debug)]
#[repr(C)]
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
    pub(super) env: sys::napi_env,
    /// Open connections.
    pub databases: RefCell<HandleTable<Rc<Database>>>,
    /// Prepared statements.
    pub statements: RefCell<HandleTable<Rc<Statement>>>,
    /// Sessions, of open connections.
    pub sessions: RefCell<HandleTable<Rc<Session>>>,
    /// Backups that are under way.
    pub backups: RefCell<HandleTable<Rc<Backing>>>,
    /// Room for one call's parameters; taken by the call that uses it.
    parameters: RefCell<Option<Box<Parameters>>>,
    /// Agent logs.
    pub logs: Logs,
    /// Promises that other threads settle.
    pub promises: Promises,
    /// Made with the first promise or log: see [`Environment::mailbox`].
    mailbox: RefCell<Option<Arc<JsQueue>>>,
    /// The addon's own realm.
    pub realm: Realm,
    /// The report of the last call, in memory that `realm` keeps.
    report: *mut Report,
    /// The names that [`Environment::is_first`] was called with.
    seen: RefCell<HashSet<String>>,
}

thread_local! {
    /// The environments of this thread: one for each time that Node loaded the addon in it. Never
    /// dropped: the process's end looks for them after the thread's other locals are gone.
    static ALL: RefCell<ManuallyDrop<Vec<Rc<Environment>>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

impl Environment {
    /// Makes the state of `env`, and registers its cleanup.
    pub(super) fn create(env: sys::napi_env) -> Outcome<Rc<Self>> {
        let realm = Realm::create(env)?;
        let (memory, size) = realm.report()?;
        let report = memory.cast::<Report>();
        if size != size_of::<Report>() || !report.is_aligned() {
            return Err(Thrown::state("the memory of the reports has the wrong shape"));
        }
        let this = Rc::new(Self {
            env,
            databases: RefCell::default(),
            statements: RefCell::default(),
            sessions: RefCell::default(),
            backups: RefCell::default(),
            parameters: RefCell::default(),
            logs: Logs::default(),
            promises: Promises::default(),
            mailbox: RefCell::default(),
            realm,
            report,
            seen: RefCell::default(),
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

    /// The state of `env`, for callbacks that were not made by [`super::raw_call::export`].
    ///
    /// # Errors
    /// `ERR_INVALID_STATE` when the environment has ended.
    pub fn of(env: sys::napi_env) -> Outcome<Rc<Self>> {
        ALL.with_borrow(|all| all.iter().find(|one| one.env == env).map(Rc::clone))
            .ok_or_else(|| Thrown::state("the environment has ended"))
    }

    /// The mailbox in which other threads leave messages for this one.
    ///
    /// # Errors
    /// N-API's.
    pub(super) fn mailbox(self: &Rc<Self>) -> Outcome<Arc<JsQueue>> {
        let made = self.mailbox.borrow().clone();
        if let Some(mailbox) = made {
            return Ok(mailbox);
        }
        let mut resource = ptr::null_mut();
        // SAFETY: `env` is alive and this thread's.
        check(unsafe { sys::napi_create_object(self.env, &mut resource) })?;
        // Jest's --detectOpenHandles asks it whether the process waits for it.
        raw_call::export(self.env, resource, c"hasRef", callback!(has_ref), self)?;
        let mailbox = JsQueue::create(self.env, resource, deliver)?;
        self.mailbox.replace(Some(Arc::clone(&mailbox)));
        // The process has one set of logs, and this thread one end.
        let is_first = ALL.with_borrow(|all| {
            all.iter().filter(|one| one.mailbox.borrow().is_some()).count() == 1
        });
        if is_first {
            crate::agent_log::at_end(abandon_transactions);
            let mut functions = ptr::null_mut();
            // SAFETY: as above.
            check(unsafe { sys::napi_create_object(self.env, &mut functions) })?;
            let flush_all = callback!(agent_log::flush_all);
            raw_call::export(self.env, functions, c"flushAll", flush_all, self)?;
            let flush_all = super::value::get(self.env, functions, c"flushAll")?;
            self.realm.call(c"atExit", flush_all)?;
        }
        Ok(mailbox)
    }

    /// Whether `what` is asked about for the first time.
    pub fn is_first(&self, what: String) -> bool {
        self.seen.borrow_mut().insert(what)
    }

    /// A typed array on `value` if that is a `SharedArrayBuffer`, to which N-API has no access.
    ///
    /// # Errors
    /// N-API's.
    pub fn view_of(&self, value: sys::napi_value) -> Outcome<Option<sys::napi_value>> {
        let view = self.realm.call(c"view", value)?;
        let mut kind = 0;
        // SAFETY: the handle is one of the running callback's.
        check(unsafe { sys::napi_typeof(self.env, view, &mut kind) })?;
        Ok((kind == sys::ValueType::napi_object).then_some(view))
    }

    /// Reports `flags`.
    #[inline]
    pub fn report(&self, flags: i32) {
        // SAFETY: the memory lives as long as the environment, and only this thread uses it.
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

/// The process ends on this thread, whose JavaScript no longer runs. Rolls back the transactions
/// that it left open, which the logs' writers would wait for.
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

/// `hasRef()`: whether the process waits for a promise of this thread.
fn has_ref(call: &raw_call::Call<'_>) -> Outcome<sys::napi_value> {
    super::value::boolean(call.env, call.environment.promises.keep_alive())
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
        agent_log::end_all(&environment);
        backup_api::end_all(&environment);
        let databases = environment.databases.take();
        for number in databases.numbers(|_| true) {
            if let Some(database) = databases.get(number) {
                let _ = database.close(&environment);
            }
        }
        drop(environment.statements.take());
        drop((environment.parameters.take(), environment.seen.take()));
        // Messages that were not delivered are dropped.
        environment.promises.end();
        drop(environment.mailbox.take());
    }));
}
