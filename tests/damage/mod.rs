//! Damaged databases whose truth is known row by row, and what a recovery makes of them.
//!
//! | module | owns |
//! |---|---|
//! | [`random`] | numbers that are the same in every run |
//! | [`anything`] | databases that nobody made by hand: of any schema |
//! | [`schemas`] | the databases: schemas and rows of every kind |
//! | [`sound`] | such a database before the damage: its bytes, its WAL, its rows, its layout |
//! | [`layout`] | which page holds what in a sound file |
//! | [`cases`] | the damage |
//! | [`truth`] | a database's rows as bytes, and the comparison of two |
//! | [`shell`] | the `sqlite3` shell, whose `.recover` is the baseline |
//! | [`clean`] | what SQLite itself reads of a damaged file and finds no fault in |
//! | [`contest`] | both recoveries of one damaged file, side by side |
//!
//! Shared by `tests/side_by_side.rs` and `benches/recovery.rs`.

#![allow(dead_code, reason = "each of the two users leaves something out")]

pub mod anything;
pub mod cases;
pub mod clean;
pub mod contest;
pub mod layout;
pub mod random;
pub mod schemas;
pub mod shell;
pub mod sound;
pub mod truth;
