//! The part of a log that its handles and its writer share: the file, the options, the queue, the
//! state of the WAL, and the listeners.
//!
//! Any thread. Listeners and replies are called with no lock held. This module stops writing for
//! good and resumes it; the writer decides when that is necessary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::event::{Event, Listener};
use super::options::LogOptions;
use super::queue::{Completions, Queue, Waiting};
use super::stats::WalStatus;
use crate::engine::{Class, DatabaseFile, Error};

/// After this time without work the writer's thread ends: a process may have hundreds of databases
/// open and write to few of them.
const REST_AFTER: Duration = Duration::from_secs(30);

/// Holds the listeners and releases them on drop, also if a reply panics.
struct Held(Vec<Arc<dyn Listener>>);

impl Held {
    fn new(listeners: Vec<Arc<dyn Listener>>) -> Self {
        for listener in &listeners {
            listener.hold();
        }
        Self(listeners)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for listener in &self.0 {
            listener.release();
        }
    }
}

/// The part of a log that its handles and its writer share.
pub(super) struct LogCore {
    pub file: Arc<DatabaseFile>,
    pub options: LogOptions,
    pub queue: Queue,
    /// See [`Self::knows_table`].
    table_seen: AtomicBool,
    /// How long the writer's thread stays without work.
    pub rest_after: Duration,
    wal: Mutex<WalStatus>,
    listeners: Mutex<Vec<(u64, Arc<dyn Listener>)>>,
}

impl LogCore {
    pub fn new(file: Arc<DatabaseFile>, options: LogOptions) -> Self {
        Self {
            file,
            options,
            queue: Queue::new(),
            table_seen: AtomicBool::default(),
            rest_after: REST_AFTER,
            wal: Mutex::default(),
            listeners: Mutex::default(),
        }
    }

    pub fn wal(&self) -> MutexGuard<'_, WalStatus> {
        self.wal.lock()
    }

    /// Notes that the schema has the table.
    pub fn see_table(&self) {
        self.table_seen.store(true, Ordering::Release);
    }

    /// Whether the table existed at some time. After that it is never created: the migration that
    /// dropped it is about to create it again.
    pub fn knows_table(&self) -> bool {
        self.table_seen.load(Ordering::Acquire) || self.queue.lock().stats.rows > 0
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<(u64, Arc<dyn Listener>)>> {
        self.listeners.lock()
    }

    pub fn listen(&self, id: u64, listener: Arc<dyn Listener>) {
        self.listeners().push((id, listener));
    }

    pub fn unlisten(&self, id: u64) {
        self.listeners().retain(|(listener, _)| *listener != id);
    }

    pub fn emit(&self, event: &Event) {
        for listener in self.each_listener() {
            listener.event(event);
        }
    }

    fn each_listener(&self) -> Vec<Arc<dyn Listener>> {
        self.listeners().iter().map(|(_, listener)| Arc::clone(listener)).collect()
    }

    /// Delivers the replies and events of a settled batch. Rejections first: after a flush has
    /// resolved, nothing may keep the process alive to receive them.
    pub fn deliver(&self, mut settled: Completions) {
        for (entries, error) in std::mem::take(&mut settled.unawaited) {
            self.emit(&Event::Rejected(entries, Arc::clone(&self.options.columns), error));
        }
        let relieved = settled.relieved;
        let held = Held::new(self.each_listener());
        settled.reply();
        drop(held);
        if relieved {
            self.emit(&Event::Backpressure(false));
        }
    }

    /// Whether writing has ended for good.
    pub fn is_stopped(&self) -> bool {
        self.queue.lock().stopped.is_some()
    }

    /// Stops writing for good: entries stay, each waiting call gets the error. The first error
    /// counts.
    pub fn stop(&self, error: &Error) {
        let mut state = self.queue.lock();
        if state.stopped.is_some() {
            return;
        }
        state.stopped = Some(error.clone());
        drop(state);
        // The event first: a program that gets the error of an append has seen the reason.
        self.emit(&match error.class() {
            Class::Replaced => Event::Replaced(error.clone()),
            Class::Corrupt => Event::Corrupt(error.clone()),
            _ => Event::Error(error.clone()),
        });
        self.deliver(self.queue.fail_waiting(error, &Waiting::default()));
        for reply in self.queue.take_checkpoints() {
            reply(Err(error.clone()));
        }
    }

    /// The file was repaired or restored: a log that its damage had stopped goes on, with the
    /// entries that are still queued.
    pub fn resume(&self) {
        self.check_cancelled(Class::Corrupt);
    }

    /// Resumes writing if an error of this class had stopped it.
    pub fn check_cancelled(&self, class: Class) {
        let mut state = self.queue.lock();
        if state.stopped.as_ref().is_some_and(|error| error.class() == class) {
            state.stopped = None;
            state.failing = None;
            state.retry_at = None;
            // The WAL was not checkpointed meanwhile.
            state.look_at_wal = true;
            self.queue.wake(state, None);
        }
    }

    /// Emits `Backpressure(true)`, once until the queue has room again.
    pub fn report_refusal(&self) {
        if self.queue.lock().start_refusing() {
            self.emit(&Event::Backpressure(true));
        }
    }
}
