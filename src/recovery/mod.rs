//! Reading a damaged file page by page, repair, backup, restore.
//!
//! | module | owns |
//! |---|---|
//! | [`repair`] | which repair a file needs, the least first, and its account |
//! | [`rebuild`] | indexes and full-text indexes, inside the file |
//! | [`salvage`] | reading what can be read of a damaged file into a new database |
//! | [`merge`] | rows of a backup where the salvage has gaps |
//! | [`preserve`] | copies of the damaged original |
//! | [`write_back`] | a sound database's content into the damaged file |
//! | [`scratch`] | databases in the making |
//! | [`report`] | the account of a repair |
//!
//! May call: `engine`, `format`, `health`. Threads: any; everything blocks the thread it runs on.

mod preserve;
mod report;
pub mod salvage;
mod scratch;
mod write_back;

pub use report::{FromBackup, Outcome, Preserved, Report, Step, StepKind};
