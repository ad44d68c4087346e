//! The salvager beside the `sqlite3` shell's `.recover`, on the same damaged files, whose truth is
//! known row by row. `bench/recovery.mjs` runs it and reports.
//!
//! Usage, each printing lines of JSON:
//! - `recovery cases <rows of the log> <seeds> <part of names>…`: every damage done to every kind
//!   of database and to a log of that many rows, at the places of those seeds: `4` for 1 to 4, or
//!   `10-20`. Of a log of 0 rows none is made.
//! - `recovery anything <seeds> <part of names>…`: the same of databases of any schema, one of each
//!   seed. What is lost of one is not yet held against the salvager, except of a sound one.
//! - `recovery damage <database> <case> <seed> <folder>`: the files of one such run, sound and
//!   damaged, to be looked into; prints what was done, and what each page of the sound file is. The
//!   database is a kind of those, "log <rows>" or "anything <seed>".
//! - `recovery throughput <folder> <MB>`: time and memory of both on one large file.
//! - `recovery repair <database>`: repairs it in place; prints the time that this took, and for how
//!   long no other connection could begin to write.
//! - `recovery salvage <database> <target>`: what the latter measures; prints the account.
#![allow(clippy::print_stdout, reason = "a command-line program that prints its results")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "as the tests do")]

#[cfg(unix)]
#[path = "../tests/damage/mod.rs"]
mod damage;

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    contest::main()
}

#[cfg(not(unix))]
fn main() {
    println!("the sqlite3 shell is compiled on Unix only");
}

#[cfg(unix)]
mod contest {
    use std::error::Error;
    use std::fs;
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::ops::RangeInclusive;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Barrier, Mutex};
    use std::time::{Duration, Instant};

    use fusion_sqlite::recovery::repair;

    use serde_json::json;

    use super::damage::anything::Anything;
    use super::damage::cases::{CASES, Case};
    use super::damage::contest;
    use super::damage::random::Random;
    use super::damage::schemas::{FUSION, SCHEMAS, Schema};
    use super::damage::shell;
    use super::damage::sound::{Plan, Sound};
    use super::damage::truth::{Tally, count};

    type Outcome = Result<(), Box<dyn Error>>;

    const LOG: Schema = Schema { name: "log", ..FUSION };

    const USAGE: &str = "usage: recovery cases <rows> <seeds> <part of names>… | \
                         anything <seeds> <part of names>… | \
                         damage <database> <case> <seed> <folder> | repair <database> | \
                         throughput <folder> <MB> | salvage <database> <target>";

    pub fn main() -> Outcome {
        let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match arguments.as_slice() {
            ["cases", rows, of, only @ ..] => cases(rows.parse()?, seeds(of)?, only),
            ["anything", of, only @ ..] => anything(seeds(of)?, only),
            ["damage", schema, case, seed, folder] => {
                damage(schema, case, seed.parse()?, Path::new(folder))
            }
            ["throughput", folder, size] => throughput(Path::new(folder), size.parse()?),
            ["repair", database] => repair(Path::new(database)),
            ["salvage", database, target] => {
                let salvaged = contest::salvage(Path::new(database), None, None, Path::new(target));
                let salvaged = salvaged?;
                println!("{}", serde_json::to_string(&salvaged)?);
                Ok(())
            }
            _ => Err(USAGE.into()),
        }
    }

    fn seeds(of: &str) -> Result<RangeInclusive<u64>, Box<dyn Error>> {
        let (first, last) = of.split_once('-').unwrap_or(("1", of));
        Ok(first.parse()?..=last.parse()?)
    }

    fn cases(rows: i64, seeds: RangeInclusive<u64>, only: &[&str]) -> Outcome {
        let mut kinds: Vec<(&Schema, i64)> = Vec::new();
        kinds.extend((rows > 0).then_some((&LOG, rows)));
        kinds.extend(SCHEMAS.iter().map(|schema| (schema, schema.rows)));
        for_each(kinds.len(), &|number, printing| {
            let (schema, rows) = kinds[number];
            all(schema, rows, &seeds, only, printing);
        })
    }

    fn anything(seeds: RangeInclusive<u64>, only: &[&str]) -> Outcome {
        let seeds: Vec<u64> = seeds.collect();
        for_each(seeds.len(), &|number, printing| {
            let seed = seeds[number];
            let plan = Anything::of(seed);
            all(&plan, plan.rows, &(seed..=seed), only, printing);
        })
    }

    /// Calls `work` with each of `0..count`, on as many threads as there are processors.
    fn for_each(count: usize, work: &(dyn Fn(usize, &Mutex<()>) + Sync)) -> Outcome {
        println!("{}", json!({ "shell": shell::version(), "sqlite": rusqlite::version() }));
        let next = AtomicUsize::new(0);
        let printing = Mutex::new(());
        let all = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                work(number, &printing);
            }
        };
        let threads = std::thread::available_parallelism()?.get();
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(all))));
        Ok(())
    }

    /// The damage that `only` names, or all of it, done to one database.
    fn all(
        plan: &dyn Plan,
        rows: i64,
        seeds: &RangeInclusive<u64>,
        only: &[&str],
        printing: &Mutex<()>,
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sound = Sound::make(plan, rows, folder.path()).expect("a database");
        for case in CASES {
            let wanted = |part: &&str| case.name.contains(part) || plan.name().contains(part);
            if only.is_empty() || only.iter().any(wanted) {
                one(&sound, case, seeds.clone(), folder.path(), printing);
            }
        }
    }

    fn one(
        sound: &Sound,
        case: &Case,
        seeds: RangeInclusive<u64>,
        folder: &Path,
        printing: &Mutex<()>,
    ) {
        for seed in seeds {
            let Some(damaged) = case.damage(sound, seed) else { break };
            for &snapshot in case.wanted.snapshots() {
                let contest = contest::hold(sound, &damaged, snapshot, folder);
                let misses = contest.misses(&damaged, case.wanted, snapshot);
                let done = if misses.is_empty() { Vec::new() } else { damaged.done.clone() };
                let line = json!({
                    "schema": sound.name,
                    "case": case.name,
                    "seed": seed,
                    "snapshot": snapshot,
                    "rows": count(damaged.rows),
                    "inFile": damaged.in_file.values().sum::<usize>(),
                    "theirs": tally(&contest.theirs),
                    "ours": tally(&contest.ours),
                    "cleanLost": contest.clean.lost,
                    "cleanNotTrue": contest.clean.not_true,
                    "misses": misses,
                    "done": done,
                });
                let _printing = printing.lock();
                println!("{line}");
            }
        }
    }

    fn tally(tally: &Tally) -> serde_json::Value {
        json!({
            "true": tally.true_rows,
            "false": tally.false_rows,
            "stale": tally.stale_rows,
            "lostAndFound": tally.lost_and_found,
        })
    }

    fn damage(schema: &str, case: &str, seed: u64, folder: &Path) -> Outcome {
        let case = CASES.iter().find(|it| it.name == case).ok_or("no such case")?;
        let sound = if let Some(of) = schema.strip_prefix("anything ") {
            let plan = Anything::of(of.parse()?);
            Sound::make(&plan, plan.rows, folder)?
        } else if let Some(rows) = schema.strip_prefix("log ") {
            Sound::make(&LOG, rows.parse()?, folder)?
        } else {
            let schema = SCHEMAS.iter().find(|it| it.name == schema).ok_or("no such database")?;
            Sound::make(schema, schema.rows, folder)?
        };
        let damaged = case.damage(&sound, seed).ok_or("nothing to be damaged so")?;
        fs::write(folder.join("sound.db"), &sound.file)?;
        contest::write(&damaged, folder);
        let pages = sound.layout.pages.iter().map(|page| format!("{} {:?}", page.owner, page.role));
        let done = &damaged.done;
        println!("{}", json!({ "done": done, "pages": pages.collect::<Vec<_>>() }));
        Ok(())
    }

    /// Time and peak memory of both on a log of `size` MB with twenty pages zeroed.
    fn throughput(folder: &Path, size: u64) -> Outcome {
        let path = folder.join("large.db");
        // A row of the log takes 700 bytes, indexes and all; the file's size is what counts.
        large(&LOG, &path, size << 20)?;
        // Page by page: what this process has in memory counts for its children, too.
        let mut file = fs::OpenOptions::new().write(true).open(&path)?;
        let bytes = usize::try_from(file.metadata()?.len())?;
        let mut random = Random::new(size);
        for _ in 0..20 {
            let page = 1 + random.below(bytes / 4096 - 1);
            file.seek(SeekFrom::Start(page as u64 * 4096))?;
            file.write_all(&[0; 4096])?;
        }
        drop(file);

        let (recovered, salvaged) = (folder.join("recovered.db"), folder.join("salvaged.db"));
        let own = std::env::current_exe()?;
        let mut salvage = Command::new(own);
        salvage.arg("salvage").arg(&path).arg(&salvaged).stdout(Stdio::null());
        let (mut recover, mut import) = shell::commands(&path, &recovered);

        let started = Instant::now();
        let (salvage, memory) = wait(salvage.spawn()?)?;
        if salvage != 0 {
            return Err(format!("the salvage ended with {salvage:#x}").into());
        }
        let ours = [memory];
        let ours_seconds = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let mut first = recover.spawn()?;
        let sql = first.stdout.take().ok_or("no pipe")?;
        let second = import.stdin(sql).spawn()?;
        drop(import);
        let theirs = [wait(first)?.1, wait(second)?.1];
        let theirs_seconds = started.elapsed().as_secs_f64();

        let rows = |path: &Path| -> rusqlite::Result<i64> {
            rusqlite::Connection::open(path)?.query_row(
                "SELECT count(*) FROM agentLogEntries",
                [],
                |row| row.get(0),
            )
        };
        let side = |seconds: f64, memory: &[i64], rows: i64| {
            json!({
                "seconds": seconds,
                "megabytesPerSecond": bytes as f64 / 1e6 / seconds,
                "peakMegabytes": memory.iter().sum::<i64>() as f64 / 1e6,
                "rows": rows,
            })
        };
        let (repaired, repair_memory) =
            measured(Command::new(std::env::current_exe()?).arg("repair").arg(&path))?;
        let line = json!({
            "bytes": bytes,
            "repair": repaired,
            "repairMegabytes": repair_memory as f64 / 1e6,
            "theirs": side(theirs_seconds, &theirs, rows(&recovered)?),
            "ours": side(ours_seconds, &ours, rows(&salvaged)?),
        });
        println!("{line}");
        Ok(())
    }

    /// Repairs the database, which is not in use, while another connection tries to begin to write.
    fn repair(path: &Path) -> Outcome {
        let over = AtomicBool::new(false);
        let began = Barrier::new(2);
        let (report, seconds, held) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| -> rusqlite::Result<f64> {
                let connection = rusqlite::Connection::open(path)?;
                connection.busy_timeout(Duration::ZERO)?;
                began.wait();
                let mut longest = Duration::ZERO;
                let mut since: Option<Instant> = None;
                while !over.load(Ordering::Relaxed) {
                    match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
                        Ok(()) => since = None,
                        Err(_) => {
                            let since = since.get_or_insert_with(Instant::now);
                            longest = longest.max(since.elapsed());
                        }
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(longest.as_secs_f64())
            });
            began.wait();
            let started = Instant::now();
            let report = repair::repair(
                path,
                &repair::RepairOptions::default(),
                &mut |_| (),
                &fusion_sqlite::engine::NoProgress,
            );
            let seconds = started.elapsed().as_secs_f64();
            over.store(true, Ordering::Relaxed);
            (report, seconds, writer.join())
        });
        let held = held.map_err(|_| "the writer panicked")??;
        let line = json!({
            "seconds": seconds,
            "heldSeconds": held,
            "outcome": report?.outcome,
        });
        println!("{line}");
        Ok(())
    }

    /// Fills the log until its file has `size` bytes.
    fn large(schema: &Schema, path: &Path, size: u64) -> Outcome {
        let connection = rusqlite::Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA page_size = 4096; PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF",
        )?;
        for part in schema.parts {
            connection.execute_batch(part.create)?;
        }
        let mut start = 0;
        while fs::metadata(path)?.len() < size {
            connection.execute_batch("BEGIN")?;
            for part in schema.parts {
                (part.fill)(&connection, start..start + 4000, schema.page_size)?;
            }
            connection.execute_batch("COMMIT")?;
            start += 4000;
        }
        Ok(())
    }

    /// Runs a command that prints a line of JSON; returns that and its peak memory in bytes.
    fn measured(command: &mut Command) -> Result<(serde_json::Value, i64), Box<dyn Error>> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut printed = String::new();
        child.stdout.take().ok_or("no pipe")?.read_to_string(&mut printed)?;
        let (status, memory) = wait(child)?;
        if status != 0 {
            return Err(format!("it ended with {status:#x}").into());
        }
        Ok((serde_json::from_str(&printed)?, memory))
    }

    /// Waits for a process and answers its status and its peak memory in bytes.
    fn wait(child: std::process::Child) -> Result<(i32, i64), Box<dyn Error>> {
        let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
        // SAFETY: both places may be written; the child is this process's and nobody else waits for it.
        let waited =
            unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, usage.as_mut_ptr()) };
        if waited < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        // SAFETY: all zeroes is a valid one, and the call above has filled it in.
        let usage = unsafe { usage.assume_init() };
        // Apple counts bytes, the others kilobytes.
        Ok((status, usage.ru_maxrss * if cfg!(target_vendor = "apple") { 1 } else { 1024 }))
    }
}
