//! The copy of the schema that the writer keeps next to the database, for a repair
//! ([`snapshot_file`]). The writer's thread, after the file was used without an error.
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

    /// Saves the schema, if it may have changed and was not compared recently.
    pub fn keep_if_due(&mut self, own: &OwnConnection<'_>, now: Instant) {
        if self.has_been_written_to() && self.keeper.is_due(self.shared.file.wal.commits(), now) {
            self.keep(own);
        }
    }

    /// Saves the schema, if it may have changed, and the note that the file was found sound.
    pub fn keep_if_stale(&mut self, own: &OwnConnection<'_>) {
        let file = &self.shared.file;
        if self.keeper.is_stale(file.wal.commits()) || self.keeper.lacks_note(&file.path) {
            self.keep(own);
        }
    }

    /// Removes the saved note that the file was found sound, because it may be damaged.
    pub fn doubt(&self) {
        // If the folder cannot be written to, no note was written there either.
        drop(snapshot_file::doubt(&self.shared.file.path));
    }

    /// Whether this process has committed to the file.
    fn has_been_written_to(&self) -> bool {
        self.shared.file.wal.commits() > 0
    }

    /// Saves the schema. If the writer has no connection, a temporary one reads it: a connection
    /// that stays open would prevent a change of journal mode.
    fn keep(&mut self, own: &OwnConnection<'_>) {
        let file = &self.shared.file;
        if file.is_suspect() {
            return;
        }
        let commits = file.wal.commits();
        if let Some(connection) = own.get() {
            return self.look(connection, commits);
        }
        // If other connections of the process hold locks, SQLite keeps the file descriptor of a
        // closed connection, and reuses it for the next one with the same flags: the writer's. A
        // file without a WAL may have left WAL mode, so it is opened read-only.
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

    /// Saves the schema read on `connection`, if the file is one that this package writes to. A
    /// file of another application, which this process only reads, gets no file next to it.
    fn look(&mut self, connection: &Connection, commits: u32) {
        let is_ours = self.has_been_written_to()
            || snapshot_file::path(&self.shared.file.path).exists()
            || table::kind_of(connection, table::TABLE).is_ok_and(|kind| kind.is_some());
        if is_ours {
            self.keeper.look(connection, commits);
        }
    }
}
