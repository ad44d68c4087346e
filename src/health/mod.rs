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
//! | [`inspect`](mod@inspect) | one snapshot of a database, looked through by SQLite |
//! | [`lines`] | what the lines of SQLite's checks are about |
//! | [`schema`] | which b-tree belongs to what |
//! | [`full_text`] | full-text indexes against the text that they are of |
//! | [`foreign_keys`] | rows that refer to none |
//! | [`watch`] | a task that follows and ends a connection's statements |
//! | [`file_check`] | a file: its WAL, its size, whether it is one |
//! | [`shared`] | one check of a file at a time, however many ask |
//! | [`stale_wal`] | putting aside a WAL that is not the file's own |
//!
//! May call: `engine`, `format`. Threads: any; a check blocks the thread it runs on.

mod file_check;
pub mod finding;
mod foreign_keys;
mod full_text;
pub mod holders;
pub mod info;
mod inspect;
mod lines;
pub mod page_map;
mod schema;
mod shared;
mod stale_wal;
mod watch;

pub use file_check::deleted_wal;
pub use finding::{Finding, Health, Kind};
pub use info::{FileInfo, file_info};
pub use inspect::inspect;
pub use page_map::{PageMap, page_map};
pub use shared::{check, under_way};
pub use stale_wal::put_wal_aside;
