//! Checks of database files, off the JavaScript thread.
//!
//! A check reads a database through a connection of its own, which never writes and never
//! checkpoints, and turns SQLite's lines and errors into [`Finding`]s. Not every finding is damage:
//! contention is not.
//!
//! | module | owns |
//! |---|---|
//! | [`finding`] | findings, as data |
//! | [`holders`] | the processes that have a database open, and their locks |
//! | [`info`] | facts about a file, found without changing it |
//! | [`page_map`](mod@page_map) | the role and the b-tree of each page of a file |
//! | [`inspect`](mod@inspect) | SQLite's checks of one snapshot of a database |
//! | [`alone`] | reading one b-tree without any other |
//! | [`lines`] | the parser of SQLite's integrity check lines |
//! | [`schema`] | the tables and indexes with their root pages |
//! | [`full_text`] | full-text indexes compared with their content |
//! | [`foreign_keys`] | violated foreign keys |
//! | [`watch`] | the progress handler that reports and cancels a check |
//! | [`file_check`] | the check of a file with its WAL and journal |
//! | [`foreign_wal`] | the proof that a WAL is another file's |
//! | [`shared`] | one check of a file at a time, for any number of callers |
//! | [`settled`] | files that are unchanged since a check found them sound |
//! | [`startup`] | the check before a file is opened |
//! | [`last`](mod@last) | the newest health of each open file |
//! | [`traces`] | traces of a database in a file that SQLite does not accept |
//! | [`stale_wal`] | putting aside another file's WAL |
//!
//! May call: `engine`, `format`. Threads: any; a check blocks the thread it runs on.

mod alone;
mod file_check;
pub mod finding;
mod foreign_keys;
mod foreign_wal;
mod full_text;
pub mod holders;
pub mod info;
mod inspect;
mod last;
mod lines;
pub mod page_map;
mod schema;
mod settled;
mod shared;
mod stale_wal;
mod startup;
mod traces;
mod watch;

pub use file_check::deleted_wal;
pub use finding::{Finding, Health, Kind};
pub use full_text::{Content, FullText, Rows};
pub use info::{FileInfo, file_info};
pub use inspect::inspect;
pub use last::{last, remember};
pub use page_map::{PageMap, page_map};
pub use settled::{Note, note};
pub use shared::{check, check_within, under_way, wait_until_none};
pub use stale_wal::put_wal_aside;
pub use startup::{LARGE, Look, SMALL, Startup, before_open, opened};
pub use traces::are_there as was_database;

/// Whether writing to a file of this health could cause more damage. A damaged full-text index does
/// not: it is rebuilt while the file is in use. Neither do findings that are not damage.
pub fn is_unsafe_to_write(health: &Health) -> bool {
    health
        .findings
        .iter()
        .any(|finding| finding.is_damage() && !matches!(finding, Finding::FtsDamage { .. }))
}
