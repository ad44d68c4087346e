//! A failing disk and loss of power, for as many cases as are asked for; `npm run torture` runs it.
//!
//! Usage, each printing a table, what does not hold, and as its last line the totals as JSON. The exit
//! code is 1 where anything does not hold.
//! - `torture faults <seeds> [<threads>]`: a call that fails during an operation, one for each seed:
//!   `400` for 0 to 399, or `57-60`. They wait more than they work; 16 at a time by default.
//! - `torture power <states> [<seed>]`: states that a power cut can leave, about so many of all operations
//!   together, and the control, in which the syncs are dropped and violations have to be found.
#![allow(clippy::print_stdout, reason = "a command-line program that prints its results")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "as the tests do")]

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
#[path = "../tests/torture/mod.rs"]
mod torture;

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
fn main() {
    println!("calls to the system are intercepted on Linux with glibc only");
    println!("{}", serde_json::json!({ "skipped": true }));
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
fn main() -> Result<std::process::ExitCode, Box<dyn std::error::Error>> {
    run::main()
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod run {
    use std::error::Error;
    use std::ops::Range;
    use std::process::ExitCode;
    use std::time::Instant;

    use serde_json::json;

    use super::torture::disk::Syncs;
    use super::torture::{matrix, power};

    type Outcome = Result<ExitCode, Box<dyn Error>>;

    const USAGE: &str = "usage: torture faults <seeds> [<threads>] | power <states> [<seed>]";

    pub fn main() -> Outcome {
        let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match arguments.as_slice() {
            ["faults", of] => faults(seeds(of)?, 16),
            ["faults", of, threads] => faults(seeds(of)?, threads.parse()?),
            ["power", states] => power(states.parse()?, 1),
            ["power", states, seed] => power(states.parse()?, seed.parse()?),
            _ => Err(USAGE.into()),
        }
    }

    fn seeds(of: &str) -> Result<Range<u64>, Box<dyn Error>> {
        Ok(match of.split_once('-') {
            Some((first, last)) => first.parse()?..last.parse::<u64>()? + 1,
            None => 0..of.parse()?,
        })
    }

    fn faults(seeds: Range<u64>, threads: usize) -> Outcome {
        let started = Instant::now();
        let tally = matrix::check(seeds, threads);
        println!("{:<28} {:>8} {:>8}", "operation", "cases", "struck");
        for (name, (cases, struck)) in &tally.cases {
            println!("{name:<28} {cases:>8} {struck:>8}");
        }
        println!("slowest: {:.1?}, {}", tally.slowest.0, tally.slowest.1);
        let sum = |of: fn(&(usize, usize)) -> usize| tally.cases.values().map(of).sum::<usize>();
        let totals = json!({
            "cases": sum(|it| it.0),
            "struckCases": sum(|it| it.1),
            "failedCalls": tally.struck_calls,
            "violations": tally.violations.len(),
            "seconds": started.elapsed().as_secs(),
        });
        Ok(end(&tally.violations, &totals))
    }

    fn power(states: usize, seed: u64) -> Outcome {
        let started = Instant::now();
        let tallies = power::check_all(&power::all(), states, seed, Syncs::Kept);
        let control = power::check(&power::control(), 200, seed, Syncs::Dropped);
        println!(
            "{:<36} {:>7} {:>7} {:>9} {:>10}",
            "operation", "events", "states", "distinct", "violations"
        );
        let mut violations = Vec::new();
        for it in &tallies {
            let count = it.violations.len();
            println!(
                "{:<36} {:>7} {:>7} {:>9} {count:>10}",
                it.name, it.events, it.states, it.distinct
            );
            violations.extend(it.violations.iter().cloned());
        }
        if control.violations.is_empty() {
            violations.push("without syncs nothing was found to be lost".to_owned());
        }
        let sum = |of: fn(&power::Tally) -> usize| tallies.iter().map(of).sum::<usize>();
        let totals = json!({
            "states": sum(|it| it.states),
            "distinct": sum(|it| it.distinct),
            "events": sum(|it| it.events),
            "violations": violations.len(),
            "controlStates": control.states,
            "controlViolations": control.violations.len(),
            "seconds": started.elapsed().as_secs(),
        });
        Ok(end(&violations, &totals))
    }

    fn end(violations: &[String], totals: &serde_json::Value) -> ExitCode {
        for violation in violations {
            println!("{violation}");
        }
        println!("{totals}");
        if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
