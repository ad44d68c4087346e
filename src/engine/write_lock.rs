//! In-process write-lock fairness, among the connections of this process to one file.
//!
//! SQLite makes a connection that finds the write lock taken *sleep and try again*. Inside one
//! process that is both unfair (a background writer that commits batch after batch wins every
//! race against a sleeper) and slow (the sleeper sleeps on when the lock is already free).
//! A [`WriteGate`] avoids both. SQLite's locks, which it does not touch, alone decide who writes:
//!
//! * The background writer holds the turn while its transaction is open. A synchronous call that
//!   SQLite sends to sleep meanwhile waits for the end of the turn instead of the clock, and is
//!   *owed* the next turn: the writer does not begin again until that call has got the write lock
//!   or has found that another connection holds it. So a synchronous call waits for at most one
//!   batch.
//! * A writer that waits is woken by the end of the synchronous call or transaction that had the
//!   write lock.
//!
//! SQLite's sleep is the `xSleep` method of its VFS. The busy handlers of `PRAGMA busy_timeout` and
//! `sqlite3_busy_timeout` both call it; replacing it there leaves those settings, and the values
//! that reading them back returns, unchanged. Other processes cannot wake a thread here, so every
//! wait also ends after the time that SQLite asked for.
//!
//! Threads: the writer calls [`WriteGate::take`] and [`Waiter::wait`]; JavaScript threads
//! run their SQLite calls inside [`with_sync_call`].

use std::cell::Cell;
use std::ffi::c_int;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rusqlite::ffi;

/// How long the writer lets one synchronous call have precedence. A call that was woken retries
/// within microseconds; the bound only matters where its thread was stopped, by a debugger say.
const PRECEDENCE: Duration = Duration::from_millis(500);

/// The turns of one database file. See the module's documentation.
#[derive(Debug, Default)]
pub struct WriteGate {
    state: Mutex<State>,
    changed: Condvar,
    /// Threads (of whatever kind) that wait for a release. Read without the mutex at the end of
    /// every synchronous call, so that a call that no thread waits for costs one load.
    sleepers: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    /// The writer's transaction is open.
    held: bool,
    /// Releases so far, of whatever connection.
    releases: u64,
    /// Synchronous calls that waited for the writer's turn to end and have not retried yet.
    waiting_calls: u32,
}

/// The writer's turn; it ends when this is dropped.
#[derive(Debug)]
pub struct WriteGuard<'a>(&'a WriteGate);

/// One synchronous call under way on this thread.
struct Call {
    turn: *const WriteGate,
    waiting_calls: Cell<bool>,
    /// It has once tried again at once, with the writer standing back.
    retried: Cell<bool>,
    outer: *const Call,
}

thread_local! {
    /// The innermost synchronous call of this thread, for `xSleep`, which gets no connection.
    static CURRENT: Cell<*const Call> = const { Cell::new(ptr::null()) };
}

impl WriteGate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Takes the writer's turn, after the synchronous calls that are owed one.
    pub fn take(&self) -> WriteGuard<'_> {
        let deadline = Instant::now() + PRECEDENCE;
        let mut state = self.lock();
        while state.waiting_calls > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            self.changed.wait_for(&mut state, left);
        }
        state.held = true;
        WriteGuard(self)
    }

    /// Announces that the caller is about to try for the write lock and wants to be woken.
    /// Made before the try, so that a release between the try and the wait is not missed.
    pub fn expect_release(&self) -> Waiter<'_> {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        Waiter { turn: self, seen: self.lock().releases }
    }

    fn release(&self) {
        self.lock().releases += 1;
        self.changed.notify_all();
    }

    /// A synchronous call found the write lock taken, and SQLite asks it to sleep.
    fn sleep(&self, call: &Call, time: Duration) {
        let deadline = Instant::now() + time;
        let expectation = self.expect_release();
        let mut state = self.lock();
        if call.waiting_calls.replace(false) {
            // It has retried, and another connection has the lock: the writer need not wait for it.
            state.waiting_calls = state.waiting_calls.saturating_sub(1);
            self.changed.notify_all();
        } else if !state.held && !call.retried.replace(true) {
            // The writer has committed since this call looked: the lock is free again, or the
            // call's snapshot was old (SQLITE_BUSY_SNAPSHOT) and never needed the lock. Asleep it
            // would let batch after batch pass.
            state.waiting_calls += 1;
            call.waiting_calls.set(true);
            return;
        }
        let behind_writer = state.held;
        if behind_writer {
            state.waiting_calls += 1;
            call.waiting_calls.set(true);
        }
        while state.releases == expectation.seen && (state.held || !behind_writer) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            self.changed.wait_for(&mut state, left);
        }
    }
}

impl WriteGuard<'_> {
    /// Ends the turn of a writer that did not get the write lock: nothing was released, so only
    /// those are woken who waited for this turn's end.
    pub fn abandon(self) {
        let turn = self.0;
        std::mem::forget(self);
        turn.lock().held = false;
        turn.changed.notify_all();
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.held = false;
        state.releases += 1;
        drop(state);
        self.0.changed.notify_all();
    }
}

/// A waiter that is registered before the attempt, so that it misses no release. See
/// [`WriteGate::expect_release`].
#[derive(Debug)]
pub struct Waiter<'a> {
    turn: &'a WriteGate,
    seen: u64,
}

impl Waiter<'_> {
    /// Waits until a connection of this process released the write lock since the expectation was
    /// made, or until `time` has passed: another process's release wakes no thread here. Returns
    /// whether there was a release.
    pub fn wait(self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.turn.lock();
        while state.releases == self.seen {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            self.turn.changed.wait_for(&mut state, left);
        }
        true
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.turn.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `call`, everything of a synchronous operation from its first step to its reset, as a
/// synchronous call on a file whose turns are `turn`. A file-less database has none.
pub fn with_sync_call<R>(turn: Option<&WriteGate>, call: impl FnOnce() -> R) -> R {
    let Some(turn) = turn else { return call() };
    let entry = Call {
        turn,
        waiting_calls: Cell::default(),
        retried: Cell::default(),
        outer: CURRENT.get(),
    };
    CURRENT.set(&entry);
    /// Restores the outer call even if `call` unwinds.
    struct End<'a>(&'a Call, &'a WriteGate);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            CURRENT.set(self.0.outer);
            if self.0.waiting_calls.get() {
                let mut state = self.1.lock();
                state.waiting_calls = state.waiting_calls.saturating_sub(1);
            } else if self.1.sleepers.load(Ordering::SeqCst) == 0 {
                return;
            }
            self.1.release();
        }
    }
    let _end = End(&entry, turn);
    call()
}

/// Replaces the default VFS's `xSleep`. Called once, before the first connection is opened.
pub(super) fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // SAFETY: the default VFS is a static of SQLite that lives for ever; nothing has been
        // opened yet, so no other thread reads the field while it is written.
        unsafe {
            let vfs = ffi::sqlite3_vfs_find(ptr::null());
            if !vfs.is_null() {
                (*vfs).xSleep = Some(sleep);
            }
        }
    });
}

/// `sqlite3_vfs.xSleep`: returns the microseconds that it slept, as SQLite's own does.
unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    let time = Duration::from_micros(u64::try_from(microseconds).unwrap_or(0));
    let call = CURRENT.get();
    if call.is_null() {
        std::thread::sleep(time);
    } else {
        // SAFETY: CURRENT points to the entry of a `with_sync_call` further up this thread's stack, and
        // that entry's turn outlives it by borrow.
        unsafe { (*(*call).turn).sleep(&*call, time) };
    }
    microseconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    /// Starts a synchronous call that sleeps for as long as `time`, and reports when it ended.
    fn sleeper(turn: &Arc<WriteGate>, time: Duration) -> mpsc::Receiver<()> {
        let (done, ended) = mpsc::channel();
        let turn = Arc::clone(turn);
        std::thread::spawn(move || {
            with_sync_call(Some(&turn), || {
                // SAFETY: the VFS pointer is not used.
                unsafe { sleep(ptr::null_mut(), c_int::try_from(time.as_micros()).unwrap()) };
            });
            done.send(()).unwrap();
        });
        ended
    }

    fn until(condition: impl Fn() -> bool) {
        while !condition() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_end_of_the_writers_turn_wakes_a_synchronous_call() {
        let turn = Arc::new(WriteGate::default());
        let held = turn.take();
        let ended = sleeper(&turn, Duration::from_secs(1000));
        until(|| turn.lock().waiting_calls == 1);
        drop(held);
        ended.recv().unwrap();
    }

    #[test]
    fn the_writer_stands_back_until_the_call_that_waited_has_ended() {
        let turn = Arc::new(WriteGate::default());
        let held = turn.take();
        let (check_cancelled, proceed) = mpsc::channel::<()>();
        let (sender, order) = mpsc::channel();
        let call_sender = sender.clone();
        let call_turn = Arc::clone(&turn);
        let call = std::thread::spawn(move || {
            with_sync_call(Some(&call_turn), || {
                // SAFETY: the VFS pointer is not used.
                unsafe { sleep(ptr::null_mut(), 1_000_000_000) };
                proceed.recv().unwrap();
                call_sender.send("call").unwrap();
            });
        });
        until(|| turn.lock().waiting_calls == 1);
        drop(held);
        let writer_turn = Arc::clone(&turn);
        let writer = std::thread::spawn(move || {
            let _held = writer_turn.take();
            sender.send("writer").unwrap();
        });
        check_cancelled.send(()).unwrap();
        assert_eq!(order.recv().unwrap(), "call");
        assert_eq!(order.recv().unwrap(), "writer");
        call.join().unwrap();
        writer.join().unwrap();
    }

    #[test]
    fn a_call_that_finds_the_writer_gone_tries_again_at_once_and_first() {
        let turn = WriteGate::default();
        with_sync_call(Some(&turn), || {
            // SAFETY: the VFS pointer is not used.
            unsafe { sleep(ptr::null_mut(), c_int::MAX) };
            assert_eq!(turn.lock().waiting_calls, 1);
            // SAFETY: as above. Another connection has the lock, so this call waits.
            unsafe { sleep(ptr::null_mut(), 1) };
            assert_eq!(turn.lock().waiting_calls, 0);
        });
        assert_eq!(turn.lock().waiting_calls, 0);
    }

    #[test]
    fn the_end_of_a_synchronous_call_wakes_the_writer() {
        let turn = WriteGate::default();
        let expectation = turn.expect_release();
        with_sync_call(Some(&turn), || ());
        expectation.wait(Duration::from_secs(3600));
        assert_eq!(turn.sleepers.load(Ordering::SeqCst), 0);
    }
}
