//! A call to the system that fails, any of them, during anything: nothing that was acknowledged is
//! lost, nothing sound is repaired, and everything works once the calls do.
#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use torture::matrix;
use torture::site::{Call, File, Strike};

#[path = "torture/mod.rs"]
mod torture;

#[test]
fn whichever_call_fails_nothing_acknowledged_is_lost_and_nothing_sound_is_repaired() {
    let tally = matrix::check(0..400, 16);
    assert!(tally.violations.is_empty(), "{}", tally.violations.join("\n"));
    for (name, (cases, struck)) in tally.cases {
        assert!(struck * 2 > cases, "{name}: {struck} of {cases} cases met their fault");
    }
}

/// SQLite falls back to reading, for as long as the process has the file open.
#[test]
fn a_shm_whose_open_fails_once_does_not_keep_the_log_from_writing() {
    for errno in [libc::EIO, libc::ENOSPC] {
        matrix::each("reopen", Call::Open, File::Shm, Strike::Error(errno)).unwrap();
    }
}

/// The restore is made: that another connection is in the way of the check afterwards is no damage.
#[test]
fn a_lock_during_a_restore_is_not_taken_for_damage() {
    for name in ["restore", "restore, rollback journal"] {
        matrix::each(name, Call::Lock, File::Database, Strike::Error(libc::EAGAIN)).unwrap();
    }
}

#[test]
fn an_error_of_a_repair_or_a_restore_names_the_database() {
    let name = "restore, rollback journal";
    matrix::each(name, Call::Stat, File::Database, Strike::Error(libc::EIO)).unwrap();
    matrix::each("repair", Call::Write, File::Side, Strike::Error(libc::EDQUOT)).unwrap();
    matrix::each("repair", Call::Read, File::Side, Strike::Error(libc::EIO)).unwrap();
}

/// What is read through a journal is read past SQLite's file system.
#[test]
fn a_read_of_a_hot_journal_that_fails_is_not_taken_for_damage() {
    matrix::each("open, hot journal", Call::Read, File::Journal, Strike::Error(libc::EIO)).unwrap();
}
