//! Promises that other threads settle, in a table by ticket. On the JavaScript thread.
//!
//! A promise is Node-API's own: a deferred, and nothing of the JavaScript that asked for it but a
//! function to report progress to, which goes when the promise is settled. The process waits while
//! a promise is open that keeps it alive.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use napi::sys;

use super::environment::Environment;
use super::errors::{Outcome, Thrown, check};
use super::handle_table::HandleTable;
use super::js_queue::JsQueue;
use super::value::{call, undefined};

/// What is to happen besides settling the promise.
#[derive(Debug)]
pub struct Watch {
    /// Set to have the operation end early.
    pub cancelled: Arc<AtomicBool>,
    /// The function to report progress to, or null. The table deletes it.
    pub progress: sys::napi_ref,
}

#[derive(Debug)]
struct Waiting {
    deferred: sys::napi_deferred,
    keeps_alive: bool,
    watch: Option<Watch>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Promises {
    waiting: RefCell<HandleTable<Waiting>>,
    /// How many of them keep the process alive.
    keeping: Cell<usize>,
}

impl Promises {
    /// Whether the process waits for one of them.
    pub fn keep_alive(&self) -> bool {
        self.keeping.get() > 0
    }

    /// The environment ends: the promises stay open for ever, and the table goes.
    pub fn end(&self) {
        drop(self.waiting.take());
    }
}

impl Environment {
    /// A promise that keeps the process alive, for what `begin` asks for under the ticket that it
    /// is given. Where `begin` fails there is no promise.
    ///
    /// # Errors
    /// Those of `begin`; N-API's.
    pub(super) fn promise(
        self: &Rc<Self>,
        env: sys::napi_env,
        begin: impl FnOnce(u32, Arc<JsQueue>) -> Outcome<()>,
    ) -> Outcome<sys::napi_value> {
        Ok(self.watched(env, true, None, begin)?.1)
    }

    /// The same with its ticket, and a watch.
    ///
    /// # Errors
    /// The same.
    pub(super) fn watched(
        self: &Rc<Self>,
        env: sys::napi_env,
        keeps_alive: bool,
        watch: Option<Watch>,
        begin: impl FnOnce(u32, Arc<JsQueue>) -> Outcome<()>,
    ) -> Outcome<(u32, sys::napi_value)> {
        let mailbox = self.mailbox()?;
        let (mut deferred, mut promise) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: `env` is this environment, on its thread.
        check(unsafe { sys::napi_create_promise(env, &mut deferred, &mut promise) })?;
        let waiting = Waiting { deferred, keeps_alive: false, watch };
        let ticket = self
            .promises
            .waiting
            .borrow_mut()
            .insert(waiting)
            .ok_or_else(|| Thrown::state("too many calls are waiting for their result"))?;
        if keeps_alive {
            self.keep(env, ticket)?;
        }
        match begin(ticket, mailbox) {
            Ok(()) => Ok((ticket, promise)),
            Err(thrown) => {
                // Resolved, because that frees the deferred; JavaScript never gets the promise.
                drop(self.settle(env, ticket, Ok(undefined(env)?)));
                Err(thrown)
            }
        }
    }

    /// Has the process wait for the promise of `ticket`, if it does not yet.
    ///
    /// # Errors
    /// N-API's.
    pub fn keep(self: &Rc<Self>, env: sys::napi_env, ticket: u32) -> Outcome<()> {
        let mut table = self.promises.waiting.borrow_mut();
        let Some(waiting) = table.get_mut(ticket) else { return Ok(()) };
        if !std::mem::replace(&mut waiting.keeps_alive, true) {
            let keeping = self.promises.keeping.get();
            self.promises.keeping.set(keeping + 1);
            if keeping == 0 {
                return self.keep_alive(env, true);
            }
        }
        Ok(())
    }

    /// Has the operation of `ticket` end early.
    pub fn cancel(&self, ticket: u32) {
        if let Some(Waiting { watch: Some(watch), .. }) = self.promises.waiting.borrow().get(ticket)
        {
            watch.cancelled.store(true, Ordering::Relaxed);
        }
    }

    fn keep_alive(self: &Rc<Self>, env: sys::napi_env, alive: bool) -> Outcome<()> {
        self.mailbox()?.keep_alive(env, alive)
    }

    /// Reports the progress of `ticket` to the function that was given for it.
    ///
    /// # Errors
    /// N-API's, and what the function throws.
    pub(super) fn progress(
        &self,
        env: sys::napi_env,
        ticket: u32,
        arguments: impl FnOnce() -> Outcome<[sys::napi_value; 3]>,
    ) -> Outcome<()> {
        let mut function = ptr::null_mut();
        if let Some(Waiting { watch: Some(watch), .. }) = self.promises.waiting.borrow().get(ticket)
            && !watch.progress.is_null()
        {
            // SAFETY: the reference is deleted when the promise is settled.
            check(unsafe { sys::napi_get_reference_value(env, watch.progress, &mut function) })?;
        }
        if !function.is_null() {
            call(env, function, &arguments()?)?;
        }
        Ok(())
    }

    /// Settles the promise of `ticket`. No JavaScript runs before this thread's turn ends.
    ///
    /// # Errors
    /// N-API's.
    pub(super) fn settle(
        self: &Rc<Self>,
        env: sys::napi_env,
        ticket: u32,
        settlement: Result<sys::napi_value, sys::napi_value>,
    ) -> Outcome<()> {
        let waiting = self.promises.waiting.borrow_mut().remove(ticket);
        let Some(Waiting { deferred, keeps_alive, watch }) = waiting else { return Ok(()) };
        if keeps_alive {
            let keeping = self.promises.keeping.get() - 1;
            self.promises.keeping.set(keeping);
            if keeping == 0 {
                self.keep_alive(env, false)?;
            }
        }
        // SAFETY: the table had the reference and the deferred, once; `env` is alive.
        unsafe {
            if let Some(Watch { progress, .. }) = watch
                && !progress.is_null()
            {
                check(sys::napi_delete_reference(env, progress))?;
            }
            check(match settlement {
                Ok(value) => sys::napi_resolve_deferred(env, deferred, value),
                Err(error) => sys::napi_reject_deferred(env, deferred, error),
            })
        }
    }
}
