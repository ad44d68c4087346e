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
    let t=std::time::Instant::now(); let all=power::all(); eprintln!("{:?}",t.elapsed());
    let tallies = power::check_all(&all, 600, 1, Syncs::Kept);
    for t in &tallies { eprintln!("{} {} {} {} {:?}", t.name, t.events,t.states,t.distinct,t.violations.len()); for v in t.violations.iter().take(4) {eprintln!("   {v}");}}
    eprintln!("{:?}",t.elapsed());
    for tally in &tallies {
        assert!(tally.violations.is_empty(), "{}", tally.violations.join("\n"));
        // The states are states, and not the same one again and again.
        assert!(tally.events > 20 && tally.distinct * 2 > tally.states, "{tally:?}");
    }
}

/// What the check above would say of a program that syncs nothing.
#[test]
fn without_the_syncs_what_was_acknowledged_is_lost() {
    let tally = power::check(&power::control(), 60, 1, Syncs::Dropped);
    let lost = tally.violations.iter().filter(|it| it.contains("lost: ")).count();
    assert!(lost > 10, "{tally:?}");
}
