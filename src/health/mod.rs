//! Checks of database files, off the JavaScript thread.
//!
//! A check reads a database through its own connection, which never writes and never checkpoints.
//! It classifies SQLite's reports as [`Finding`]s: which object is affected, and whether the
//! finding is damage. Contention is not damage.
//!
//! | module | owns |
//! |---|---|
//! | [`finding`] | the findings of a check, as data |
//! | [`open_handles`] | the processes that have a database open, and their locks |
//! | [`info`] | a description of a file, read without changing it |
//! | [`page_map`](mod@page_map) | the type and the owner of each page of a file |
//! | [`inspect`](mod@inspect) | SQLite's checks of one snapshot of a database |
//! | [`alone`] | one b-tree, read without any other |
//! | [`integrity_check_output`] | the parser of the output of SQLite's checks |
//! | [`schema`] | the table or index of each b-tree |
//! | [`full_text`] | full-text indexes compared with their content |
//! | [`foreign_keys`] | rows whose parent row is missing |
//! | [`progress_handler`] | progress and cancellation of a connection's statements |
//! | [`file_check`] | a whole file: its WAL, its size, whether it is a database |
//! | [`foreign_wal`] | the proof that a WAL belongs to another file |
//! | [`check_coalescing`] | one check of a file at a time, shared by all callers |
//! | [`settled`] | files that are unchanged since a check found them sound |
//! | [`startup_check`] | the check of a file before it is opened |
//! | [`last`](mod@health_cache) | the latest health of each open file |
//! | [`traces`] | whether a file that is not a database once was one |
//! | [`quarantine_wal`] | renaming a WAL that is not the file's own |
//!
//! May call: `engine`, `format`. Threads: any; a check blocks the thread it runs on.

mod alone;
mod check_coalescing;
mod file_check;
pub mod finding;
mod foreign_keys;
mod foreign_wal;
mod full_text;
mod health_cache;
pub mod info;
mod inspect;
mod integrity_check_output;
pub mod open_handles;
pub mod page_map;
mod progress_handler;
mod quarantine_wal;
mod schema;
mod settled;
mod startup_check;
mod traces;

pub use check_coalescing::{check, check_within, under_way, wait_until_none};
pub use file_check::deleted_wal;
pub use finding::{CheckKind, Finding, Health};
pub use full_text::{Content, FullText, Rows};
pub use health_cache::{last, remember};
pub use info::{FileInfo, file_info};
pub use inspect::inspect;
pub use page_map::{PageMap, page_map};
pub use quarantine_wal::put_wal_aside;
pub use settled::{Note, note};
pub use startup_check::{LARGE, SMALL, Startup, StartupResult, before_open, opened};
pub use traces::are_there as was_database;

/// Whether a write to a file of this health could increase the damage. Not if the only damage is in
/// full-text indexes, which are rebuilt while the file is in use. Findings that are not damage,
/// such as foreign key violations, do not count.
pub fn is_unsafe_to_write(health: &Health) -> bool {
    health
        .findings
        .iter()
        .any(|finding| finding.is_damage() && !matches!(finding, Finding::FtsDamage { .. }))
}
