//! Reading a damaged file page by page, repair, backup, restore.
//!
//! | module | owns |
//! |---|---|
//! | [`repair`] | which repair a file needs, the least first |
//! | [`rebuild`] | indexes and full-text indexes, made again inside the file |
//! | [`reindex`] | indexes with damaged b-trees, made again in a copy |
//! | [`preserve`] | copies of a damaged original |
//! | [`salvage`] | reading what can be read of a damaged file into a new database |
//! | [`neutral`] | tables as their records are, without what only the application knows |
//! | [`original`] | a damaged file as SQLite itself reads it |
//! | [`scan`] | a damaged table, row by row, as far as SQLite reads it |
//! | [`gate`] | a repair's result against what SQLite itself can read of the original |
//! | [`comparison`] | what that came to |
//! | [`merge`] | rows of a backup where a salvage has gaps |
//! | [`write_back`] | a sound database's content into the damaged file |
//! | [`report`] | the account of a repair |
//! | [`backup`] | copying a database while it is in use, verified |
//! | [`rotation`] | the names of a backup's generations, and how one becomes the next |
//! | [`schedule`] | when a backup that is made by itself is due |
//! | [`restore`] | putting a backup's content into a database that is in use |
//! | [`snapshot_file`] | the schema, kept beside the database for the salvager |
//! | [`aftermath`] | the look at what an operation wrote, and the checkpoint after it |
//! | [`partial`] | files under work, beside their target |
//! | [`copy`] | a database as one connection sees it, into a new file |
//! | [`reader`] | a connection that reads and changes nothing |
//!
//! May call: `engine`, `format`, `health`. Threads: any; everything blocks the thread it runs on.

mod aftermath;
pub mod backup;
mod comparison;
mod copy;
mod gate;
mod merge;
mod neutral;
mod original;
mod partial;
mod preserve;
mod reader;
mod rebuild;
mod reindex;
pub mod repair;
mod report;
pub mod restore;
pub mod rotation;
pub mod salvage;
mod scan;
pub mod schedule;
pub mod snapshot_file;
mod tried;
mod write_back;

pub use comparison::{Comparison, HeaderFrom, MissingObject, TableComparison};
pub use rebuild::Reason;
pub use report::{Filled, FromBackup, Outcome, Preserved, Report, Step, StepKind, Totals};
