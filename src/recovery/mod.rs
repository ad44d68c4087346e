//! Reading a damaged file page by page, repair, backup, restore.
//!
//! | module | owns |
//! |---|---|
//! | [`backup`] | copying a database while it is in use, verified |
//! | [`rotation`] | the names of a backup's generations, and how one becomes the next |
//! | [`schedule`] | when a backup that is made by itself is due |
//! | [`restore`] | putting a backup's content into a database that is in use |
//! | [`salvage`] | reading what can be read of a damaged file into a new database |
//! | [`snapshot_file`] | the schema, kept beside the database for the salvager |
//! | [`partial`] | files under work, beside their target |
//! | [`copy`] | a database as one connection sees it, into a new file |
//! | [`reader`] | a connection that reads and changes nothing |
//!
//! May call: `engine`, `format`, `health`. Threads: any; everything blocks the thread it runs on.

pub mod backup;
mod copy;
mod partial;
mod reader;
pub mod restore;
pub mod rotation;
pub mod salvage;
pub mod schedule;
pub mod snapshot_file;
