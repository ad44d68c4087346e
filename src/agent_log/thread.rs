//! The thread of a file's writer: its start, the callbacks that wake it from outside the queue, its
//! rest and its end.
//!
//! A writer without work for a while closes its connection and ends its thread; the next call that
//! wakes the writer starts another thread. Meanwhile the log stays open with all of its state.
//!
//! A panic of the writer is caught: the batch goes back to the queue, and the log stops with an
//! error. When the writer ends for good, `at_end` removes the log from the list of running logs,
//! and every call that still waits is answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::event::Event;
use super::log::LogCore;
use super::queue::Waiting;
use super::writer::{Finish, Writer};
use crate::engine::{self, Error, Remedy, Result};

type AtEnd = fn(&Arc<LogCore>);

/// Gives `shared` its writer, and starts it.
///
/// # Errors
/// `ERR_FUSION_THREAD` if the system refuses to start a thread.
pub(super) fn start(shared: &Arc<LogCore>, at_end: AtEnd) -> Result<()> {
    subscribe(shared);
    let weak = Arc::downgrade(shared);
    let refused = AtomicBool::new(false);
    shared.queue.start_with(move || {
        let Some(shared) = weak.upgrade() else { return };
        match spawn(&shared, at_end) {
            Ok(()) => refused.store(false, Ordering::Relaxed),
            Err(error) => {
                not_started(&shared, at_end, &error, refused.swap(true, Ordering::Relaxed));
            }
        }
    });
    shared.queue.lock().started();
    spawn(shared, at_end)
}

fn spawn(shared: &Arc<LogCore>, at_end: AtEnd) -> Result<()> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("fusion-sqlite".to_owned())
        .spawn(move || {
            if run_with_restart(&shared) == Finish::Ended {
                at_end(&shared);
                notify_ended(&shared);
            }
        })
        .map(drop)
        .map_err(|error| {
            Error::fusion(
                "ERR_FUSION_THREAD",
                format!("the system refused to start the log's writer thread: {error}"),
            )
        })
}

/// The system refused to start the writer's thread. Entries are kept, waiting calls get the error,
/// and the next call tries again. `again`: the previous start failed too and was reported.
fn not_started(shared: &Arc<LogCore>, at_end: AtEnd, error: &Error, again: bool) {
    let mut state = shared.queue.lock();
    state.not_started();
    let closing = state.closing;
    if closing && state.rows > 0 {
        state.stopped.get_or_insert_with(|| error.clone());
    }
    drop(state);
    if !again {
        shared.emit(&Event::Error(error.clone()));
    }
    shared.deliver(shared.queue.fail_waiting(error, &Waiting::default()));
    for reply in shared.queue.take_checkpoints() {
        reply(Err(error.clone()));
    }
    if closing {
        at_end(shared);
        notify_ended(shared);
    }
}

/// Subscribes the log to events of the file's WAL and connections, until the log is dropped or
/// another log of the same file replaces the subscription.
fn subscribe(shared: &Arc<LogCore>) {
    let weak = Arc::downgrade(shared);
    shared.file.wal.set_wake(
        shared.options.checkpoints.due_frames,
        Some(Arc::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.queue.look_at_wal();
            }
        })),
    );
    let weak = Arc::downgrade(shared);
    shared.file.recovery.observe(Some(Arc::new(move |error, remedy| {
        if let Some(shared) = weak.upgrade() {
            if remedy == Remedy::Lost {
                shared.emit(&Event::Error(engine::commits_lost().at(&shared.file.path)));
            }
            shared.emit(&Event::Healed(error, remedy));
        }
    })));
}

/// Runs the writer until it ends or rests; restarts it after a panic.
fn run_with_restart(shared: &LogCore) -> Finish {
    let mut writer = Writer::new(shared);
    loop {
        if let Ok(finish) = catch_unwind(AssertUnwindSafe(|| writer.run())) {
            return finish;
        }
        writer.abandon();
        shared.stop(&Error::fusion(
            "ERR_FUSION_WRITER_PANIC",
            "the log's writer met a defect of fusion-sqlite and has stopped; entries are kept, \
             takePending() returns them. Please report it with the process's standard error.",
        ));
    }
}

/// Answers the calls that wait for the writer's end, and checkpoints requested too late.
fn notify_ended(shared: &LogCore) {
    let mut state = shared.queue.lock();
    state.ended = true;
    let waiting = std::mem::take(&mut state.when_ended);
    let stopped = state.stopped.clone();
    drop(state);
    shared.queue.progress.notify_all();
    for reply in waiting {
        reply(stopped.clone().map_or(Ok(()), Err));
    }
    // Requested after the writer last read the queue.
    for reply in shared.queue.take_checkpoints() {
        reply(Err(Error::fusion("ERR_INVALID_STATE", "database is not open")));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use rusqlite::OpenFlags;

    use super::*;
    use crate::agent_log::{Entries, LogOptions};
    use crate::engine::{Connection, Wal};

    const SCHEMA: &str = "
        CREATE TABLE agentLogEntries (
            id INTEGER PRIMARY KEY AUTOINCREMENT, taskId TEXT, timestamp TEXT, text TEXT,
            type TEXT, detail TEXT, agent TEXT);
        CREATE TABLE other (value)";

    fn until(condition: impl Fn() -> bool) {
        while !condition() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    struct Fixture {
        _folder: tempfile::TempDir,
        connection: Connection,
        shared: Arc<LogCore>,
    }

    impl Fixture {
        /// A log whose writer rests as soon as it has no work.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut options = LogOptions { change_counter: None, ..LogOptions::default() };
            options.checkpoints.idle = Duration::from_millis(10);
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            let path = folder.path().join("fusion.db");
            let connection = Connection::open_hardened(&path, flags, &options.profile).unwrap();
            engine::watch_wal(&connection);
            connection.sql().unwrap().execute_batch(SCHEMA).unwrap();
            let mut shared = LogCore::new(Arc::clone(connection.file().unwrap()), options);
            shared.rest_after = Duration::ZERO;
            let shared = Arc::new(shared);
            start(&shared, |_| ()).unwrap();
            Self { _folder: folder, connection, shared }
        }

        /// Waits until the writer has no thread; asserts that the WAL is empty and its connection
        /// closed.
        fn rests(&self) {
            until(|| self.shared.queue.lock().is_resting());
            assert!(self.shared.file.has_one_connection());
            let wal = std::fs::metadata(Wal::path(&self.shared.file.path));
            assert_eq!(wal.map_or(0, |wal| wal.len()), 0);
        }

        fn append(&self) -> mpsc::Receiver<u64> {
            let mut entry = Entries::default();
            entry.push([Some(b"FN"), Some(b"now"), Some(b"text"), Some(b"type"), None, None]);
            let (sender, receiver) = mpsc::channel();
            let reply = Box::new(move |answer: crate::agent_log::Answer| {
                sender.send(answer.unwrap().committed).unwrap();
            });
            self.shared.queue.push_batch(entry, reply, &self.shared.options).unwrap();
            receiver
        }

        fn end(self) {
            let (sender, ended) = mpsc::channel();
            self.shared.queue.lock().when_ended.push(Box::new(move |result| {
                sender.send(result).unwrap();
            }));
            self.shared.queue.close();
            ended.recv().unwrap().unwrap();
        }
    }

    #[test]
    fn a_writer_that_rests_is_back_for_the_next_append() {
        let fixture = Fixture::new();
        for _ in 0..3 {
            fixture.rests();
            assert_eq!(fixture.append().recv().unwrap(), 1);
        }
        fixture.rests();
        fixture.end();
    }

    #[test]
    fn a_writer_that_rests_cares_for_what_sql_commits() {
        let fixture = Fixture::new();
        for _ in 0..3 {
            fixture.rests();
            fixture.connection.sql().unwrap().execute("INSERT INTO other VALUES (1)", []).unwrap();
            // The commit is counted before the call returns.
            until(|| fixture.shared.wal().completed.iter().sum::<u64>() > 0);
        }
        fixture.rests();
        fixture.end();
    }

    #[test]
    fn a_writer_that_rests_carries_out_a_checkpoint_and_answers_a_barrier() {
        let fixture = Fixture::new();
        fixture.rests();
        let (sender, done) = mpsc::channel();
        let mode = crate::checkpoint::Mode::Truncate;
        fixture.shared.queue.request_checkpoint(
            mode,
            Box::new(move |outcome| sender.send(outcome.unwrap().busy).unwrap()),
        );
        assert!(!done.recv().unwrap());
        fixture.rests();
        let (sender, done) = mpsc::channel();
        fixture.shared.queue.barrier(Box::new(move |result| sender.send(result).unwrap()));
        done.recv().unwrap().unwrap();
        assert!(fixture.shared.queue.flush(Duration::ZERO, &|| ()).is_ok());
        fixture.end();
    }
}
