//! The writer's own connection: opened when it is needed, closed when it is stale or has failed.
//!
//! Used by the writer's thread alone. Only what comes from [`OwnConnection::sound`] may write or
//! checkpoint.

use std::time::{Duration, Instant};

use rusqlite::OpenFlags;

use super::doubt;
use crate::agent_log::batch::{Statement, Statements};
use crate::agent_log::event::Event;
use crate::agent_log::shared::Shared;
use crate::agent_log::table;
use crate::engine::{self, Connection, Error, Profile, Result};

/// How often connections that are to be opened anew are told so, while they are waited for.
const TELL_AGAIN: Duration = Duration::from_millis(50);

/// How often entries are tried that the schema refused, while it stays the same: what made it refuse
/// them may be content, such as a trigger of `__meta` looks at.
const REFUSED_AGAIN: Duration = Duration::from_secs(2);
/// How long a COMMIT waits for readers where the file has a rollback journal. While it waits no
/// new reader begins; without that, readers that overlap would keep it out for good.
const DRAIN: Duration = Duration::from_millis(100);

/// Fields drop in order: statements before their connection.
struct Open {
    /// Prepared for the schema that `cookie` counts.
    statements: Option<Statements>,
    cookie: i64,
    /// Reads that number.
    reads_cookie: Statement,
    /// Why entries cannot be written while the schema is that of `cookie`, and since when.
    refused: Option<(Error, Instant)>,
    connection: Connection,
}

pub(super) struct OwnConnection<'a> {
    shared: &'a Shared,
    open: Option<Open>,
}

impl<'a> OwnConnection<'a> {
    pub fn new(shared: &'a Shared) -> Self {
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

    /// Whether it belongs to a WAL that is the file's no longer.
    pub fn is_stale(&self) -> bool {
        self.get().is_some_and(Connection::is_stale)
    }

    /// The connection, if the file may be written to and checkpointed: its path still leads to
    /// it, and where there was reason to doubt it, it has been checked.
    pub fn sound(&mut self) -> Result<&Connection> {
        let file = &self.shared.file;
        self.let_go();
        if self.open.is_none() {
            // A file that is gone is not one that cannot be opened at the moment.
            file.check_identity()?;
            // Opening makes a -wal where one was deleted under others, who have it open still.
            file.check_beside()?;
        }
        let connection = self.opened()?;
        connection.check_identity()?;
        file.check_beside()?;
        doubt::settle(file)?;
        Ok(connection)
    }

    /// As [`Self::sound`], unless the schema refuses entries still: asked without the write lock, so
    /// that it can be asked often.
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

    /// Prepares the log's statements, if the schema is another one than they were prepared for. In
    /// the write transaction that they are for: from here to its end the schema stays as it is.
    pub fn prepare(&mut self) -> Result<()> {
        if let Some(open) = &mut self.open {
            let cookie = open.reads_cookie.number(&open.connection)?;
            if open.statements.is_none() || open.cookie != cookie {
                open.statements = None;
                open.cookie = cookie;
                open.statements = Some(Statements::prepare(&open.connection, self.shared)?);
                // The table may have been made, and is not there after a rollback.
                open.cookie = open.reads_cookie.number(&open.connection)?;
            }
        }
        Ok(())
    }

    /// Entries could not be written, because of the schema.
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

    /// Closes a connection that is stale: a JavaScript thread noticed the wedge first. Others of
    /// this process wait for that, and for one another.
    pub fn let_go(&mut self) {
        if self.is_stale() {
            self.close();
            self.shared.emit(&Event::Reopen);
        }
    }

    /// Closes the connection, if one is open; a transaction goes with it.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Closes it for good. The file's last connection then leaves no WAL, if it `is_in_order`.
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
            // No CREATE: a file that has vanished must not come back empty.
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

    /// Opens the file, and waits as long as the profile says for those of this process's
    /// connections that are stale. One in a transaction could not be closed when all were told: it
    /// is told again and again, because the end of a transaction tells nobody.
    fn open_in_turn(&self) -> Result<Connection> {
        let file = &self.shared.file;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let profile = &self.shared.options.profile;
        let deadline = Instant::now() + profile.busy_timeout.min(engine::PATIENCE);
        let briefly = Profile { busy_timeout: TELL_AGAIN, ..profile.clone() };
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
