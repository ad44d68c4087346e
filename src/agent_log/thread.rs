//! The thread that a file's writer runs on: its start, what wakes it from outside the queue, and
//! its end.
//!
//! A panic of the writer is caught, puts the batch back and stops the log: nothing dies quietly.
//! When the thread ends everybody is answered who still waits for that, and `at_end` is told, so
//! that whoever keeps the list of running logs forgets this one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::event::Event;
use super::shared::Shared;
use super::writer::Writer;
use crate::engine::{self, Error, Remedy, Result};

/// Starts the writer of `shared`.
///
/// # Errors
/// `ERR_FUSION_THREAD` where the system gives no thread.
pub(super) fn start(shared: &Arc<Shared>, at_end: fn(&Arc<Shared>)) -> Result<()> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("fusion-sqlite".to_owned())
        .spawn(move || {
            attend(&shared);
            supervise(&shared);
            shared.file.wal.set_wake(0, None);
            shared.file.members.observe(None);
            at_end(&shared);
            take_leave(&shared);
        })
        .map(drop)
        .map_err(|error| {
            Error::fusion(
                "ERR_FUSION_THREAD",
                format!("the system refused to start the log's writer thread: {error}"),
            )
        })
}

/// Has the file tell of its WAL and of its connections.
fn attend(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    shared.file.wal.set_wake(
        shared.options.checkpoints.due_frames,
        Some(Arc::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.queue.lock().look_at_wal = true;
                shared.queue.work.notify_one();
            }
        })),
    );
    let weak = Arc::downgrade(shared);
    shared.file.members.observe(Some(Arc::new(move |error, remedy| {
        if let Some(shared) = weak.upgrade() {
            if remedy == Remedy::Lost {
                shared.emit(&Event::Error(engine::commits_lost().at(&shared.file.path)));
            }
            shared.emit(&Event::Healed(error, remedy));
        }
    })));
}

/// Runs the writer until it ends in order.
fn supervise(shared: &Shared) {
    let mut writer = Writer::new(shared);
    while catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
        writer.abandon();
        shared.stop(&Error::fusion(
            "ERR_FUSION_WRITER_PANIC",
            "the log's writer met a defect of fusion-sqlite and has stopped; entries are kept, \
             takePending() takes them back. Please report it with the process's standard error.",
        ));
    }
}

/// Answers those who wait for the writer's end, or came too late.
fn take_leave(shared: &Shared) {
    let mut state = shared.queue.lock();
    state.ended = true;
    let waiting = std::mem::take(&mut state.when_ended);
    let stopped = state.stopped.clone();
    drop(state);
    shared.queue.progress.notify_all();
    for reply in waiting {
        reply(stopped.clone().map_or(Ok(()), Err));
    }
    // Asked for between the writer's last look at the queue and its end.
    for reply in shared.queue.take_checkpoints() {
        reply(Err(Error::fusion("ERR_INVALID_STATE", "database is not open")));
    }
}
