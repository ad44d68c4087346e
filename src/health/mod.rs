//! Checks off the JavaScript thread, and what they mean.
//!
//! A check reads a database through a connection of its own, which never writes and never
//! checkpoints, and sorts what SQLite says of it into [`Finding`]s: what is damaged, and whether
//! it is damage at all. Contention is not.
//!
//! | module | owns |
//! |---|---|
//! | [`finding`] | what can be wrong with a database, as data |
//! | [`holders`] | who has a database open, and which locks they hold |
//! | [`info`] | what can be said of a file without changing it |
//! | [`page_map`] | what each page of a file is and belongs to |
//!
//! May call: `engine`, `format`. Threads: any; a check blocks the thread it runs on.

pub mod finding;
pub mod holders;
pub mod info;
pub mod page_map;

use std::path::Path;

pub use finding::{Finding, Health, Kind};
pub use info::{FileInfo, file_info};
pub use page_map::{PageMap, page_map};

use crate::engine::{Connection, Error, Result, Task};

/// Checks what `connection` sees: its snapshot, its WAL included. Inside a transaction of the
/// connection it sees that transaction's changes.
///
/// # Errors
/// Where the check could not be carried out: `task`'s, contention. Damage is a finding.
pub fn inspect(connection: &Connection, kind: Kind, task: &dyn Task) -> Result<Health> {
    let _ = (connection, kind, task);
    Err(Error::fusion("ERR_FUSION_INTERNAL", "not yet"))
}

/// Checks the database at `path` on a read-only connection of its own, and tells a WAL that is
/// not the file's own, a file that is none, and contention, apart. Callers that ask for the same
/// file meanwhile share one check.
///
/// # Errors
/// `task`'s.
pub fn check(path: &Path, kind: Kind, task: &dyn Task) -> Result<Health> {
    let _ = (path, kind, task);
    Err(Error::fusion("ERR_FUSION_INTERNAL", "not yet"))
}
