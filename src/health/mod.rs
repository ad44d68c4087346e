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
//! | [`page_map`](mod@page_map) | what each page of a file is and belongs to |
//! | [`inspect`](mod@inspect) | one snapshot of a database, looked through by SQLite |
//! | [`alone`] | one b-tree, read without any other |
//! | [`lines`] | what the lines of SQLite's checks are about |
//! | [`schema`] | which b-tree belongs to what |
//! | [`full_text`] | full-text indexes against the text that they are of |
//! | [`foreign_keys`] | rows that refer to none |
//! | [`watch`] | a task that follows and ends a connection's statements |
//! | [`file_check`] | a file: its WAL, its size, whether it is one |
//! | [`foreign_wal`] | what proves that a WAL is another file's |
//! | [`shared`] | one check of a file at a time, however many ask |
//! | [`settled`] | files that are unchanged since a check found them sound |
//! | [`startup`] | the look at a file before it is opened |
//! | [`last`](mod@last) | what is known of the files that are open |
//! | [`traces`] | whether what is no database was one |
//! | [`stale_wal`] | putting aside a WAL that is not the file's own |
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

/// Whether writing to a file of this health could make it worse. A damaged full-text index is
/// rebuilt while the file is in use; rows that refer to none harm nobody.
pub fn is_unsafe_to_write(health: &Health) -> bool {
    health
        .findings
        .iter()
        .any(|finding| finding.is_damage() && !matches!(finding, Finding::FtsDamage { .. }))
}
