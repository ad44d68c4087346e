//! The salvager: what can be read of a damaged database file, into a new database.
//!
//! | module | owns |
//! |---|---|
//! | [`snapshot`] | a saved copy of a file's schema and root pages, as data |
//! | [`target`] | the new database that rows are put into |
//! | [`report`] | what was saved and what was not |
//!
//! It never invents a row: values of a salvaged row are exactly what the file held.
//! Thread: whichever calls; the source is used by that thread alone.

pub mod report;
pub mod snapshot;
pub mod target;

use std::path::Path;

pub use report::{Salvage, SchemaSource, SuspectRow, TableSalvage};
pub use snapshot::{SchemaEntry, Snapshot};

use crate::engine::{Error, Result, Storage, Task};

/// A damaged database: its file and, where there is one that belongs to it, its WAL. Nobody
/// writes to either meanwhile.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The database file.
    pub database: &'a dyn Storage,
    /// Its WAL.
    pub wal: Option<&'a dyn Storage>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("wal", &self.wal.is_some()).finish_non_exhaustive()
    }
}

/// What helps a salvage.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Schema and root pages as they were when the file was sound, for what the file itself no
    /// longer tells.
    pub snapshot: Option<Snapshot>,
}

/// Reads what can be read of `source` into a new database at `target`, which must not exist.
/// On an error what was written of it is removed.
///
/// # Errors
/// `task`'s; those of writing the target (`SQLITE_FULL`, `SQLITE_CANTOPEN`);
/// `ERR_FUSION_NOTHING_TO_SALVAGE` where the source has no page that belongs to a database.
pub fn salvage(
    source: Source<'_>,
    options: &Options,
    target: &Path,
    task: &dyn Task,
) -> Result<Salvage> {
    let _ = (source, options, target, task);
    Err(Error::fusion("ERR_FUSION_INTERNAL", "not yet"))
}
