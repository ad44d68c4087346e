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

#[path = "torture/mod.rs"]
mod torture;

#[test]
fn whichever_call_fails_nothing_acknowledged_is_lost_and_nothing_sound_is_repaired() {
    let tally = matrix::check(0..400, 16);
    eprintln!("{:?}", tally.cases);
    assert!(tally.violations.is_empty(), "{}", tally.violations.join("\n"));
    for (name, (cases, struck)) in tally.cases {
        assert!(struck * 2 > cases, "{name}: {struck} of {cases} cases met their fault");
    }
}
