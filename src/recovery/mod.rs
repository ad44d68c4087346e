//! Repair, salvage, backup and restore.
//!
//! | module | owns |
//! |---|---|
//! | [`repair`] | chooses the smallest repair that a file needs |
//! | [`rebuild`] | rebuilds indexes and full-text indexes inside the file |
//! | [`reindex`] | rebuilds indexes with damaged b-trees in a copy |
//! | [`quarantine`] | keeps copies of a damaged original |
//! | [`salvage`] | reads a damaged file page by page into a new database |
//! | [`neutral`] | declares tables without collations and functions of the application |
//! | [`original`] | has SQLite itself read a damaged file |
//! | [`scan`] | reads a damaged table row by row, as far as SQLite can |
//! | [`gate`] | compares a repair's result with what SQLite can read of the original |
//! | [`comparison`] | the result of that comparison |
//! | [`fill_from_backup`] | fills the gaps of a salvage with rows of a backup |
//! | [`write_back`] | writes a sound database's content into the damaged file |
//! | [`report`] | the report of a repair |
//! | [`backup_file`] | copies a database while it is in use, and verifies the copy |
//! | [`rotation`] | names and rotates the generations of a backup |
//! | [`backup_schedule`] | decides when an automatic backup is due |
//! | [`restore`] | writes a backup's content into a database that is in use |
//! | [`snapshot_file`] | the `-schema` sidecar file, which the salvager uses |
//! | [`verify_written`] | verifies what an operation wrote, then runs a checkpoint |
//! | [`work_dir`] | work folders in the target's directory |
//! | [`copy`] | copies a database, as one connection sees it, into a new file |
//! | [`reader`] | opens a connection that reads and changes nothing |
//! | [`tried`] | retries failed reads of a damaged original |
//!
//! May call: `engine`, `format`, `health`. Any thread; every call blocks its thread.

pub mod backup_file;
pub mod backup_schedule;
mod comparison;
mod copy;
mod fill_from_backup;
mod gate;
mod neutral;
mod original;
mod quarantine;
mod reader;
mod rebuild;
mod reindex;
pub mod repair;
mod report;
pub mod restore;
pub mod rotation;
pub mod salvage;
mod scan;
pub mod snapshot_file;
mod tried;
mod verify_written;
mod work_dir;
mod write_back;

pub use comparison::{Comparison, HeaderFrom, MissingObject, TableComparison};
pub use rebuild::Reason;
pub use report::{Filled, FromBackup, Preserved, RepairOutcome, Report, Step, StepKind, Totals};
