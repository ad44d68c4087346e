//! The copy of the schema that the writer keeps in a sidecar file, for a repair
//! ([`snapshot_file`]). The writer's thread, after the file was used without an error.
//!
//! [`snapshot_file`]: crate::recovery::snapshot_file

use std::time::{Duration, Instant};

use rusqlite::OpenFlags;

use super::connection::OwnConnection;
use crate::agent_log::log::LogCore;
use crate::agent_log::table;
use crate::engine::{Connection, Profile, Wal};
use crate::recovery::snapshot_file::{self, Keeper};

pub(super) struct Schema<'a> {
    shared: &'a LogCore,
    keeper: Keeper,
}

impl<'a> Schema<'a> {
    pub fn new(shared: &'a LogCore) -> Self {
        Self { shared, keeper: Keeper::default() }
    }

    /// Saves the schema if it may have changed and was not saved lately.
    pub fn keep_if_due(&mut self, own: &OwnConnection<'_>, now: Instant) {
        if self.has_been_written_to() && self.keeper.is_due(self.shared.file.wal.commits(), now) {
            self.keep(own);
        }
    }

    /// Saves the schema if it may have changed, or if its file lacks the note that the database is
    /// sound.
    pub fn keep_if_stale(&mut self, own: &OwnConnection<'_>) {
        let file = &self.shared.file;
        if self.keeper.is_stale(file.wal.commits()) || self.keeper.lacks_note(&file.path) {
            self.keep(own);
        }
    }

    /// The database may be damaged: removes the note that it is sound.
    pub fn doubt(&self) {
        // If the schema file cannot be written, it has no note either.
        drop(snapshot_file::doubt(&self.shared.file.path));
    }

    /// Whether this process has committed to the file.
    fn has_been_written_to(&self) -> bool {
        self.shared.file.wal.commits() > 0
    }

    /// Saves the schema. Opens a connection if the writer has none, and closes it afterwards: an
    /// open connection would block a change of journal mode.
    fn keep(&mut self, own: &OwnConnection<'_>) {
        let file = &self.shared.file;
        if file.is_unverified() {
            return;
        }
        let commits = file.wal.commits();
        if let Some(connection) = own.get() {
            return self.look(connection, commits);
        }
        // If other connections of the process hold locks, SQLite keeps the file descriptor of a
        // closed connection and reuses it for the next one with the same flags: the writer's. A
        // file without a WAL may no longer be in WAL mode, so it is opened read-only.
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

    /// Saves the schema unless the file is another application's that this process only reads.
    fn look(&mut self, connection: &Connection, commits: u32) {
        let is_ours = self.has_been_written_to()
            || snapshot_file::path(&self.shared.file.path).exists()
            || table::kind_of(connection, table::TABLE).is_ok_and(|kind| kind.is_some());
        if is_ours {
            self.keeper.look(connection, commits);
        }
    }
}
