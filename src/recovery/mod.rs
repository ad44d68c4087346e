//! Reading a damaged file page by page, repair, backup, restore.
//!
//! | module | owns |
//! |---|---|
//! | [`salvage`] | reading what can be read of a damaged file into a new database |
//!
//! May call: `engine`, `format`, `health`. Threads: any; everything blocks the thread it runs on.

pub mod salvage;
