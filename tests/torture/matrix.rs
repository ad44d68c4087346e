//! Operations during which a call to the system fails, one for each seed, and what must hold then.
//!
//! A seed picks the operation, one of the calls that it makes, which of them, for how often, and
//! what happens instead. Whatever that is:
//!
//! 1. nothing panics, and everything ends;
//! 2. an error is one that the package designed: typed, with a path, and not about damage;
//! 3. what was reported as committed, made or restored is there at once;
//! 4. nothing that is sound is repaired or put aside;
//! 5. once the fault is over, all that was accepted is there, the file is sound, and the operation works.
//!
//! A read of old bytes is a lie that no program can see through. It may look like damage for a
//! moment, so that 2 permits that then; the rest holds.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use fusion_sqlite::agent_log::Refusal;
use fusion_sqlite::checkpoint::{self, Mode};
use fusion_sqlite::engine::{self, Class, Connection, Error, JournalMode, NoProgress, Synchronous};
use fusion_sqlite::health::{self, CheckKind};
use fusion_sqlite::recovery::{self, backup_file, repair, restore, rotation, snapshot_file};
use rusqlite::OpenFlags;
use tempfile::TempDir;

use super::power::{Damage, damage, left, place};
use super::random::Random;
use super::rows::{self, Open, Rows, WAIT};
use super::site::{Call, Fault, File, Strike, Watch};

type Outcome = Result<(), String>;

const OLD: Rows = Rows { transactions: 6, appends: 3, version: 1 };
const NEW: Rows = Rows { transactions: 4, appends: 5, version: 2 };

/// How long a fault that does not end by itself lasts.
const LASTS: Duration = Duration::from_millis(300);

struct Operation {
    name: &'static str,
    files: fn() -> &'static Files,
    run: fn(&Case) -> Outcome,
}

type Files = BTreeMap<&'static str, Vec<u8>>;

const OPERATIONS: &[Operation] = &[
    Operation { name: "append", files: left_behind, run: append },
    Operation { name: "sql", files: left_behind, run: transactions },
    Operation { name: "sql, rollback journal", files: rollback, run: transactions_kept },
    Operation { name: "checkpoint", files: left_behind, run: checkpoints },
    Operation { name: "backup", files: with_backup, run: back_up },
    Operation { name: "restore", files: to_restore, run: restored },
    Operation { name: "restore, rollback journal", files: to_restore_rollback, run: restored },
    Operation { name: "repair", files: damaged, run: repaired },
    Operation { name: "repair of an index", files: damaged_index, run: repaired },
    Operation { name: "repair of a sound file", files: left_behind, run: repaired_sound },
    Operation { name: "check", files: left_behind, run: checked },
    Operation { name: "open", files: left_behind, run: opened },
    Operation { name: "open, hot journal", files: hot_journal, run: opened },
    Operation { name: "reopen", files: to_replace, run: reopened },
    Operation { name: "exit", files: left_behind, run: ended },
];

/// A folder, and what fails in it.
struct Case {
    folder: TempDir,
    watch: Watch,
    fault: Option<Fault>,
    armed: Mutex<Option<Instant>>,
    kept: usize,
    calls: Mutex<BTreeMap<(Call, File), u64>>,
}

impl Case {
    fn new(files: &Files, fault: Option<Fault>) -> Self {
        let folder = TempDir::new_in(place()).unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let watch = Watch::over(folder.path(), rows::NAME);
        let kept = engine::kept(&rows::path(folder.path())).len();
        let (armed, calls) = (Mutex::default(), Mutex::default());
        Self { folder, watch, fault, armed, kept, calls }
    }

    fn path(&self) -> PathBuf {
        rows::path(self.folder.path())
    }

    /// From here on it fails.
    fn arm(&self) {
        *self.armed.lock().unwrap() = Some(Instant::now());
        self.watch.plan(self.fault);
    }

    /// The disk is well again.
    fn calm(&self) {
        let mut calls = self.calls.lock().unwrap();
        if calls.is_empty() {
            *calls = self.watch.calls();
        }
        self.watch.plan(None);
    }

    fn lies(&self) -> bool {
        self.fault.is_some_and(|fault| fault.strike == Strike::Old)
    }

    /// That an error is one that is designed.
    fn designed(&self, error: &Error) -> Outcome {
        let is_of_disk = match error.class() {
            Class::Transient | Class::Disk | Class::Io => true,
            Class::Corrupt | Class::Index => self.lies(),
            Class::Row | Class::Replaced | Class::Misuse => false,
        };
        let is_named = matches!(
            error.code,
            "ERR_FUSION_NOT_WAL" | "ERR_FUSION_COMMIT_UNKNOWN" | "ERR_FUSION_WEDGED"
        );
        let is_whole = error.path.is_some()
            && !error.message.is_empty()
            && (error.errcode == 0 || !error.errstr.is_empty())
            && error.errcode != rusqlite::ffi::SQLITE_ERROR;
        match self.fault {
            None => Err(format!("an error without a fault: {error:?}")),
            _ if (is_of_disk || is_named) && is_whole => Ok(()),
            _ => Err(format!("an error that is not designed: {error:?}")),
        }
    }

    /// That nothing was put aside.
    fn nothing_moved(&self) -> Outcome {
        let kept = engine::kept(&self.path());
        if kept.len() == self.kept { Ok(()) } else { Err(format!("put aside: {kept:?}")) }
    }

    /// That the file is sound, and what it holds.
    fn sound(&self) -> Result<Rows, String> {
        let health = health::check(&self.path(), CheckKind::Full, &NoProgress)
            .map_err(|error| format!("the check afterwards: {error}"))?;
        if !health.ok {
            return Err(format!("afterwards: {}", health.summary()));
        }
        rows::at(&self.path())
    }

    /// That the file holds exactly these rows and nothing was put aside.
    fn is(&self, expected: Rows) -> Outcome {
        self.nothing_moved()?;
        let found = self.sound()?;
        if found == expected { Ok(()) } else { Err(format!("{expected:?} expected: {found:?}")) }
    }

    /// Waits for an answer; the fault ends if it is what is waited for.
    fn answer<T>(&self, answer: &std::sync::mpsc::Receiver<T>) -> Result<T, String> {
        if let Ok(answer) = answer.recv_timeout(LASTS) {
            return Ok(answer);
        }
        self.calm();
        answer.recv_timeout(WAIT).map_err(|_| "no answer for a minute".to_owned())
    }
}

fn open(case: &Case) -> Result<Open, Error> {
    Open::new(&case.path(), rows::profile(Synchronous::Normal, JournalMode::Wal))
}

/// Appends, checkpoints, appends, and a transaction of SQL, to the end of the log.
fn append(case: &Case) -> Outcome {
    case.arm();
    let open = match open(case) {
        Ok(open) => open,
        Err(error) => {
            case.designed(&error)?;
            case.calm();
            return case.is(OLD);
        }
    };
    let mut expected = OLD;
    let mut waiting = vec![open.append(expected.appends + 1)];
    let (sender, checkpointed) = std::sync::mpsc::channel();
    open.log.checkpoint(Mode::Truncate, Box::new(move |outcome| drop(sender.send(outcome))));
    waiting.push(open.append(expected.appends + 2));
    if let Err(error) = case.answer(&checkpointed)? {
        case.designed(&error)?;
    }
    for answer in waiting {
        match case.answer(&answer)? {
            Ok(receipt) if receipt.committed == rows::BATCH => {
                expected.appends += 1;
                // The fault may be in the way of this look.
                let found = rusqlite::Connection::open(case.path())
                    .and_then(|sql| rows::number(&sql, "SELECT count(*) FROM agentLogEntries"));
                if found.as_ref().is_ok_and(|found| *found < expected.appends * rows::BATCH) {
                    return Err(format!("acknowledged and not there: {found:?}, {expected:?}"));
                }
            }
            // Rows were rejected because of what is not so: their callers have them.
            Ok(receipt) if case.lies() && !receipt.rejected.is_empty() => {
                case.calm();
                drop(open.close());
                return case.nothing_moved();
            }
            Ok(receipt) => return Err(format!("a receipt that is not whole: {receipt:?}")),
            // It is kept, and written once it can be.
            Err((error, _)) => {
                case.designed(&error)?;
                expected.appends += 1;
            }
        }
    }
    let did = open.transaction(expected.transactions + 1);
    case.calm();
    if let Err(error) = &did {
        case.designed(error)?;
    }
    for event in open.events.try_iter() {
        if event.starts_with("Corrupt") || event.starts_with("Recover") {
            return Err(format!("an event of damage: {event}"));
        }
    }
    open.close().map_err(|error| format!("the log did not end in order: {error}"))?;
    let found = case.sound()?;
    let least = expected.transactions + u64::from(did.is_ok());
    let most = expected.transactions + 1;
    expected.transactions = found.transactions.clamp(least, most);
    case.is(expected)
}

fn transactions_in(case: &Case, mode: JournalMode) -> Outcome {
    case.arm();
    let profile = rows::profile(Synchronous::Full, mode);
    let mut acknowledged = OLD.transactions;
    let mut failed = false;
    match Connection::open_hardened(&case.path(), OpenFlags::default(), &profile) {
        Err(error) => case.designed(&error)?,
        Ok(connection) => {
            let sql = connection.sql().unwrap();
            for number in OLD.transactions + 1..=OLD.transactions + 4 {
                let done = sql.execute_batch(&rows::transaction(number));
                if done.is_err() {
                    case.designed(&connection.last_error().at(connection.path()))?;
                    if !connection.is_autocommit() {
                        drop(sql.execute_batch("ROLLBACK"));
                    }
                    failed = true;
                    break;
                }
                acknowledged = number;
            }
            case.calm();
            drop(connection);
        }
    }
    case.calm();
    let found = case.sound()?;
    // A COMMIT that failed may have taken place.
    let may_be = acknowledged..=acknowledged + u64::from(failed);
    if !may_be.contains(&found.transactions) {
        return Err(format!("{acknowledged} transactions were acknowledged: {found:?}"));
    }
    let connection = Connection::open_hardened(&case.path(), OpenFlags::default(), &profile)
        .map_err(|error| format!("the open afterwards: {error}"))?;
    let next = found.transactions + 1;
    connection
        .sql()
        .unwrap()
        .execute_batch(&rows::transaction(next))
        .map_err(|error| format!("the transaction afterwards: {error}"))?;
    drop(connection);
    case.is(Rows { transactions: next, ..OLD })
}

fn transactions(case: &Case) -> Outcome {
    transactions_in(case, JournalMode::Wal)
}

fn transactions_kept(case: &Case) -> Outcome {
    transactions_in(case, JournalMode::Keep)
}

fn checkpoints(case: &Case) -> Outcome {
    let open = open(case).map_err(|error| error.to_string())?;
    open.transaction(OLD.transactions + 1).map_err(|error| error.to_string())?;
    case.arm();
    for mode in [Mode::Passive, Mode::Full, Mode::Restart, Mode::Truncate] {
        if let Err(error) = checkpoint::run(&open.connection, mode) {
            case.designed(&error)?;
        }
    }
    case.calm();
    open.transaction(OLD.transactions + 2).map_err(|error| error.to_string())?;
    let done = checkpoint::run(&open.connection, Mode::Truncate);
    done.map_err(|error| format!("the checkpoint afterwards: {error}"))?;
    open.close().map_err(|error| error.to_string())?;
    case.is(Rows { transactions: OLD.transactions + 2, ..OLD })
}

fn back_up(case: &Case) -> Outcome {
    let target = rotation::default_path(&case.path());
    let options =
        backup_file::BackupOptions { patience: LASTS, ..backup_file::BackupOptions::default() };
    let run = || backup_file::backup(&case.path(), &target, &options, &NoProgress);
    let generations = || -> Result<Vec<Rows>, String> {
        rotation::generations(&target).iter().map(|path| rows::at(path)).collect()
    };
    case.arm();
    let made = run();
    case.calm();
    let generations_then = generations()?;
    match made {
        Ok(backup_file::BackupOutcome::Made(_)) if generations_then.first() == Some(&OLD) => {}
        Ok(backup_file::BackupOutcome::Damaged(health)) if !case.lies() => {
            return Err(format!("a sound file is called damaged: {}", health.summary()));
        }
        Ok(backup_file::BackupOutcome::Damaged(_)) => {}
        Ok(made) => return Err(format!("{made:?}, and there are {generations_then:?}")),
        Err(error) => case.designed(&error)?,
    }
    if !generations_then.contains(&NEW) {
        return Err(format!("the generation before is gone: {generations_then:?}"));
    }
    let again = run().map_err(|error| format!("the backup afterwards: {error}"))?;
    let is_made = matches!(again, backup_file::BackupOutcome::Made(_));
    if !is_made || generations()?.first() != Some(&OLD) {
        return Err(format!("the backup afterwards: {again:?}"));
    }
    case.is(OLD)
}

fn restored(case: &Case) -> Outcome {
    let from = case.path().with_file_name("from.db");
    let options = restore::RestoreOptions { patience: LASTS, ..restore::RestoreOptions::default() };
    let run = || restore::restore(&case.path(), &from, &options, &NoProgress);
    case.arm();
    let outcome = run();
    case.calm();
    let found = case.sound()?;
    match outcome {
        Ok(restore::RestoreOutcome::Restored(_)) if found == NEW => {}
        Ok(restore::RestoreOutcome::Damaged(_)) if case.lies() && found == OLD => {}
        Ok(outcome) => return Err(format!("{outcome:?}, and there is {found:?}")),
        Err(error) => case.designed_or_told(&error)?,
    }
    if found != OLD && found != NEW {
        return Err(format!("neither the old content nor the new one: {found:?}"));
    }
    let copies = engine::kept(&case.path());
    if found == NEW && !copies.iter().any(|copy| rows::at(&copy.path) == Ok(OLD)) {
        return Err(format!("no copy of what was replaced is kept: {copies:?}"));
    }
    match run().map_err(|error| format!("the restore afterwards: {error}"))? {
        restore::RestoreOutcome::Restored(_) if case.sound()? == NEW => Ok(()),
        other => Err(format!("the restore afterwards: {other:?}")),
    }
}

impl Case {
    /// As [`Self::designed`]; or that the disk does not keep what is written to it, of one that lies.
    fn designed_or_told(&self, error: &Error) -> Outcome {
        let is_told = self.lies() && error.message.contains("does not keep what is written");
        if is_told { Ok(()) } else { self.designed(error) }
    }
}

fn repaired(case: &Case) -> Outcome {
    let options = repair::RepairOptions { patience: LASTS, ..repair::RepairOptions::default() };
    let run = || repair::repair(&case.path(), &options, &mut |_| (), &NoProgress);
    case.arm();
    let outcome = run();
    case.calm();
    match &outcome {
        Ok(report) if report.after.ok || report.after.is_locked() => {}
        Ok(report) => return Err(format!("a repair that did not: {}", report.text)),
        Err(error) if error.code == "ERR_FUSION_LOSS" && case.lies() => {}
        Err(error) if matches!(error.class(), Class::Corrupt | Class::Index) => {
            // The file is damaged, and an index that could not be rebuilt is said to be.
            if !error.message.contains("nothing was changed") {
                case.designed_or_told(error)?;
            }
        }
        Err(error) => case.designed(error)?,
    }
    let again = run().map_err(|error| format!("the repair afterwards: {error}"))?;
    if outcome.is_ok() && again.outcome != recovery::RepairOutcome::Healthy && !case.lies() {
        return Err(format!("repaired, and damaged again: {}", again.text));
    }
    let rows = left(&case.path())?;
    let all = [(OLD.transactions, OLD.appends * rows::BATCH), *EXPECTED.get_or_init(expected)];
    if !again.after.ok || !all.iter().any(|(_, appends)| *appends == rows.1) || rows.0 < all[1].0 {
        return Err(format!("a repair leaves {:?}, and there are {rows:?}", all[1]));
    }
    Ok(())
}

static EXPECTED: OnceLock<(u64, u64)> = OnceLock::new();

/// What a repair of [`damaged`] leaves where no call fails.
fn expected() -> (u64, u64) {
    let case = Case::new(damaged(), None);
    repair::repair(&case.path(), &repair::RepairOptions::default(), &mut |_| (), &NoProgress)
        .unwrap();
    left(&case.path()).unwrap()
}

fn repaired_sound(case: &Case) -> Outcome {
    let options = repair::RepairOptions { patience: LASTS, ..repair::RepairOptions::default() };
    case.arm();
    let outcome = repair::repair(&case.path(), &options, &mut |_| (), &NoProgress);
    case.calm();
    match outcome {
        Ok(report) if report.outcome == recovery::RepairOutcome::Healthy => {}
        Ok(report) => return Err(format!("a sound file was repaired: {}", report.text)),
        Err(error) => case.designed(&error)?,
    }
    case.is(OLD)
}

fn checked(case: &Case) -> Outcome {
    case.arm();
    let outcome = health::check(&case.path(), CheckKind::Full, &NoProgress);
    case.calm();
    match outcome {
        Ok(health) if health.ok || health.is_locked() || case.lies() => {}
        Ok(health) => return Err(format!("a sound file is called damaged: {}", health.summary())),
        Err(error) => case.designed(&error)?,
    }
    case.is(OLD)
}

fn opened(case: &Case) -> Outcome {
    case.arm();
    let path = case.path();
    let profile = rows::profile(Synchronous::Normal, JournalMode::Wal);
    let look = health::before_open(&path, health::Startup::Auto, snapshot_file::note, &NoProgress);
    let found = look.and_then(|look| {
        if let Some(health) = look.health.filter(|health| !health.ok && !case.lies()) {
            return Ok(Err(format!("a sound file is called damaged: {}", health.summary())));
        }
        let connection = Connection::open_hardened(&path, OpenFlags::default(), &profile)?;
        health::opened(connection.file().unwrap());
        let query = "SELECT count(*) FROM agentLogEntries";
        Ok(match rows::number(connection.sql()?, query) {
            Ok(found) if found == OLD.appends * rows::BATCH || case.lies() => Ok(()),
            Ok(found) => Err(format!("rows that are not those of the file: {found}")),
            Err(_) => return Err(connection.last_error().at(&path)),
        })
    });
    case.calm();
    match found {
        Ok(outcome) => outcome?,
        Err(error) => case.designed(&error)?,
    }
    case.is(OLD)
}

/// The file is replaced by another under the log, which stops; what it had accepted is taken back and
/// goes to the log of the new one.
fn reopened(case: &Case) -> Outcome {
    let old = open(case).map_err(|error| error.to_string())?;
    let told = |error: &Error| {
        if error.class() == Class::Replaced { Ok(()) } else { case.designed(error) }
    };
    let Open { connection, log, .. } = old;
    checkpoint::run(&connection, Mode::Truncate).map_err(|error| error.to_string())?;
    fs::rename(case.path().with_file_name("new.db"), case.path()).unwrap();
    drop(connection);
    case.arm();
    let (sender, answer) = std::sync::mpsc::channel();
    let reply = Box::new(move |outcome| drop(sender.send(outcome)));
    let expected = match log.append(rows::append(NEW.appends + 1), reply) {
        Ok(_) => Rows { appends: NEW.appends + 1, ..NEW },
        // It has noticed by itself, and has not accepted anything.
        Err(Refusal::Stopped(error)) => {
            told(&error)?;
            NEW
        }
        Err(other) => return Err(format!("refused: {other:?}")),
    };
    if let Ok(outcome) = answer.recv_timeout(LASTS) {
        match outcome {
            Ok(receipt) => return Err(format!("committed to a file that is gone: {receipt:?}")),
            Err((error, _)) => told(&error)?,
        }
    }
    // The old one ends first: while it has its file open, the WAL at the path counts as that file's.
    let pending = log.take_pending();
    let (sender, ended) = std::sync::mpsc::channel();
    log.when_ended(move |result| drop(sender.send(result)));
    drop(log);
    if let Err(error) = case.answer(&ended)? {
        told(&error)?;
    }
    let new = match open(case) {
        Ok(new) => new,
        Err(error) => {
            told(&error)?;
            case.calm();
            open(case).map_err(|error| format!("the open afterwards: {error}"))?
        }
    };
    for entries in pending {
        let answer = Box::new(|_| ());
        new.log.append(entries, answer).map_err(|error| format!("refused: {error:?}"))?;
    }
    case.calm();
    new.log.flush(WAIT).map_err(|error| format!("the flush afterwards: {error}"))?;
    new.close().map_err(|error| error.to_string())?;
    case.is(expected)
}

/// The last handle goes while entries wait.
fn ended(case: &Case) -> Outcome {
    let mut open = open(case).map_err(|error| error.to_string())?;
    case.arm();
    let answer = open.append(OLD.appends + 1);
    let (sender, ended) = std::sync::mpsc::channel();
    open.log.when_ended(move |result| drop(sender.send(result)));
    open.log.release();
    drop(open.connection);
    if let Err(error) = case.answer(&ended)? {
        case.designed(&error)?;
    }
    let answer = answer.recv_timeout(WAIT).map_err(|_| "no receipt".to_owned())?;
    case.calm();
    match answer {
        Ok(receipt) if receipt.committed == rows::BATCH => {
            case.is(Rows { appends: OLD.appends + 1, ..OLD })
        }
        Ok(receipt) => Err(format!("a receipt that is not whole: {receipt:?}")),
        // It is not committed, and is said not to be.
        Err((error, _)) => {
            case.designed(&error)?;
            case.is(OLD)
        }
    }
}

/// Reads the files below a folder that a maker fills.
fn files(make: impl FnOnce(&Path)) -> Files {
    const NAMES: [&str; 7] = [
        "fusion.db",
        "fusion.db-wal",
        "fusion.db-journal",
        "fusion.db.backup",
        "from.db",
        "new.db",
        "new.db-wal",
    ];
    engine::init().unwrap();
    let folder = TempDir::new_in(place()).unwrap();
    make(&rows::path(folder.path()));
    let read = |name| Some((name, fs::read(folder.path().join(name)).ok()?));
    NAMES.into_iter().filter_map(read).collect()
}

/// Defines files that are made once.
macro_rules! files {
    ($($(#[$doc:meta])* $name:ident: $make:expr;)*) => {
        $($(#[$doc])* fn $name() -> &'static Files {
            static FILES: OnceLock<Files> = OnceLock::new();
            FILES.get_or_init(|| files($make))
        })*
    };
}

/// A database whose process was killed: rows in the file, and rows in the WAL alone.
fn killed(path: &Path) {
    let made = path.with_file_name("made.db");
    rows::make(&made, "WAL", Rows { appends: 0, ..OLD });
    let sql = rusqlite::Connection::open(&made).unwrap();
    sql.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    rows::appends(&sql, OLD.appends);
    for ending in ["", "-wal"] {
        fs::copy(engine::sidecar_path(&made, ending), engine::sidecar_path(path, ending)).unwrap();
    }
}

files! {
    left_behind: killed;
    rollback: |path: &Path| rows::make(path, "DELETE", OLD);
    with_backup: |path: &Path| {
        killed(path);
        rows::make(&rotation::default_path(path), "DELETE", NEW);
    };
    to_restore: |path: &Path| {
        killed(path);
        rows::make(&path.with_file_name("from.db"), "DELETE", NEW);
    };
    to_restore_rollback: |path: &Path| {
        rows::make(path, "DELETE", OLD);
        rows::make(&path.with_file_name("from.db"), "DELETE", NEW);
    };
    to_replace: |path: &Path| {
        killed(path);
        rows::make(&path.with_file_name("new.db"), "WAL", NEW);
    };
    damaged: |path: &Path| {
        rows::make(path, "WAL", OLD);
        damage(path, Damage::Leaf);
    };
    damaged_index: |path: &Path| {
        rows::make(path, "WAL", OLD);
        damage(path, Damage::Index);
    };
    /// A transaction that was cut off after it had changed the file.
    hot_journal: |path: &Path| {
        let made = path.with_file_name("made.db");
        rows::make(&made, "DELETE", OLD);
        let sql = rusqlite::Connection::open(&made).unwrap();
        sql.execute_batch(
            "PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN;
             UPDATE parts SET pad = randomblob(3000); DELETE FROM agentLogEntries",
        )
        .unwrap();
        for ending in ["", "-journal"] {
            fs::copy(engine::sidecar_path(&made, ending), engine::sidecar_path(path, ending)).unwrap();
        }
        assert!(fs::metadata(engine::sidecar_path(path, "-journal")).unwrap().len() > 512);
    };
}

/// Until the operation says that it is over.
const FOR_GOOD: u64 = u64::MAX;

/// What may happen to a call, and how often at most.
fn strikes(call: Call, file: File) -> Vec<(Strike, u64)> {
    use Strike::{Error, Half, Old, Slow, Torn};
    let slow = (Slow(Duration::from_millis(20)), 3);
    let error = |errno| (Error(errno), FOR_GOOD);
    match call {
        Call::Read => {
            vec![
                error(libc::EIO),
                error(libc::EIO),
                (Error(libc::EINTR), 3),
                (Half, 3),
                (Old, 2),
                slow,
            ]
        }
        Call::Write => vec![
            error(libc::EIO),
            error(libc::ENOSPC),
            error(libc::EDQUOT),
            (Torn(libc::ENOSPC), FOR_GOOD),
            (Torn(libc::EIO), FOR_GOOD),
            (Error(libc::EINTR), 3),
            (Half, 3),
            slow,
        ],
        Call::Sync => vec![error(libc::EIO), error(libc::ENOSPC), error(libc::EDQUOT), slow],
        // SQLite tries for such a lock for ten seconds, whatever the timeout, and each time again.
        Call::Lock if file == File::Shm => {
            vec![error(libc::EIO), (Error(libc::EAGAIN), 20), error(libc::ENOLCK), slow]
        }
        Call::Lock => vec![error(libc::EIO), error(libc::EAGAIN), error(libc::ENOLCK), slow],
        Call::Map => vec![error(libc::ENOMEM), error(libc::EIO)],
        Call::Open | Call::Rename | Call::Link | Call::MakeFolder => {
            vec![error(libc::EIO), error(libc::ENOSPC), error(libc::EDQUOT)]
        }
        Call::Truncate | Call::Stat | Call::Access | Call::Delete => vec![error(libc::EIO)],
    }
}

/// Calls of an operation that nothing happens to.
fn calls(number: usize) -> &'static BTreeMap<(Call, File), u64> {
    static CALLS: [OnceLock<BTreeMap<(Call, File), u64>>; OPERATIONS.len()] =
        [const { OnceLock::new() }; OPERATIONS.len()];
    CALLS[number].get_or_init(|| {
        let operation = &OPERATIONS[number];
        let case = Case::new((operation.files)(), None);
        if let Err(error) = (operation.run)(&case) {
            panic!("{} without a fault: {error}", operation.name);
        }
        let calls = case.calls.lock().unwrap().clone();
        assert!(calls.len() > 4, "{}: {calls:?}", operation.name);
        calls
    })
}

/// The operation and the fault of a seed.
fn of(seed: u64) -> (usize, Fault) {
    let mut random = Random::new(seed);
    let number = random.below(OPERATIONS.len());
    let calls: Vec<_> = calls(number).iter().map(|(call, count)| (*call, *count)).collect();
    let ((call, file), count) = *random.pick(&calls);
    let (strike, most) = *random.pick(&strikes(call, file));
    let nth = random.next() % count + 1;
    let times = (*random.pick(&[1, 1, 3, FOR_GOOD])).min(most);
    (number, Fault { call, file, nth, times, strike })
}

/// Carries an operation out once for each call of a kind that it makes, or for some of many, which is
/// struck.
///
/// # Errors
/// What does not hold.
pub fn each(name: &str, call: Call, file: File, strike: Strike) -> Outcome {
    let number = OPERATIONS.iter().position(|it| it.name == name).unwrap();
    let count = calls(number).get(&(call, file)).copied().unwrap_or(0);
    assert!(count > 0, "{name} makes no such call");
    let step = usize::try_from(count / 20 + 1).unwrap();
    for nth in (1..=count).step_by(step) {
        let fault = Fault { call, file, nth, times: 1, strike };
        let case = Case::new((OPERATIONS[number].files)(), Some(fault));
        (OPERATIONS[number].run)(&case).map_err(|error| format!("{name}, {fault:?}: {error}"))?;
    }
    Ok(())
}

/// What came of the faults of some seeds.
#[derive(Debug, Default)]
pub struct Tally {
    /// Cases, and those among them in which a call was struck, by operation.
    pub cases: BTreeMap<&'static str, (usize, usize)>,
    pub struck_calls: u64,
    /// The case that took the longest.
    pub slowest: (Duration, String),
    pub violations: Vec<String>,
}

/// Carries out the faults of `seeds`, several at a time: they wait more than they work.
pub fn check(seeds: std::ops::Range<u64>, threads: usize) -> Tally {
    let seeds: Vec<u64> = seeds.collect();
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    // Before anything fails on another thread.
    for number in 0..OPERATIONS.len() {
        calls(number);
    }
    EXPECTED.get_or_init(expected);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (number, fault) = of(*seed);
                    let operation = &OPERATIONS[number];
                    let case = Case::new((operation.files)(), Some(fault));
                    let started = Instant::now();
                    let done = catch_unwind(AssertUnwindSafe(|| (operation.run)(&case)));
                    let outcome = done.unwrap_or_else(|panic| {
                        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        Err(format!("panicked: {text}"))
                    });
                    let struck = case.watch.struck();
                    let mut tally = tally.lock().unwrap();
                    let count = tally.cases.entry(operation.name).or_default();
                    count.0 += 1;
                    count.1 += usize::from(struck > 0);
                    tally.struck_calls += struck;
                    if started.elapsed() > tally.slowest.0 {
                        let name = operation.name;
                        tally.slowest =
                            (started.elapsed(), format!("{name}, seed {seed}, {fault:?}"));
                    }
                    if let Err(error) = outcome {
                        let name = operation.name;
                        tally.violations.push(format!("{name}, seed {seed}, {fault:?}: {error}"));
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap()
}
