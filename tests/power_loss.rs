//! Loss of power: whatever a cut leaves of an append, a checkpoint, a backup, a restore or a repair,
//! the database is sound, and what was acknowledged as synced is there.
#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use torture::disk::Syncs;
use torture::power;

#[path = "torture/mod.rs"]
mod torture;

#[test]
fn whatever_a_power_cut_leaves_is_sound_and_has_what_was_acknowledged() {
    let tallies = power::check_all(&power::all(), 600, 1, Syncs::Kept);
    for tally in &tallies {
        assert!(tally.violations.is_empty(), "{}", tally.violations.join("\n"));
        // Few of them are the same again.
        assert!(tally.events > 20 && tally.distinct * 3 > tally.states, "{tally:?}");
    }
}

/// What the check above would say of a program that syncs nothing.
#[test]
fn without_the_syncs_what_was_acknowledged_is_lost() {
    let tally = power::check(&power::control(), 60, 1, Syncs::Dropped);
    let lost = tally.violations.iter().filter(|it| it.contains("lost: ")).count();
    assert!(lost > 10, "{tally:?}");
}

/// As docs/log.md says: the journal's deletion is the commit, and FULL does not sync it.
#[test]
fn with_a_rollback_journal_full_may_lose_the_last_commit_and_nothing_else() {
    let tally = power::check(&power::rollback_journal_full(), 200, 1, Syncs::Kept);
    assert!(!tally.violations.is_empty(), "{tally:?}");
    assert!(tally.violations.iter().all(|it| it.contains("lost: ")), "{tally:?}");
}
