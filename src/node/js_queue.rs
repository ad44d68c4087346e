//! The queue of results and events for one JavaScript thread.
//!
//! Any thread posts; one thread-safe function an environment delivers. It is called only when
//! the mailbox was empty, so that a burst costs one wake-up of the event loop.
//!
//! Invariant: the thread-safe function is called under the mailbox's mutex and only while it is
//! not closed, and it is closed, under the same mutex, by an environment cleanup hook that runs
//! before Node frees the function. Messages of a writer that outlives a worker are dropped.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use napi::sys;
use parking_lot::{Mutex, MutexGuard};

use super::errors::{Outcome, check};
use crate::agent_log::{Answer, Entries};
use crate::checkpoint;
use crate::engine::{Error, Remedy, Result, Stage};

/// Something for JavaScript to know, under a ticket of the promises or the number of a receiver.
#[derive(Debug)]
pub enum Message {
    /// An append call is settled.
    Receipt(u32, Answer),
    /// A barrier is reached, or the writer has ended.
    Done(u32, Result<()>),
    /// A checkpoint that was asked for is over.
    Checkpoint(u32, Result<checkpoint::CheckpointOutcome>),
    /// A background task is over; its result is JSON.
    Json(u32, Result<String>),
    /// How far the background task of a ticket is.
    Stage(u32, Stage),
    /// An event of the log with this receiver.
    Event(u32, LogEvent),
    /// The thread's connections that are stale and idle are to be closed.
    CloseStaleConnections,
    /// The writer of a log has waited for the write lock for long: does this thread hold it?
    LockedOut,
}

/// An event, in a form that can be kept.
#[derive(Debug)]
pub enum LogEvent {
    /// `error`, `corrupt` or `replaced`.
    Failure(&'static str, Error),
    /// `checkpoint`
    Checkpoint(checkpoint::CheckpointOutcome),
    /// `healed`
    Healed(Error, Remedy),
    /// `rejected`
    Rejected(Entries, Arc<[String]>, Error),
    /// `backpressure`
    Backpressure(bool),
    /// `recovering` or `recovered`, with a report as JSON.
    Report(&'static str, String),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct JsQueue {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    messages: Vec<Message>,
    /// Open [`JsQueue::hold`]s: nothing is delivered before they are released.
    held: u32,
    /// Null once the environment is ending.
    function: sys::napi_threadsafe_function,
}

// SAFETY: the function's handle may be used by any thread (that is its purpose), and is used
// only under the mutex while the environment is alive.
unsafe impl Send for State {}

/// Delivers what is in the mailbox.
pub type Deliver = fn(sys::napi_env, Vec<Message>);

struct Context {
    mailbox: Arc<JsQueue>,
    deliver: Deliver,
}

impl State {
    /// Makes the thread take its messages. The function is not null.
    fn call(&self) {
        // SAFETY: not closed, by the caller's check under the mutex. An unbounded queue cannot be
        // full; while the environment is closing Node answers `napi_closing`, and no receiver is
        // left.
        unsafe {
            sys::napi_call_threadsafe_function(
                self.function,
                ptr::null_mut(),
                sys::ThreadsafeFunctionCallMode::nonblocking,
            );
        }
    }
}

impl JsQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A mailbox whose messages `deliver` gets, all that are there in one call. It does not keep
    /// the process alive, unless [`Self::keep_alive`] says so. `resource` is what async_hooks
    /// are given for it.
    ///
    /// # Errors
    /// Node-API's.
    pub fn create(
        env: sys::napi_env,
        resource: sys::napi_value,
        deliver: Deliver,
    ) -> Outcome<Arc<Self>> {
        let mailbox = Arc::new(Self {
            state: Mutex::new(State { messages: Vec::new(), held: 0, function: ptr::null_mut() }),
        });
        let context = Box::into_raw(Box::new(Context { mailbox: Arc::clone(&mailbox), deliver }));
        let mut function = ptr::null_mut();
        let mut name = ptr::null_mut();
        // SAFETY: `env` and `resource` are those of the running callback; the context is freed
        // by `finalize`, which Node calls once, after the last `drain`; the cleanup hook's Arc is
        // given back by `close`.
        unsafe {
            check(sys::napi_create_string_utf8(env, c"fusion-sqlite".as_ptr(), 13, &mut name))?;
            check(sys::napi_create_threadsafe_function(
                env,
                ptr::null_mut(),
                resource,
                name,
                0,
                1,
                context.cast(),
                Some(finalize),
                context.cast(),
                Some(drain),
                &mut function,
            ))?;
            check(sys::napi_unref_threadsafe_function(env, function))?;
            mailbox.lock().function = function;
            // Hooks run last in, first out: this one before the function's own.
            check(sys::napi_add_env_cleanup_hook(
                env,
                Some(close),
                Arc::into_raw(Arc::clone(&mailbox)).cast_mut().cast(),
            ))?;
        }
        Ok(mailbox)
    }

    /// Whether the environment has ended: messages are dropped. Any thread.
    pub fn is_closed(&self) -> bool {
        self.lock().function.is_null()
    }

    /// Leaves a message. Any thread.
    pub fn post(&self, message: Message) {
        let mut state = self.lock();
        if state.function.is_null() {
            return;
        }
        let first = state.messages.is_empty();
        state.messages.push(message);
        if first && state.held == 0 {
            state.call();
        }
    }

    /// What is posted from here to [`Self::release`] is delivered in one turn of the event loop.
    pub fn hold(&self) {
        self.lock().held += 1;
    }

    /// Ends a [`Self::hold`].
    pub fn release(&self) {
        let mut state = self.lock();
        state.held = state.held.saturating_sub(1);
        if state.held == 0 && !state.messages.is_empty() && !state.function.is_null() {
            state.call();
        }
    }

    /// Sets whether the event loop waits for messages: it does while a promise is awaited.
    ///
    /// # Errors
    /// Node-API's.
    pub fn keep_alive(&self, env: sys::napi_env, alive: bool) -> Outcome<()> {
        let state = self.lock();
        if state.function.is_null() {
            return Ok(());
        }
        // SAFETY: not closed; called on the environment's thread.
        check(unsafe {
            if alive {
                sys::napi_ref_threadsafe_function(env, state.function)
            } else {
                sys::napi_unref_threadsafe_function(env, state.function)
            }
        })
    }
}

unsafe extern "C" fn drain(
    env: sys::napi_env,
    _: sys::napi_value,
    context: *mut c_void,
    _: *mut c_void,
) {
    // SAFETY: the context that `create` passed; Node frees it after the last call.
    let context = unsafe { &*context.cast::<Context>() };
    let mut state = context.mailbox.lock();
    if state.held > 0 {
        // Its release calls again.
        return;
    }
    let messages = std::mem::take(&mut state.messages);
    drop(state);
    // Null while the environment ends: JavaScript can no longer run.
    if !env.is_null() {
        let deliver = std::panic::AssertUnwindSafe(|| (context.deliver)(env, messages));
        drop(std::panic::catch_unwind(deliver));
    }
}

unsafe extern "C" fn finalize(_: sys::napi_env, context: *mut c_void, _: *mut c_void) {
    // SAFETY: the box that `create` made, given back once.
    let context = unsafe { Box::from_raw(context.cast::<Context>()) };
    context.mailbox.lock().function = ptr::null_mut();
}

unsafe extern "C" fn close(mailbox: *mut c_void) {
    // SAFETY: the count that `create` gave to the hook.
    let mailbox = unsafe { Arc::<JsQueue>::from_raw(mailbox.cast()) };
    let mut state = mailbox.lock();
    state.function = ptr::null_mut();
    state.messages.clear();
}
