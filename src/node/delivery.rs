//! What happens on other threads, handed to a JavaScript thread: a log's events into its mailbox, and
//! its mail to the receiver that it connected.

use std::ptr;
use std::sync::Arc;

use napi::sys;

use super::agent_log::report_own_transactions;
use super::callback::text;
use super::environment::Environment;
use super::errors::{Outcome, Thrown, check, error_value};
use super::healing::let_go_all;
use super::log_entry::entry_value;
use super::mailbox::{Happening, Mailbox, Message};
use super::value::{boolean, new_array, new_object, null, number_value, set, set_element};
use crate::agent_log::{Entries, Event, Listener, Position};
use crate::checkpoint;
use crate::engine::{Remedy, Stage};

/// A log's events, for the thread that opened the handle.
pub(super) struct ToJavaScript {
    pub(super) mailbox: Arc<Mailbox>,
    /// By which events name the handle.
    pub(super) id: f64,
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
            Event::Healed(error, remedy) => Happening::Healed(error.clone(), *remedy),
            Event::Reopen => return self.mailbox.post(Message::LetGo),
            Event::LockedOut => return self.mailbox.post(Message::LockedOut),
            Event::Replaced(error) => Happening::Failure("replaced", error.clone()),
            Event::Recovering(health) => return self.tell("recovering", health),
            Event::Recovered(report) => return self.tell("recovered", report),
            Event::Checkpoint(outcome) => Happening::Checkpoint(*outcome),
            Event::Rejected(entries, columns, error) => {
                let mut copy = Entries::default();
                copy.append(entries);
                Happening::Rejected(copy, Arc::clone(columns), error.clone())
            }
            Event::Backpressure(full) => Happening::Backpressure(*full),
        };
        self.mailbox.post(Message::Event(self.id, happening));
    }

    fn hold(&self) {
        self.mailbox.hold();
    }

    fn release(&self) {
        self.mailbox.release();
    }
}

/// Calls `receiver(kind, number, …)` for each message.
pub(super) fn deliver(env: sys::napi_env, receiver: sys::napi_value, messages: Vec<Message>) {
    for message in messages {
        // A receiver that throws has its exception handled by Node as any callback's; a message
        // that cannot be built for want of memory is lost with the process.
        drop(deliver_one(env, receiver, message));
    }
}

fn deliver_one(env: sys::napi_env, receiver: sys::napi_value, message: Message) -> Outcome<()> {
    if matches!(message, Message::LetGo) {
        let_go_all(&*Environment::of(env)?);
        return Ok(());
    }
    if matches!(message, Message::LockedOut) {
        return report_own_transactions(&*Environment::of(env)?);
    }
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
        Message::LetGo | Message::LockedOut => ok("", 0.0),
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
                Happening::Healed(error, remedy) => {
                    let remedy = match remedy {
                        Remedy::IndexRebuilt => "indexRebuilt",
                        Remedy::Reopened => "reopened",
                        Remedy::Lost => "lost",
                    };
                    ("healed", error_value(env, &error)?, text(env, remedy.as_bytes())?)
                }
                Happening::Checkpoint(outcome) => {
                    ("checkpoint", checkpoint_value(env, &outcome)?, undefined)
                }
                Happening::Rejected(entries, columns, error) => {
                    let entry = match entries.at(Position::default()) {
                        Some((entry, _)) => entry_value(env, &entry, &columns)?,
                        None => undefined,
                    };
                    ("rejected", error_value(env, &error)?, entry)
                }
                Happening::Backpressure(full) => ("backpressure", boolean(env, full)?, undefined),
            };
            with("event", log, [text(env, name.as_bytes())?, first, second, undefined, undefined])
        }
    }
}

fn checkpoint_value(env: sys::napi_env, outcome: &checkpoint::Outcome) -> Outcome<sys::napi_value> {
    let object = new_object(env)?;
    set(env, object, c"mode", text(env, outcome.mode.name().as_bytes())?)?;
    set(env, object, c"busy", boolean(env, outcome.busy)?)?;
    set(env, object, c"frames", number_value(env, f64::from(outcome.frames))?)?;
    set(env, object, c"backfilled", number_value(env, f64::from(outcome.backfilled))?)?;
    Ok(object)
}
