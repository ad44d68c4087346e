//! Loss of power: operations that are recorded, and what must hold of each state that a cut at any
//! moment of them can leave.
//!
//! | acknowledged | holds from there on |
//! |---|---|
//! | a commit or a receipt, `synchronous` FULL in WAL mode, EXTRA with a rollback journal | it is there |
//! | the same with NORMAL | it is there once a checkpoint has put it into the file |
//! | a backup | a generation has it, and so does the one before until the next is there |
//! | a restore, a repair | the content is the new one, and a copy of the old one is kept |
//!
//! Of every state, whatever is acknowledged: integrity, whole transactions, whole appends, in order;
//! for plain SQLite, and for the package, which finds nothing to repair and puts nothing aside.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fusion_sqlite::checkpoint::Mode;
use fusion_sqlite::engine::{self, Connection, JournalMode, NoProgress, Profile, Synchronous};
use fusion_sqlite::health;
use fusion_sqlite::recovery::{self, backup_file, repair, restore, rotation, snapshot_file};
use rusqlite::OpenFlags;
use tempfile::TempDir;

use super::disk::{Disk, STYLES, State, Syncs};
use super::random::Random;
use super::rows::{self, Open, Rows, WAIT};
use super::site::Watch;
use super::tape::{Event, Mark, Tape, last};

/// What must hold of a state, in a folder of its own.
type Check = Box<dyn Fn(&Path, &[Mark]) -> Result<(), String> + Sync>;

/// An operation that was recorded.
pub struct Recorded {
    pub name: &'static str,
    pub tape: Tape,
    check: Check,
    /// How many states it is worth, as a share of all.
    share: usize,
}

/// What came of the states of an operation.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub name: &'static str,
    /// Events of the recording.
    pub events: usize,
    pub states: usize,
    /// Those that differ from each other, or in what was acknowledged before them.
    pub distinct: usize,
    /// What does not hold, with what leads there.
    pub violations: Vec<String>,
}

const FULL: Synchronous = Synchronous::Full;

/// Every operation, recorded.
pub fn all() -> Vec<Recorded> {
    vec![
        appends("append, FULL", FULL, JournalMode::Wal),
        appends("append, NORMAL", Synchronous::Normal, JournalMode::Wal),
        appends("append, rollback journal, EXTRA", Synchronous::Extra, JournalMode::Keep),
        first_open(),
        backups(),
        restored("restore", "WAL"),
        restored("restore, rollback journal", "DELETE"),
        restored_to_nothing(),
        repaired("repair, salvage", "WAL", Damage::Leaf),
        repaired("repair, index", "WAL", Damage::Index),
        repaired("repair, salvage, rollback journal", "DELETE", Damage::Leaf),
        repaired("repair, index, rollback journal", "DELETE", Damage::Index),
    ]
}

/// The appends alone: what the control is made with.
pub fn control() -> Recorded {
    appends("append, FULL", FULL, JournalMode::Wal)
}

/// The same with a rollback journal, and `synchronous` FULL.
pub fn rollback_journal_full() -> Recorded {
    appends("append, rollback journal, FULL", FULL, JournalMode::Keep)
}

fn folder() -> TempDir {
    engine::init().unwrap();
    TempDir::new_in(place()).unwrap()
}

/// Transactions and appends in turn, with checkpoints of every mode, to the end of the log.
fn appends(name: &'static str, synchronous: Synchronous, journal_mode: JournalMode) -> Recorded {
    let folder = folder();
    let path = rows::path(folder.path());
    let is_wal = journal_mode == JournalMode::Wal;
    let before = Rows { transactions: 3, appends: 2, version: 1 };
    rows::make(&path, if is_wal { "WAL" } else { "DELETE" }, before);
    let site = Watch::over(folder.path(), rows::NAME);
    site.record();
    let open = Open::new(&path, rows::profile(synchronous, journal_mode)).unwrap();
    let is_durable = synchronous != Synchronous::Normal;
    let mut now = before;
    let modes = [Mode::Passive, Mode::Full, Mode::Restart, Mode::Truncate];
    for round in 0..12 {
        let mark = |what, number| {
            if is_durable {
                site.mark(what, number);
            }
        };
        now.transactions += 1;
        open.transaction(now.transactions).unwrap();
        mark("transaction", now.transactions);
        now.appends += 1;
        assert_eq!(open.append(now.appends).recv_timeout(WAIT).unwrap().unwrap().committed, 20);
        mark("append", now.appends);
        if is_wal && round % 2 == 1 {
            let (sender, answer) = std::sync::mpsc::channel();
            let mode = modes[round / 2 % modes.len()];
            open.log.checkpoint(mode, Box::new(move |outcome| drop(sender.send(outcome))));
            let outcome = answer.recv_timeout(WAIT).unwrap().unwrap();
            if !outcome.busy {
                site.mark("transaction", now.transactions);
                site.mark("append", now.appends);
            }
        }
    }
    open.close().unwrap();
    site.mark("transaction", now.transactions);
    site.mark("append", now.appends);
    let tape = site.recorded();
    let check: Check = Box::new(move |folder, marks| {
        let found = both(folder)?;
        let least = (
            last(marks, "transaction").max(before.transactions),
            last(marks, "append").max(before.appends),
        );
        if found.transactions < least.0 || found.appends < least.1 {
            return Err(format!(
                "lost: {} transactions and {} appends were acknowledged, and there are {found:?}",
                least.0, least.1
            ));
        }
        Ok(())
    });
    Recorded { name, tape, check, share: 3 }
}

/// A database with a rollback journal is put into WAL mode, and one is made.
fn first_open() -> Recorded {
    let folder = folder();
    let path = rows::path(folder.path());
    let before = Rows { transactions: 6, appends: 2, version: 1 };
    rows::make(&path, "DELETE", before);
    let site = Watch::over(folder.path(), rows::NAME);
    site.record();
    let open = Open::new(&path, rows::profile(FULL, JournalMode::Wal)).unwrap();
    open.transaction(7).unwrap();
    site.mark("transaction", 7);
    let new = rows::path(folder.path()).with_file_name("new.db");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let profile = rows::profile(FULL, JournalMode::Wal);
    let made = Connection::open_hardened(&new, flags, &profile).unwrap();
    let run = |sql: &str| made.sql().unwrap().execute_batch(sql).unwrap();
    for number in 0..3 {
        run(&format!(
            "BEGIN; CREATE TABLE t{number} (a); INSERT INTO t{number} VALUES (1); COMMIT"
        ));
        site.mark("table", number + 1);
    }
    drop(made);
    open.close().unwrap();
    let tape = site.recorded();
    let check: Check = Box::new(move |folder, marks| {
        let found = both(folder)?;
        if found.transactions < last(marks, "transaction").max(6) {
            return Err(format!("lost: {found:?}"));
        }
        let new = rows::path(folder).with_file_name("new.db");
        let tables = last(marks, "table");
        if !new.exists() && tables == 0 {
            return Ok(());
        }
        let sql = rusqlite::Connection::open_with_flags(&new, OpenFlags::SQLITE_OPEN_READ_WRITE);
        let count = |query: &str| {
            let sql = sql.as_ref().map_err(ToString::to_string)?;
            rows::number(sql, query).map_err(|error| format!("new.db: {error}"))
        };
        let found = count("SELECT count(*) FROM sqlite_schema")?;
        for number in 0..found {
            if count(&format!("SELECT count(*) FROM t{number}"))? != 1 {
                return Err(format!("new.db: half of table {number}"));
            }
        }
        if found < tables {
            return Err(format!("new.db: lost: {tables} tables, and there are {found}"));
        }
        Ok(())
    });
    Recorded { name: "first open", tape, check, share: 1 }
}

fn backups() -> Recorded {
    let folder = folder();
    let path = rows::path(folder.path());
    let before = Rows { transactions: 4, appends: 3, version: 1 };
    rows::make(&path, "WAL", before);
    let site = Watch::over(folder.path(), rows::NAME);
    site.record();
    let open = Open::new(&path, rows::profile(FULL, JournalMode::Wal)).unwrap();
    let options = backup_file::BackupOptions { rate: 5, ..backup_file::BackupOptions::default() };
    for number in 5..9 {
        open.transaction(number).unwrap();
        site.mark("transaction", number);
        let target = rotation::default_path(&path);
        let made = backup_file::backup(&path, &target, &options, &NoProgress).unwrap();
        assert!(matches!(made, backup_file::BackupOutcome::Made(_)), "{made:?}");
        site.mark("backup", number);
    }
    open.close().unwrap();
    let tape = site.recorded();
    let check: Check = Box::new(move |folder, marks| {
        let found = both(folder)?;
        if found.transactions < last(marks, "transaction").max(4) {
            return Err(format!("lost: {found:?}"));
        }
        let mut generations = Vec::new();
        for path in rotation::newest_backups(&rows::path(folder)) {
            let rows = rows::at(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            generations.push(rows.transactions);
        }
        let acknowledged = last(marks, "backup");
        let is_there = |number: u64| generations.contains(&number);
        // The one before stays until the next is there.
        let lost = (acknowledged >= 5 && !is_there(acknowledged))
            || (acknowledged >= 6 && !is_there(acknowledged - 1) && !is_there(acknowledged + 1));
        if lost {
            return Err(format!("backup {acknowledged} was made, and there are {generations:?}"));
        }
        Ok(())
    });
    Recorded { name: "backup", tape, check, share: 2 }
}

const OLD: Rows = Rows { transactions: 9, appends: 3, version: 1 };
const NEW: Rows = Rows { transactions: 5, appends: 4, version: 2 };

/// Restores `from` to `path`, both of them in `folder`, and returns the recorded calls.
fn recorded_restore(folder: &Path, path: &Path, from: &Path) -> Tape {
    let site = Watch::over(folder, rows::NAME);
    site.record();
    let outcome =
        restore::restore(path, from, &restore::RestoreOptions::default(), &NoProgress).unwrap();
    assert!(matches!(outcome, restore::RestoreOutcome::Restored(_)), "{outcome:?}");
    site.mark("restored", 1);
    site.recorded()
}

fn restored(name: &'static str, journal: &'static str) -> Recorded {
    let folder = folder();
    let path = rows::path(folder.path());
    let from = path.with_file_name("from.db");
    rows::make(&path, journal, OLD);
    rows::make(&from, "DELETE", NEW);
    let tape = recorded_restore(folder.path(), &path, &from);
    let check: Check = Box::new(move |folder, marks| {
        let found = both(folder)?;
        if found != NEW && (found != OLD || last(marks, "restored") > 0) {
            return Err(format!("neither the old content nor the restored one: {found:?}"));
        }
        if found == NEW {
            is_kept(folder, engine::KeptKind::BeforeRestore, |path| {
                rows::at(path).is_ok_and(|rows| rows == OLD)
            })?;
        }
        Ok(())
    });
    Recorded { name, tape, check, share: 2 }
}

fn restored_to_nothing() -> Recorded {
    let folder = folder();
    let path = rows::path(folder.path());
    let from = path.with_file_name("from.db");
    rows::make(&from, "DELETE", NEW);
    let tape = recorded_restore(folder.path(), &path, &from);
    let check: Check = Box::new(move |folder, marks| {
        if !rows::path(folder).exists() {
            let is_lost = last(marks, "restored") > 0;
            return if is_lost { Err("the database is gone".to_owned()) } else { Ok(()) };
        }
        let found = both(folder)?;
        if found == NEW { Ok(()) } else { Err(format!("{found:?}")) }
    });
    Recorded { name: "restore, no database", tape, check, share: 1 }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A page of a table is overwritten.
    Leaf,
    /// An entry of an index is of a row that is not there.
    Index,
}

/// Damages the closed database at `path`.
pub fn damage(path: &Path, damage: Damage) {
    let page: u64 = {
        let sql = rusqlite::Connection::open(path).unwrap();
        let name = match damage {
            Damage::Leaf => "parts",
            Damage::Index => "byTask",
        };
        let leaves = "SELECT pageno FROM dbstat WHERE name = ?1 ORDER BY pagetype = 'leaf' DESC, \
                      pageno LIMIT 1";
        let page: i64 = sql.query_row(leaves, [name], |row| row.get(0)).unwrap();
        page.try_into().unwrap()
    };
    let mut bytes = fs::read(path).unwrap();
    let at = usize::try_from((page - 1) * 4096).unwrap();
    match damage {
        Damage::Leaf => bytes[at..at + 4096].fill(0x5a),
        // The rowid of the first entry, at the end of its record.
        Damage::Index => bytes[at + 4095] ^= 0x20,
    }
    fs::write(path, bytes).unwrap();
}

/// The rows that count when some are lost.
pub fn left(path: &Path) -> Result<(u64, u64), String> {
    let sql = rusqlite::Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(|error| error.to_string())?;
    let number = |query: &str| rows::number(&sql, query).map_err(|error| error.to_string());
    Ok((number("SELECT count(*) FROM parts")?, number("SELECT count(*) FROM agentLogEntries")?))
}

fn repaired(name: &'static str, journal: &str, how: Damage) -> Recorded {
    let folder = folder();
    let path = rows::path(folder.path());
    rows::make(&path, journal, OLD);
    damage(&path, how);
    let original = fs::read(&path).unwrap();
    let site = Watch::over(folder.path(), rows::NAME);
    site.record();
    let run = |path: &Path| {
        repair::repair(path, &repair::RepairOptions::default(), &mut |_| (), &NoProgress)
    };
    let report = run(&path).unwrap();
    let expected = if how == Damage::Leaf {
        recovery::RepairOutcome::Salvaged
    } else {
        recovery::RepairOutcome::Reindexed
    };
    assert_eq!(report.outcome, expected);
    site.mark("repaired", 1);
    let tape = site.recorded();
    let rows = left(&path).unwrap();
    let check: Check = Box::new(move |folder, marks| {
        let path = rows::path(folder);
        let report = run(&path).map_err(|error| format!("the next repair: {error}"))?;
        if report.outcome == recovery::RepairOutcome::Healthy {
            if how == Damage::Leaf {
                is_kept(folder, engine::KeptKind::Damaged, |path| {
                    fs::read(path).is_ok_and(|bytes| bytes == original)
                })?;
            }
        } else if last(marks, "repaired") > 0 {
            return Err(format!("it was repaired, and is damaged again: {}", report.text));
        }
        let found = left(&path)?;
        if found != rows {
            return Err(format!("a repair leaves {rows:?}, and there are {found:?}"));
        }
        let sql = rusqlite::Connection::open(&path).map_err(|error| error.to_string())?;
        let check: String = sql
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .map_err(|error| error.to_string())?;
        if check == "ok" { Ok(()) } else { Err(check) }
    });
    Recorded { name, tape, check, share: 1 }
}

fn is_kept(
    folder: &Path,
    kind: engine::KeptKind,
    is_it: impl Fn(&Path) -> bool,
) -> Result<(), String> {
    let kept = engine::kept(&rows::path(folder));
    if kept.iter().any(|copy| copy.kind == kind && is_it(&copy.path)) {
        return Ok(());
    }
    Err(format!("the content was replaced, and no copy of the old one is kept: {kept:?}"))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// What the package and what plain SQLite find, each in a copy of its own.
fn both(folder: &Path) -> Result<Rows, String> {
    let copy = TempDir::new_in(folder.parent().unwrap()).unwrap();
    for name in names(folder) {
        if folder.join(&name).is_file() {
            fs::copy(folder.join(&name), copy.path().join(&name)).unwrap();
        }
    }
    let plain = rows::at(&rows::path(copy.path())).map_err(|error| format!("SQLite: {error}"))?;
    let ours = package(&rows::path(folder)).map_err(|error| format!("the package: {error}"))?;
    if plain != ours {
        return Err(format!("SQLite finds {plain:?}, and the package {ours:?}"));
    }
    Ok(ours)
}

/// What the package finds, which must be nothing to be repaired.
fn package(path: &Path) -> Result<Rows, String> {
    let folder = path.parent().unwrap();
    let before = engine::kept(path).len();
    let look = health::before_open(path, health::Startup::Auto, snapshot_file::note, &NoProgress)
        .map_err(|error| format!("the look: {error}"))?;
    if let Some(health) = look.health.filter(|health| !health.ok) {
        return Err(format!("the look: {}", health.summary()));
    }
    let profile = Profile {
        busy_timeout: Duration::ZERO,
        journal_mode: JournalMode::Keep,
        ..Profile::default()
    };
    let connection = Connection::open_hardened(path, OpenFlags::default(), &profile)
        .map_err(|error| format!("the open: {error}"))?;
    health::opened(connection.file().unwrap());
    let rows = rows::of(connection.sql().unwrap())?;
    drop(connection);
    // A schema that is kept is whole, or is none.
    drop(snapshot_file::load(path));
    if engine::kept(path).len() != before {
        return Err(format!("something was put aside: {:?}", names(folder)));
    }
    Ok(rows)
}

/// Where files are made: in memory, where there is such a folder. What is recorded is the same.
pub fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let is_usable = TempDir::new_in(memory).is_ok();
    if is_usable { memory.to_path_buf() } else { std::env::temp_dir() }
}

/// Checks `count` states of a recording, the same for the same seed.
pub fn check(recorded: &Recorded, count: usize, seed: u64, syncs: Syncs) -> Tally {
    let end = recorded.tape.events.len();
    let (mut points, mut marked) = (Vec::new(), Vec::new());
    let mut disk = Disk::new(&recorded.tape, syncs);
    while disk.step() {
        if disk.is_open() || disk.at() == end {
            points.push(disk.at());
        }
        if matches!(recorded.tape.events[disk.at() - 1], Event::Mark(_)) {
            marked.push(disk.at());
        }
    }
    // Nothing of what was not synced when something was acknowledged; what the end leaves in every
    // style; and each moment in turn, each time in another style, or a part of the moments.
    let mut random = Random::named(recorded.name, seed);
    let mut wanted: Vec<(usize, usize)> = (0..STYLES.len()).map(|style| (end, style)).collect();
    wanted.extend(random.sample(&marked, count / 4).iter().map(|at| (*at, 0)));
    for round in 0.. {
        let left = count.saturating_sub(wanted.len());
        let chosen = random.sample(&points, left.min(points.len()));
        wanted.extend(chosen.iter().enumerate().map(|(place, at)| (*at, round + place)));
        if wanted.len() >= count {
            break;
        }
    }
    wanted.sort_unstable();
    // Where such a state was had after the same marks, another style. Known before it is checked, so that
    // the same seed has the same states.
    let mut disk = Disk::new(&recorded.tape, syncs);
    let mut seen = HashSet::new();
    let wanted: Vec<(usize, usize, usize)> = wanted
        .into_iter()
        .enumerate()
        .map(|(number, (at, first))| {
            while disk.at() < at && disk.step() {}
            let mut random = Random::named(&format!("{} {number}", recorded.name), seed);
            let mut style = first;
            loop {
                let state = disk.state(STYLES[style % STYLES.len()], &mut random);
                let is_new = seen.insert((state.number(), disk.marks.len()));
                if is_new || style + 1 == first + STYLES.len() {
                    break (at, first, style);
                }
                style += 1;
            }
        })
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let next = AtomicUsize::new(0);
    let violations = Mutex::new(Vec::new());
    let place = place();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut disk = Disk::new(&recorded.tape, syncs);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some((at, first, style)) = wanted.get(number) else { break };
                    while disk.at() < *at && disk.step() {}
                    let name = format!("{} {number}", recorded.name);
                    let mut random = Random::named(&name, seed);
                    let mut draw = |style: usize| {
                        let style = STYLES[style % STYLES.len()];
                        (style, disk.state(style, &mut random))
                    };
                    for style in *first..*style {
                        drop(draw(style));
                    }
                    let (style, state) = draw(*style);
                    let result = one(recorded, &state, &disk.marks, &place);
                    if let Err(error) = result {
                        let after = at - 1;
                        violations.lock().unwrap().push(format!(
                            "{}, seed {seed}, state {number}: cut after event {after} \
                             ({}), {style:?}: {error}",
                            recorded.name,
                            told(&recorded.tape, after),
                        ));
                    }
                }
            });
        }
    });
    Tally {
        name: recorded.name,
        events: recorded.tape.events.len(),
        states: wanted.len(),
        distinct: seen.len(),
        violations: violations.into_inner().unwrap(),
    }
}

fn told(tape: &Tape, event: usize) -> String {
    match &tape.events[event] {
        Event::Write { file, at, bytes } => {
            format!("write of {} bytes at {at} of file {file}", bytes.len())
        }
        other => format!("{other:?}"),
    }
}

fn one(recorded: &Recorded, state: &State, marks: &[Mark], place: &Path) -> Result<(), String> {
    let folder = TempDir::new_in(place).unwrap();
    let inner = folder.path().join("state");
    fs::create_dir(&inner).unwrap();
    state.make(&inner);
    (recorded.check)(&inner, marks)
}

/// Checks about `count` states of all recordings.
pub fn check_all(recorded: &[Recorded], count: usize, seed: u64, syncs: Syncs) -> Vec<Tally> {
    let shares: usize = recorded.iter().map(|one| one.share).sum();
    recorded
        .iter()
        .map(|one| check(one, (count * one.share).div_ceil(shares), seed, syncs))
        .collect()
}
