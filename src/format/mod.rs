//! SQLite's file format (<https://sqlite.org/fileformat2.html>): pure functions on bytes.
//!
//! Nothing in here does I/O, calls SQLite or panics, whatever the bytes are: a damaged file is
//! the usual input. Any thread.
//!
//! | module | owns |
//! |---|---|
//! | [`value`] | a column's value |
//!
//! Numbers in the file are big-endian. Pages are numbered from 1.

pub mod value;

pub use value::Value;
