//! A log as its handles and its writer share it: the file, the options, the queue, what is known
//! of the WAL, and who listens.
//!
//! Any thread. Listeners and replies are called with no lock held. What stops writing for good,
//! and what lets it go on after all, is in here; what makes that necessary is the writer's to say.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::event::{Event, Listener};
use super::options::Options;
use super::queue::{Queue, Settled, Waiting};
use super::stats::WalStatus;
use crate::engine::{Class, DatabaseFile, Error};

/// A process has hundreds of databases open at times, and writes to few of them.
const REST_AFTER: Duration = Duration::from_secs(30);

/// Listeners that are held; also where a reply panics.
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

/// A log as its handles and its writer share it.
pub(super) struct Shared {
    pub file: Arc<DatabaseFile>,
    pub options: Options,
    pub queue: Queue,
    /// See [`Self::knows_table`].
    table_seen: AtomicBool,
    /// How long the writer's thread goes on without anything to do.
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

    /// Notes that the schema has the table.
    pub fn see_table(&self) {
        self.table_seen.store(true, Ordering::Release);
    }

    /// Whether the table was there once. It is never made after that: who took it away is about to
    /// bring it back.
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

    /// Tells what a settled batch left to be told. Rejections first: a flush that resolves has
    /// told of them, and once it has, nothing may keep the process alive to hear more.
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

    /// Whether writing has ended for good.
    pub fn is_stopped(&self) -> bool {
        self.queue.lock().stopped.is_some()
    }

    /// Ends writing for good: entries stay, each waiting call gets the error. The first reason counts.
    pub fn stop(&self, error: &Error) {
        let mut state = self.queue.lock();
        if state.stopped.is_some() {
            return;
        }
        state.stopped = Some(error.clone());
        drop(state);
        // The event first, so that whoever is told of a failed append knows the reason.
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

    /// The file has been repaired or restored: writing that damage had stopped goes on, with the
    /// entries that are still queued.
    pub fn resume(&self) {
        self.go_on(Class::Corrupt);
    }

    /// What had stopped writing, an error of this class, is over.
    pub fn go_on(&self, class: Class) {
        let mut state = self.queue.lock();
        if state.stopped.as_ref().is_some_and(|error| error.class() == class) {
            state.stopped = None;
            state.failing = None;
            state.retry_at = None;
            // What the WAL holds was left alone meanwhile.
            state.look_at_wal = true;
            self.queue.wake(state, None);
        }
    }

    /// Tells listeners once that the queue is full, until it has room again.
    pub fn tell_refusal(&self) {
        if self.queue.lock().start_refusing() {
            self.emit(&Event::Backpressure(true));
        }
    }
}
