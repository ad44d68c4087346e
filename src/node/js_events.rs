//! Delivers events of other threads to a JavaScript thread: a log's events into the thread's
//! mailbox, and the mailbox's messages to promises and receivers.

use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use napi::sys;

use super::agent_log::report_own_transactions;
use super::environment::Environment;
use super::errors::{Outcome, Thrown, error_value, exception_value};
use super::js_queue::{JsQueue, LogEvent, Message};
use super::log_entry::entry_value;
use super::raw_call::text;
use super::reopen::close_all_stale;
use super::value::{
    boolean, call, new_array, new_object, null, number_value, set, set_element, undefined,
};
use crate::agent_log::{Answer, Entries, Event, Listener, Position, Receipt};
use crate::checkpoint;
use crate::engine::{Error, Remedy, Stage};

/// A log's events, for the thread that opened the handle.
pub(super) struct ToJavaScript {
    pub(super) mailbox: Arc<JsQueue>,
    /// The receiver of the log's events, by its number in [`super::agent_log::Logs`].
    pub(super) receiver: u32,
}

impl ToJavaScript {
    fn post_report(&self, name: &'static str, what: &impl serde::Serialize) {
        // Only a path that is not Unicode has no form in JSON. The log's state then reports alone.
        if let Ok(json) = serde_json::to_string(what) {
            self.mailbox.post(Message::Event(self.receiver, LogEvent::Report(name, json)));
        }
    }
}

impl Listener for ToJavaScript {
    fn event(&self, event: &Event) {
        let happening = match event {
            Event::Error(error) => LogEvent::Failure("error", error.clone()),
            Event::Corrupt(error) => LogEvent::Failure("corrupt", error.clone()),
            Event::Healed(error, remedy) => LogEvent::Healed(error.clone(), *remedy),
            Event::Reopen => return self.mailbox.post(Message::CloseStaleConnections),
            Event::LockedOut => return self.mailbox.post(Message::LockedOut),
            Event::Replaced(error) => LogEvent::Failure("replaced", error.clone()),
            Event::Recovering(health) => return self.post_report("recovering", health),
            Event::Recovered(report) => return self.post_report("recovered", report),
            Event::Checkpoint(outcome) => LogEvent::Checkpoint(*outcome),
            Event::Rejected(entries, columns, error) => {
                let mut copy = Entries::default();
                copy.append(entries);
                LogEvent::Rejected(copy, Arc::clone(columns), error.clone())
            }
            Event::Backpressure(full) => LogEvent::Backpressure(*full),
        };
        self.mailbox.post(Message::Event(self.receiver, happening));
    }

    fn hold(&self) {
        self.mailbox.hold();
    }

    fn release(&self) {
        self.mailbox.release();
    }
}

/// Settles promises and calls receivers, in the order of `messages`. The reactions to settled
/// promises run once all messages are delivered, so the appends that they make form one batch.
pub(super) fn deliver(env: sys::napi_env, messages: Vec<Message>) {
    let Ok(environment) = Environment::of(env) else { return };
    for message in messages {
        let mut scope = ptr::null_mut();
        // SAFETY: `env` is alive on this thread; the scope is closed below.
        unsafe { sys::napi_open_handle_scope(env, &mut scope) };
        if let Err(Thrown::Pending) = deliver_one(&environment, env, message) {
            let mut exception = ptr::null_mut();
            // SAFETY: an exception of a receiver is pending; Node has it as uncaught.
            unsafe {
                if sys::napi_get_and_clear_last_exception(env, &mut exception)
                    == sys::Status::napi_ok
                {
                    sys::napi_fatal_exception(env, exception);
                }
            }
        }
        // SAFETY: opened above.
        unsafe { sys::napi_close_handle_scope(env, scope) };
    }
}

fn deliver_one(environment: &Rc<Environment>, env: sys::napi_env, message: Message) -> Outcome<()> {
    // A result that cannot be built rejects the promise: no promise stays pending.
    let settle = |ticket, settlement: Outcome<Settlement>| {
        let settlement = match settlement {
            Ok(settlement) => settlement,
            Err(Thrown::Error(exception)) => Err(exception_value(env, &exception)?),
            Err(Thrown::Pending) => return Err(Thrown::Pending),
        };
        environment.settle(env, ticket, settlement)
    };
    let failed = |error: &Error| Ok(Err(error_value(env, error)?));
    match message {
        Message::CloseStaleConnections => {
            close_all_stale(environment);
            Ok(())
        }
        Message::LockedOut => report_own_transactions(environment),
        Message::Receipt(ticket, answer) => settle(ticket, receipt_value(env, &answer)),
        Message::Done(ticket, Ok(())) => settle(ticket, undefined(env).map(Ok)),
        Message::Checkpoint(ticket, Ok(outcome)) => {
            settle(ticket, checkpoint_value(env, &outcome).map(Ok))
        }
        Message::Json(ticket, Ok(json)) => settle(ticket, text(env, json.as_bytes()).map(Ok)),
        Message::Done(ticket, Err(error))
        | Message::Checkpoint(ticket, Err(error))
        | Message::Json(ticket, Err(error)) => settle(ticket, failed(&error)),
        Message::Stage(ticket, Stage { name, done, total }) => {
            environment.progress(env, ticket, || {
                let name = text(env, name.as_bytes())?;
                Ok([name, number_value(env, done as f64)?, number_value(env, total as f64)?])
            })
        }
        Message::Event(receiver, happening) => {
            let Some(receiver) = environment.logs.receiver(env, receiver)? else { return Ok(()) };
            call(env, receiver, &event(env, happening)?)?;
            Ok(())
        }
    }
}

/// What to resolve or reject a promise with.
type Settlement = Result<sys::napi_value, sys::napi_value>;

/// The first id where all rows were committed under consecutive ids, which is the rule and costs
/// JavaScript least. Else `[committed, firstId, lastId]`, and the rejections where there are any;
/// an error has it as its `receipt`.
fn receipt_value(env: sys::napi_env, answer: &Answer) -> Outcome<Settlement> {
    if let Ok(Receipt { committed, rejected, first_id: Some(first), last_id: Some(last) }) = answer
        && rejected.is_empty()
        && last - first + 1 == *committed as i64
    {
        return Ok(Ok(number_value(env, *first as f64)?));
    }
    let receipt = match answer {
        Ok(receipt) | Err((_, receipt)) => receipt,
    };
    let id = |id: Option<i64>| match id {
        Some(id) => number_value(env, id as f64),
        None => null(env),
    };
    let value = new_array(env)?;
    set_element(env, value, 0, number_value(env, receipt.committed as f64)?)?;
    set_element(env, value, 1, id(receipt.first_id)?)?;
    set_element(env, value, 2, id(receipt.last_id)?)?;
    if !receipt.rejected.is_empty() {
        let rejected = new_array(env)?;
        for (index, rejection) in (0..).zip(&receipt.rejected) {
            let row = new_array(env)?;
            set_element(env, row, 0, number_value(env, rejection.index as f64)?)?;
            set_element(env, row, 1, text(env, rejection.error.code.as_bytes())?)?;
            set_element(env, row, 2, number_value(env, f64::from(rejection.error.errcode))?)?;
            set_element(env, row, 3, text(env, rejection.error.message.as_bytes())?)?;
            set_element(env, rejected, index, row)?;
        }
        set_element(env, value, 3, rejected)?;
    }
    match answer {
        Ok(_) => Ok(Ok(value)),
        Err((error, _)) => {
            let error = error_value(env, error)?;
            set(env, error, c"receipt", value)?;
            Ok(Err(error))
        }
    }
}

/// The arguments of a receiver: the event's name, and what it has.
fn event(env: sys::napi_env, happening: LogEvent) -> Outcome<[sys::napi_value; 3]> {
    let none = undefined(env)?;
    let (name, first, second) = match happening {
        LogEvent::Failure(name, error) => (name, error_value(env, &error)?, none),
        LogEvent::Healed(error, remedy) => {
            let remedy = match remedy {
                Remedy::IndexRebuilt => "indexRebuilt",
                Remedy::Reopened => "reopened",
                Remedy::Lost => "lost",
            };
            ("healed", error_value(env, &error)?, text(env, remedy.as_bytes())?)
        }
        LogEvent::Checkpoint(outcome) => ("checkpoint", checkpoint_value(env, &outcome)?, none),
        LogEvent::Rejected(entries, columns, error) => {
            let entry = match entries.at(Position::default()) {
                Some((entry, _)) => entry_value(env, &entry, &columns)?,
                None => none,
            };
            ("rejected", error_value(env, &error)?, entry)
        }
        LogEvent::Backpressure(full) => ("backpressure", boolean(env, full)?, none),
        LogEvent::Report(name, json) => (name, text(env, json.as_bytes())?, none),
    };
    Ok([text(env, name.as_bytes())?, first, second])
}

fn checkpoint_value(
    env: sys::napi_env,
    outcome: &checkpoint::CheckpointOutcome,
) -> Outcome<sys::napi_value> {
    let object = new_object(env)?;
    set(env, object, c"mode", text(env, outcome.mode.name().as_bytes())?)?;
    set(env, object, c"busy", boolean(env, outcome.busy)?)?;
    set(env, object, c"frames", number_value(env, f64::from(outcome.frames))?)?;
    set(env, object, c"backfilled", number_value(env, f64::from(outcome.backfilled))?)?;
    Ok(object)
}
