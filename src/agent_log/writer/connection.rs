//! The writer's own connection: opened when it is needed, closed when it is stale or has failed.
//!
//! Used by the writer's thread alone. Only a connection from [`OwnConnection::sound`] may write or
//! checkpoint.

use std::time::{Duration, Instant};

use rusqlite::OpenFlags;

use super::verify;
use crate::agent_log::batch::{Statement, Statements};
use crate::agent_log::event::Event;
use crate::agent_log::log::LogCore;
use crate::agent_log::table;
use crate::engine::{self, Connection, Error, Profile, Result};

/// How often [`Event::Reopen`] is repeated while the writer waits for stale connections to close.
const REOPEN_AGAIN: Duration = Duration::from_millis(50);

/// How often entries that the schema refused are tried again while the schema stays the same: the
/// cause may be content, such as a row of `__meta` that a trigger reads.
const REFUSED_AGAIN: Duration = Duration::from_secs(2);

/// How long a COMMIT waits for readers if the file has a rollback journal. While it waits, it holds
/// a PENDING lock, so that no new reader begins; otherwise overlapping readers could block it
/// forever.
const DRAIN: Duration = Duration::from_millis(100);

/// Fields drop in order: statements before their connection.
struct Open {
    /// Prepared for the schema with this `cookie`.
    statements: Option<Statements>,
    cookie: i64,
    /// Reads the schema cookie.
    reads_cookie: Statement,
    /// Why the schema with this `cookie` refuses entries, and when it last did.
    refused: Option<(Error, Instant)>,
    connection: Connection,
}

pub(super) struct OwnConnection<'a> {
    shared: &'a LogCore,
    open: Option<Open>,
}

impl<'a> OwnConnection<'a> {
    pub fn new(shared: &'a LogCore) -> Self {
        Self { shared, open: None }
    }

    /// The connection, if one is open.
    pub fn get(&self) -> Option<&Connection> {
        self.open.as_ref().map(|open| &open.connection)
    }

    /// The connection and what is prepared on it, after [`Self::prepare`].
    pub fn prepared(&self) -> Option<(&Connection, &Statements)> {
        let open = self.open.as_ref()?;
        Some((&open.connection, open.statements.as_ref()?))
    }

    /// Whether the connection has a `-wal` or `-shm` open that is no longer the file's.
    pub fn is_stale(&self) -> bool {
        self.get().is_some_and(Connection::is_stale)
    }

    /// The connection, if the file may be written to and checkpointed: its path still leads to
    /// it, and a file that may be damaged has passed a check.
    pub fn sound(&mut self) -> Result<&Connection> {
        let file = &self.shared.file;
        self.close_if_stale();
        if self.open.is_none() {
            // Reports a missing file as replaced, not as an error of opening it.
            file.check_identity()?;
            // Opening would create a second -wal if other connections have a deleted one open.
            file.check_sidecars()?;
        }
        let connection = self.opened()?;
        connection.check_identity()?;
        file.check_sidecars()?;
        verify::verify_if_unverified(file)?;
        Ok(connection)
    }

    /// As [`Self::sound`], and fails while the schema that refused entries is unchanged. Takes no
    /// write lock, so that it can be called often.
    pub fn ready_to_write(&mut self) -> Result<()> {
        self.sound()?;
        if let Some(open) = &mut self.open
            && let Some((error, since)) = &open.refused
        {
            if since.elapsed() < REFUSED_AGAIN
                && open.reads_cookie.number(&open.connection)? == open.cookie
            {
                return Err(error.clone());
            }
            open.refused = None;
        }
        Ok(())
    }

    /// Prepares the log's statements if the schema has changed since they were prepared. Called in
    /// the write transaction that uses them, until whose end the schema cannot change.
    pub fn prepare(&mut self) -> Result<()> {
        if let Some(open) = &mut self.open {
            let cookie = open.reads_cookie.number(&open.connection)?;
            if open.statements.is_none() || open.cookie != cookie {
                open.statements = None;
                open.cookie = cookie;
                open.statements = Some(Statements::prepare(&open.connection, self.shared)?);
                // Preparing may have created the table, which changes the cookie until a rollback.
                open.cookie = open.reads_cookie.number(&open.connection)?;
            }
        }
        Ok(())
    }

    /// Notes that the schema refused entries.
    pub fn refuse(&mut self, error: &Error) {
        if let Some(open) = &mut self.open {
            open.statements = None;
            open.refused = Some((error.clone(), Instant::now()));
        }
    }

    pub fn execute(&mut self, sql: &str) -> Result<()> {
        let path = &self.shared.file.path;
        self.opened()?.sql()?.execute_batch(sql).map_err(|error| Error::from(error).at(path))
    }

    /// Closes a stale connection, and asks the other stale connections of this process to close:
    /// the file can be reopened only after all of them are closed.
    pub fn close_if_stale(&mut self) {
        if self.is_stale() {
            self.close();
            self.shared.emit(&Event::Reopen);
        }
    }

    /// Closes the connection, if one is open, which rolls back its transaction.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Closes the connection. If the file `is_in_order` and this is its last connection, SQLite
    /// checkpoints and deletes the WAL.
    pub fn close_at_end(&mut self, is_in_order: bool) {
        if let Some(open) = self.open.take() {
            if is_in_order {
                open.connection.checkpoint_on_close(true);
            }
            drop(open);
        }
    }

    fn opened(&mut self) -> Result<&Connection> {
        if self.open.is_none() {
            let file = &self.shared.file;
            // No SQLITE_OPEN_CREATE: a deleted file must not come back empty.
            let connection = self.open_in_turn()?;
            if connection.file().is_none_or(|opened| opened.id != file.id) {
                return Err(engine::file_moved(&file.path));
            }
            let patience = if connection.is_wal()? { Duration::ZERO } else { DRAIN };
            connection.sql()?.busy_timeout(patience)?;
            engine::watch_wal(&connection);
            let reads_cookie = table::cookie(&connection)?;
            self.open =
                Some(Open { statements: None, cookie: 0, reads_cookie, refused: None, connection });
        }
        match &self.open {
            Some(open) => Ok(&open.connection),
            None => Err(Error::fusion("ERR_INVALID_STATE", "database is not open")),
        }
    }

    /// Opens the file. Waits for the stale connections of this process to close, for at most the
    /// profile's busy timeout. [`Event::Reopen`] is repeated, because a connection in a transaction
    /// cannot close at the first one, and the end of its transaction emits no event.
    fn open_in_turn(&self) -> Result<Connection> {
        let file = &self.shared.file;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let profile = &self.shared.options.profile;
        let deadline = Instant::now() + profile.busy_timeout.min(engine::PATIENCE);
        let briefly = Profile { busy_timeout: REOPEN_AGAIN, ..profile.clone() };
        while file.is_being_reopened() {
            match Connection::open_hardened(&file.path, flags, &briefly) {
                Err(error) if error.code == "ERR_FUSION_WEDGED" && Instant::now() < deadline => {
                    self.shared.emit(&Event::Reopen);
                }
                opened => return opened,
            }
        }
        Connection::open_hardened(&file.path, flags, profile)
    }
}
