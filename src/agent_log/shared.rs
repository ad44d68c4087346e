//! The state of a log that its handles and its writer share: the file, the options, the queue, the
//! WAL's status, and the listeners.
//!
//! Any thread. Listeners and replies are called with no lock held. [`Shared::stop`] stops writing
//! and [`Shared::go_on`] resumes it; the callers decide when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::event::{Event, Listener};
use super::options::Options;
use super::queue::{Queue, Settled, Waiting};
use super::stats::WalStatus;
use crate::engine::{Class, DatabaseFile, Error};

/// Ends idle writer threads: a process may have hundreds of databases open and write to few.
const REST_AFTER: Duration = Duration::from_secs(30);

/// Listeners that are held until this is dropped, also if a reply panics.
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

/// The shared state of a log.
pub(super) struct Shared {
    pub file: Arc<DatabaseFile>,
    pub options: Options,
    pub queue: Queue,
    /// See [`Self::knows_table`].
    table_seen: AtomicBool,
    /// How long the writer's thread waits idle before it ends.
    pub rest_after: Duration,
    wal: Mutex<WalStatus>,
    listeners: Mutex<Vec<(u64, Arc<dyn Listener>)>>,
}

impl Shared {
    pub fn new(file: Arc<DatabaseFile>, options: Options) -> Self {
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
        self.wal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the schema has the table.
    pub fn see_table(&self) {
        self.table_seen.store(true, Ordering::Release);
    }

    /// Whether the schema has ever had the table. If so, the log never creates it: a migration that
    /// dropped it is about to create it.
    pub fn knows_table(&self) -> bool {
        self.table_seen.load(Ordering::Acquire) || self.queue.lock().stats.rows > 0
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<(u64, Arc<dyn Listener>)>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Delivers the events and replies of a settled batch. Rejections come first: once a flush has
    /// resolved, the process may end, so its rejected rows must have been reported before.
    pub fn tell(&self, mut settled: Settled) {
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

    /// Whether writing has stopped.
    pub fn is_stopped(&self) -> bool {
        self.queue.lock().stopped.is_some()
    }

    /// Stops writing. Entries stay queued; each waiting call gets `error`. The first error counts.
    pub fn stop(&self, error: &Error) {
        let mut state = self.queue.lock();
        if state.stopped.is_some() {
            return;
        }
        state.stopped = Some(error.clone());
        drop(state);
        // The event comes first, so that the cause is known when a waiting append fails.
        self.emit(&match error.class() {
            Class::Replaced => Event::Replaced(error.clone()),
            Class::Corrupt => Event::Corrupt(error.clone()),
            _ => Event::Error(error.clone()),
        });
        self.tell(self.queue.fail_waiting(error, &Waiting::default()));
        for reply in self.queue.take_checkpoints() {
            reply(Err(error.clone()));
        }
    }

    /// Resumes writing after a repair or restore of the file, if corruption had stopped it. Entries
    /// that are still queued are written.
    pub fn resume(&self) {
        self.go_on(Class::Corrupt);
    }

    /// Resumes writing, if an error of this class had stopped it.
    pub fn go_on(&self, class: Class) {
        let mut state = self.queue.lock();
        if state.stopped.as_ref().is_some_and(|error| error.class() == class) {
            state.stopped = None;
            state.failing = None;
            state.retry_at = None;
            // A stopped writer does not checkpoint, so the WAL may be due.
            state.look_at_wal = true;
            self.queue.wake(state, None);
        }
    }

    /// Emits [`Event::Backpressure`] for the first refusal since the queue last had room.
    pub fn tell_refusal(&self) {
        if self.queue.lock().start_refusing() {
            self.emit(&Event::Backpressure(true));
        }
    }
}
