//! Keeping backups and the JavaScript thread off a connection at the same time.
//!
//! Connections have no mutex of SQLite's (`SQLITE_OPEN_NO_MUTEX`), because one thread uses them.
//! During a backup two threads use the source connection: the JavaScript thread, and the thread of
//! libuv's pool that copies the next pages. In place of that mutex a [`BackupGate`] admits one of them at
//! a time: the JavaScript thread for a whole call, nested calls included, the pool for one slice.
//! Without a backup the gate costs a call two additions.
//!
//! Invariant: while `backups` and `depth` are both above 0, the JavaScript thread has the gate.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::engine::Connection;

/// Lets in one thread at a time.
#[derive(Debug, Default)]
pub struct BackupGate {
    taken: Mutex<bool>,
    freed: Condvar,
}

/// A thread is inside; it leaves when this is dropped.
#[derive(Debug)]
pub struct Inside<'a>(&'a BackupGate);

impl BackupGate {
    /// Waits until no thread is inside, and goes in.
    pub fn go_in(&self) -> Inside<'_> {
        self.take();
        Inside(self)
    }

    fn take(&self) {
        let mut taken = self.taken.lock();
        while *taken {
            self.freed.wait(&mut taken);
        }
        *taken = true;
    }

    fn free(&self) {
        *self.taken.lock() = false;
        self.freed.notify_one();
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.free();
    }
}

/// The JavaScript thread's side of one connection. See the module's documentation.
#[derive(Debug, Default)]
pub struct Sharing {
    /// Calls of the JavaScript thread that use the connection, one inside the other.
    depth: Cell<u32>,
    /// Backups that are under way.
    backups: Cell<u32>,
    gate: OnceCell<Arc<BackupGate>>,
    /// The connection, once JavaScript closed it in the middle of a backup.
    kept: RefCell<Option<Connection>>,
}

/// A call of the JavaScript thread uses the connection; it ends when this is dropped.
#[derive(Debug)]
pub struct Entered<'a>(&'a Sharing);

impl Sharing {
    /// Begins a call, once no backup is using the connection.
    #[inline]
    pub fn enter(&self) -> Entered<'_> {
        let depth = self.depth.get();
        if depth == 0 && self.is_shared() {
            self.gate().take();
        }
        self.depth.set(depth + 1);
        Entered(self)
    }

    /// Whether a backup is under way.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.backups.get() > 0
    }

    /// A backup begins. It uses the connection only inside the gate.
    pub fn share(&self) -> Arc<BackupGate> {
        if !self.is_shared() && self.depth.get() > 0 {
            self.gate().take();
        }
        self.backups.set(self.backups.get() + 1);
        Arc::clone(self.gate())
    }

    /// A backup has ended: it no longer uses the connection.
    pub fn unshare(&self) {
        self.backups.set(self.backups.get() - 1);
        if !self.is_shared() {
            if self.depth.get() > 0 {
                self.gate().free();
            }
            drop(self.kept.take());
        }
    }

    /// Keeps the connection open until the last backup has ended.
    pub fn keep(&self, connection: Connection) {
        self.kept.replace(Some(connection));
    }

    #[cold]
    fn gate(&self) -> &Arc<BackupGate> {
        self.gate.get_or_init(Arc::default)
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        let depth = self.0.depth.get() - 1;
        self.0.depth.set(depth);
        if depth == 0 && self.0.is_shared() {
            self.0.gate().free();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(sharing: &Sharing) -> bool {
        *sharing.gate().taken.lock()
    }

    #[test]
    fn a_call_has_the_gate_while_there_are_backups_however_they_overlap() {
        let sharing = Sharing::default();
        let outer = sharing.enter();
        assert!(!is_taken(&sharing), "no backup to keep out");
        sharing.share();
        assert!(is_taken(&sharing), "a backup began within the call");
        let inner = sharing.enter();
        drop(inner);
        assert!(is_taken(&sharing));
        drop(outer);
        assert!(!is_taken(&sharing));
        let call = sharing.enter();
        assert!(is_taken(&sharing));
        sharing.unshare();
        assert!(!is_taken(&sharing), "the last backup ended within the call");
        drop(call);
        assert!(!is_taken(&sharing));
    }

    #[test]
    fn a_call_waits_for_the_thread_inside() {
        let sharing = Sharing::default();
        let gate = sharing.share();
        let (sender, order) = std::sync::mpsc::channel();
        let inside = gate.go_in();
        let slice = std::thread::scope(|scope| {
            let thread_sender = sender.clone();
            scope.spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                thread_sender.send("slice").unwrap();
                drop(inside);
            });
            drop(sharing.enter());
            sender.send("call").unwrap();
            order.recv().unwrap()
        });
        assert_eq!(slice, "slice");
        sharing.unshare();
    }
}
