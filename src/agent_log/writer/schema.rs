//! The schema that the writer keeps beside the file, for a repair ([`snapshot_file`]). The
//! writer's thread, when the file has just been used without a complaint.
//!
//! [`snapshot_file`]: crate::recovery::snapshot_file

use std::time::{Duration, Instant};

use rusqlite::OpenFlags;

use super::connection::OwnConnection;
use crate::agent_log::shared::Shared;
use crate::agent_log::table;
use crate::engine::{Connection, Profile, Wal};
use crate::recovery::snapshot_file::{self, Keeper};

pub(super) struct Schema<'a> {
    shared: &'a Shared,
    keeper: Keeper,
}

impl<'a> Schema<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, keeper: Keeper::default() }
    }

    /// Keeps it, if it may have changed and was not looked at lately.
    pub fn keep_if_due(&mut self, own: &OwnConnection<'_>, now: Instant) {
        if self.has_been_written_to() && self.keeper.is_due(self.shared.file.wal.commits(), now) {
            self.keep(own);
        }
    }

    /// Keeps it, if it may have changed, and notes that the file was found sound.
    pub fn keep_if_stale(&mut self, own: &OwnConnection<'_>) {
        let file = &self.shared.file;
        if self.keeper.is_stale(file.wal.commits()) || self.keeper.lacks_note(&file.path) {
            self.keep(own);
        }
    }

    /// The file is not in order: nothing beside it says that it is.
    pub fn doubt(&self) {
        // What cannot be written cannot have been written.
        drop(snapshot_file::doubt(&self.shared.file.path));
    }

    /// Whether this process has committed to it.
    fn has_been_written_to(&self) -> bool {
        self.shared.file.wal.commits() > 0
    }

    /// On a connection that is closed again where there is no other: one that stays would be in
    /// the way of a change of journal mode.
    fn keep(&mut self, own: &OwnConnection<'_>) {
        let file = &self.shared.file;
        if file.is_suspect() {
            return;
        }
        let commits = file.wal.commits();
        if let Some(connection) = own.get() {
            return self.look(connection, commits);
        }
        // SQLite keeps the descriptor of a connection that is closed while others of the process
        // have locks, and gives it to the next one with the same flags: the writer's. A file
        // without a WAL may not be in WAL mode any more, and is left as it is.
        let flags = if Wal::path(&file.path).exists() {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        } else {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        };
        let profile =
            Profile { busy_timeout: Duration::ZERO, ..self.shared.options.profile.clone() };
        if let Ok(connection) = Connection::open_hardened(&file.path, flags, &profile) {
            self.look(&connection, commits);
        }
    }

    /// Another application's file that this process only looks into gets no file next to it.
    fn look(&mut self, connection: &Connection, commits: u32) {
        let is_ours = self.has_been_written_to()
            || snapshot_file::path(&self.shared.file.path).exists()
            || table::kind_of(connection, table::TABLE).is_ok_and(|kind| kind.is_some());
        if is_ours {
            self.keeper.look(connection, commits);
        }
    }
}
