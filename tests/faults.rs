//! A disk that fails for a moment: nothing is taken for damage, nothing moves, nothing is lost, and
//! everything works once the disk does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fault_vfs::{At, Call, Fault, Faults, File, Kind as Fails};
use fusion_sqlite::agent_log::{self, Entries, Event, Listener, LogOptions};
use fusion_sqlite::checkpoint::Mode;
use fusion_sqlite::engine::{self, Class, Connection, Error, NoProgress, Profile};
use fusion_sqlite::health::{self, CheckKind, Health};
use fusion_sqlite::recovery::RepairOutcome;
use fusion_sqlite::recovery::repair;
use rusqlite::OpenFlags;
use tempfile::TempDir;

mod fault_vfs;

const WAIT: Duration = Duration::from_secs(60);

/// Rows that a checkpoint has put into the file, and rows that are in the WAL alone.
const ROWS: (i64, i64) = (120, 40);

const SCHEMA: &str = "
    CREATE TABLE __meta (key TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE tasks (id TEXT PRIMARY KEY);
    CREATE TABLE agentLogEntries (
      id INTEGER PRIMARY KEY AUTOINCREMENT, taskId TEXT NOT NULL, timestamp TEXT NOT NULL,
      text TEXT NOT NULL, type TEXT NOT NULL, detail TEXT, agent TEXT,
      FOREIGN KEY (taskId) REFERENCES tasks(id) ON DELETE CASCADE);
    CREATE INDEX byTask ON agentLogEntries (taskId, id);
    CREATE VIRTUAL TABLE words USING fts5(text, content='agentLogEntries', content_rowid='id');
    CREATE TRIGGER inserted AFTER INSERT ON agentLogEntries BEGIN
      INSERT INTO words (rowid, text) VALUES (new.id, new.text);
    END;
    INSERT INTO tasks VALUES ('FN-1');";

fn insert(rows: i64, word: &str) -> String {
    format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO agentLogEntries (taskId, timestamp, text, type)
         SELECT 'FN-1', '2026', '{word} ' || i || hex(zeroblob(80)), 'text' FROM n"
    )
}

/// What a process leaves that was killed: a file, and a WAL with committed rows.
fn left_behind(folder: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    engine::init().unwrap();
    let path = folder.join("made.db");
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
    sql.execute_batch(SCHEMA).unwrap();
    sql.execute_batch(&insert(ROWS.0, "in the file")).unwrap();
    sql.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    for _ in 0..4 {
        sql.execute_batch(&insert(ROWS.1 / 4, "in the wal")).unwrap();
    }
    let wal = fs::read(folder.join("made.db-wal")).unwrap();
    assert!(!wal.is_empty());
    // With its -shm, so that SQLite reads the files, through the VFS that fails.
    let shm = fs::read(folder.join("made.db-shm")).unwrap();
    BTreeMap::from([
        ("fusion.db", fs::read(&path).unwrap()),
        ("fusion.db-wal", wal),
        ("fusion.db-shm", shm),
    ])
}

/// A folder with what was left behind, and the faults of its files.
struct Case {
    folder: TempDir,
    faults: Faults,
    /// Reads until the disk was well again.
    reads: Cell<u64>,
}

impl Case {
    fn new(files: &BTreeMap<&'static str, Vec<u8>>, plan: &[Fault]) -> Self {
        let folder = TempDir::new().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let faults = Faults::over(folder.path());
        faults.plan(plan);
        Self { folder, faults, reads: Cell::new(0) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("fusion.db")
    }

    /// Names of all files but those that come and go with connections.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.ends_with("-shm") && !name.contains("-schema"));
        names.sort();
        names
    }

    fn health(&self, kind: CheckKind) -> engine::Result<Health> {
        health::check(&self.path(), kind, &NoProgress)
    }

    /// The disk is well again: all rows are there, and nothing has another name.
    fn is_as_it_was(&self, more: i64) {
        self.reads.set(self.faults.count(Call::Read, None));
        self.faults.plan(&[]);
        let health = self.health(CheckKind::Full).unwrap();
        assert!(health.ok, "{health:?}");
        assert_eq!(count(&self.path()), ROWS.0 + ROWS.1 + more);
        let unexpected: Vec<_> = self
            .names()
            .into_iter()
            .filter(|name| !["fusion.db", "fusion.db-wal"].contains(&name.as_str()))
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:?}");
    }
}

fn count(path: &Path) -> i64 {
    let sql = rusqlite::Connection::open(path).unwrap();
    sql.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    sql.query_row("SELECT count(*) FROM agentLogEntries", [], |row| row.get(0)).unwrap()
}

/// What a call that meets a failing disk may answer with.
fn is_of_the_disk(error: &Error) -> bool {
    error.class() == Class::Io
}

/// Calls `one` without faults to count the reads, and then with each read failing, one at a time.
fn every_failing_read(files: &BTreeMap<&'static str, Vec<u8>>, one: impl Fn(&Case, u64)) {
    let counted = Case::new(files, &[]);
    one(&counted, 0);
    let reads = counted.reads.get();
    assert!(reads > 20, "{reads}");
    for n in 1..=reads {
        let case = Case::new(files, &[Fault::nth_read(n)]);
        one(&case, n);
    }
}

#[test]
fn a_check_that_meets_a_failing_read_ends_with_its_error_and_finds_nothing() {
    let made = TempDir::new().unwrap();
    let files = left_behind(made.path());
    for kind in [CheckKind::Quick, CheckKind::Full] {
        every_failing_read(&files, |case, n| {
            let health = case.health(kind);
            assert_eq!(case.faults.failed(), u64::from(n > 0), "{n}");
            match health {
                Ok(health) => assert!(health.ok && n == 0, "{n}: {health:?}"),
                Err(error) => assert!(n > 0 && is_of_the_disk(&error), "{n}: {error:?}"),
            }
            case.is_as_it_was(0);
        });
    }
}

#[test]
fn an_open_that_meets_a_failing_read_ends_with_its_error_and_changes_nothing() {
    let made = TempDir::new().unwrap();
    let files = left_behind(made.path());
    every_failing_read(&files, |case, n| {
        let path = case.path();
        let opened = health::before_open(&path, health::Startup::Auto, |_| None, &NoProgress)
            .and_then(|_| {
                let connection =
                    Connection::open_hardened(&path, OpenFlags::default(), &Profile::default())?;
                health::opened(connection.file().unwrap());
                let rows: i64 = connection.sql()?.query_row(
                    "SELECT count(*) FROM agentLogEntries",
                    [],
                    |row| row.get(0),
                )?;
                assert_eq!(rows, ROWS.0 + ROWS.1);
                Ok(())
            });
        if let Err(error) = opened {
            assert!(n > 0 && is_of_the_disk(&error), "{n}: {error:?}");
            assert!(error.message.contains("disk"), "{error}");
        }
        case.is_as_it_was(0);
    });
}

#[test]
fn a_wal_that_cannot_be_read_for_good_stays_where_it_is() {
    let made = TempDir::new().unwrap();
    let files = left_behind(made.path());
    let seven = Fault { times: 7, ..Fault::reads_of(File::Wal) };
    for plan in [seven, Fault::reads_of(File::Wal)] {
        let case = Case::new(&files, &[plan]);
        let path = case.path();
        for kind in [CheckKind::Quick, CheckKind::Full] {
            assert!(is_of_the_disk(&case.health(kind).unwrap_err()));
        }
        if plan.times > 7 {
            let error = health::put_wal_aside(&path, true).unwrap_err();
            assert!(is_of_the_disk(&error), "{error:?}");
            let repaired =
                repair::repair(&path, &repair::RepairOptions::default(), &mut |_| (), &NoProgress);
            assert!(is_of_the_disk(&repaired.unwrap_err()));
        }
        case.is_as_it_was(0);
    }
}

#[test]
fn a_repair_of_a_sound_file_that_meets_a_failing_read_changes_nothing() {
    let made = TempDir::new().unwrap();
    let files = left_behind(made.path());
    every_failing_read(&files, |case, n| {
        let mut found = false;
        let repaired = repair::repair(
            &case.path(),
            &repair::RepairOptions::default(),
            &mut |_| found = true,
            &NoProgress,
        );
        assert!(!found, "{n}");
        match repaired {
            Ok(report) => assert_eq!(report.outcome, RepairOutcome::Healthy, "{n}"),
            Err(error) => assert!(n > 0 && is_of_the_disk(&error), "{n}: {error:?}"),
        }
        case.is_as_it_was(0);
    });
}

/// Rows of a damaged file, as a repair that meets no fault leaves them.
#[test]
fn a_repair_of_a_damaged_file_that_meets_a_failing_read_is_whole_or_changes_nothing() {
    let made = TempDir::new().unwrap();
    let mut files = left_behind(made.path());
    let leaf: u64 = {
        let sql = rusqlite::Connection::open(made.path().join("made.db")).unwrap();
        let leaves = "SELECT pageno FROM dbstat WHERE name = 'agentLogEntries' \
                      AND pagetype = 'leaf' ORDER BY pageno LIMIT 1 OFFSET 3";
        sql.query_row(leaves, [], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
    };
    let at = usize::try_from((leaf - 1) * 4096).unwrap();
    files.get_mut("fusion.db").unwrap()[at..at + 4096].fill(0x5a);
    let run = |case: &Case| {
        repair::repair(&case.path(), &repair::RepairOptions::default(), &mut |_| (), &NoProgress)
    };
    let counted = Case::new(&files, &[]);
    assert_eq!(run(&counted).unwrap().outcome, RepairOutcome::Salvaged);
    let reads = counted.faults.count(Call::Read, None);
    let rows = count(&counted.path());
    assert!(rows < ROWS.0 + ROWS.1 && rows > ROWS.1);
    // A repair reads a lot: every read of its first part, which decides, and some of the others.
    let every = (reads / 25).max(1);
    for n in (1..=reads).filter(|n| *n <= 40 || n % every == 0) {
        let case = Case::new(&files, &[Fault::nth_read(n)]);
        let repaired = run(&case);
        case.faults.plan(&[]);
        match repaired {
            Ok(report) => assert_eq!(report.outcome, RepairOutcome::Salvaged, "{n}"),
            Err(error) => {
                assert!(is_of_the_disk(&error), "{n}: {error:?}");
                assert!(!case.names().iter().any(|name| name.contains("stale")), "{n}");
                let report = run(&case).unwrap();
                assert!(report.after.ok, "{n}");
            }
        }
        assert_eq!(count(&case.path()), rows, "{n}");
    }
}

/// A bad sector: unasked nothing is done; a person who asks gets everything but that page.
#[test]
fn a_page_that_cannot_be_read_for_good_is_named_and_lost_where_a_person_asks() {
    let made = TempDir::new().unwrap();
    let files = left_behind(made.path());
    let (leaf, on_leaf) = {
        let sql = rusqlite::Connection::open(made.path().join("made.db")).unwrap();
        let leaves = "SELECT pageno, ncell FROM dbstat WHERE name = 'agentLogEntries' \
                      AND pagetype = 'leaf' ORDER BY pageno LIMIT 1 OFFSET 3";
        let pair = |row: &rusqlite::Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?));
        sql.query_row(leaves, [], pair).unwrap()
    };
    let sector = u64::from(leaf - 1) * 4096 + 1024;
    let bad = Fault::bad_sector(sector, sector + 511);
    let unasked = repair::RepairOptions::default();
    let asked = repair::RepairOptions {
        reason: fusion_sqlite::recovery::Reason::Asked,
        allow_loss: true,
        ..unasked.clone()
    };
    let run =
        |case: &Case, options| repair::repair(&case.path(), options, &mut |_| (), &NoProgress);

    let case = Case::new(&files, &[bad]);
    assert!(is_of_the_disk(&run(&case, &unasked).unwrap_err()));
    case.is_as_it_was(0);

    let case = Case::new(&files, &[bad]);
    let to = case.folder.path().join("new.db");
    let report = repair::recover_to(&case.path(), &to, &asked, &NoProgress).unwrap();
    let is_named = |report: &fusion_sqlite::recovery::Report| match &report.before.findings[..] {
        [health::Finding::Unreadable { pages, .. }] => assert_eq!(pages, &[leaf]),
        other => panic!("{other:?}"),
    };
    is_named(&report);
    let says = format!("1 page ({leaf})");
    assert!(report.steps.iter().any(|step| step.detail.contains(&says)), "{:?}", report.steps);
    // At most the page's own rows are lost; those of its other sectors are found.
    let (least, all) = (ROWS.0 + ROWS.1 - on_leaf, ROWS.0 + ROWS.1);
    assert!((least..all).contains(&count(&to)), "{}", count(&to));
    fs::remove_file(&to).unwrap();
    case.is_as_it_was(0);

    let case = Case::new(&files, &[bad]);
    let report = run(&case, &asked).unwrap();
    is_named(&report);
    assert_eq!(report.outcome, RepairOutcome::Salvaged);
    assert!(report.steps.iter().any(|step| step.detail.contains(&says)), "{:?}", report.steps);
    assert!(report.after.ok);
    assert!((least..all).contains(&count(&case.path())), "{}", count(&case.path()));
    // What was kept of the original has zeros for it.
    let kept = fs::read(report.preserved.unwrap().database).unwrap();
    let sector = usize::try_from(sector).unwrap();
    assert!(kept[sector..sector + 512].iter().all(|byte| *byte == 0));
}

struct Events(Mutex<mpsc::Sender<String>>);

impl Listener for Events {
    fn event(&self, event: &Event) {
        // The test may have ended already.
        drop(self.0.lock().unwrap().send(format!("{event:?}")));
    }
}

fn entries(texts: impl IntoIterator<Item = String>) -> Entries {
    let mut entries = Entries::default();
    for text in texts {
        let text = text.as_bytes();
        entries.push([Some(b"FN-1"), Some(b"2026"), Some(text), Some(b"text"), None, None]);
    }
    entries
}

/// Appends twice with a checkpoint in between, as the disk fails as planned; then the disk is well
/// again.
fn append_and_checkpoint(case: &Case, plan: &[Fault]) {
    let path = case.path();
    let connection =
        Connection::open_hardened(&path, OpenFlags::default(), &Profile::default()).unwrap();
    let (sender, events) = mpsc::channel();
    let listener = Arc::new(Events(Mutex::new(sender)));
    let log = agent_log::open(connection.file().unwrap(), LogOptions::default(), false, listener)
        .unwrap();
    case.faults.plan(plan);
    let append = |word: &str| {
        let (sender, answer) = mpsc::channel();
        let texts = (0..20).map(|number| format!("{word} {number}"));
        log.append(entries(texts), Box::new(move |outcome| drop(sender.send(outcome)))).unwrap();
        answer
    };
    let first = append("first");
    let (sender, checkpointed) = mpsc::channel();
    log.checkpoint(Mode::Truncate, Box::new(move |outcome| drop(sender.send(outcome))));
    let second = append("second");
    if let Err(error) = checkpointed.recv_timeout(WAIT).unwrap() {
        assert!(is_of_the_disk(&error), "{error:?}");
    }
    if plan.iter().any(|fault| fault.times == u64::MAX) {
        // It goes on failing until somebody hears of it.
        let told = events.recv_timeout(WAIT).unwrap();
        assert!(told.starts_with("Error("), "{told}");
        case.faults.plan(&[]);
    }
    for answer in [first, second] {
        assert_eq!(answer.recv_timeout(WAIT).unwrap().unwrap().committed, 20);
    }
    drop(log);
    drop(connection);
    for event in events.try_iter() {
        let harmless = ["Error(", "Checkpoint(", "Reopen", "Healed"];
        assert!(harmless.iter().any(|known| event.starts_with(known)), "{event}");
        assert!(!event.contains("Corrupt"), "{event}");
    }
    case.is_as_it_was(40);
}

#[test]
fn the_log_keeps_its_entries_while_reads_fail_and_goes_on_when_they_work() {
    let made = TempDir::new().unwrap();
    let files = left_behind(made.path());
    let counted = Case::new(&files, &[]);
    append_and_checkpoint(&counted, &[]);
    let reads = counted.reads.get();
    assert!(reads > 5, "{reads}");
    // Each failure is followed by a pause, so that the cases wait side by side.
    std::thread::scope(|scope| {
        for n in 1..=reads {
            let files = &files;
            scope.spawn(move || {
                append_and_checkpoint(&Case::new(files, &[]), &[Fault::nth_read(n)])
            });
        }
    });
    for file in [File::Wal, File::Database] {
        append_and_checkpoint(&Case::new(&files, &[]), &[Fault::reads_of(file)]);
    }
}

#[test]
fn faults_happen_as_planned() {
    let made = TempDir::new().unwrap();
    let files = left_behind(made.path());
    let open =
        |case: &Case| Connection::open(&case.path(), OpenFlags::default(), Duration::ZERO).unwrap();
    let run = |connection: &Connection, sql: &str| {
        let done = connection.sql().unwrap().execute_batch(sql).map_err(Error::from);
        done.map_err(|error| error.errcode).err()
    };
    let write = "PRAGMA wal_autocheckpoint = 0; INSERT INTO tasks VALUES ('FN-2')";
    let fault = |call, file, kind| Fault { call, file, kind, at: At::Every(1), times: u64::MAX };
    for (planned, sql, code) in [
        (fault(Call::Read, None, Fails::Interrupted), write, None),
        (fault(Call::Write, Some(File::Wal), Fails::Interrupted), write, None),
        (fault(Call::Write, Some(File::Wal), Fails::Io), write, Some(778)),
        (fault(Call::Write, Some(File::Wal), Fails::Full), write, Some(13)),
        (fault(Call::Write, Some(File::Wal), Fails::Short), write, Some(13)),
        (fault(Call::ShmLock, None, Fails::Io), write, Some(5130)),
        (fault(Call::ShmMap, None, Fails::Io), write, Some(5386)),
        (fault(Call::Lock, None, Fails::Io), write, Some(3850)),
        (fault(Call::Lock, None, Fails::Busy), write, Some(5)),
        (
            fault(Call::Sync, None, Fails::Io),
            "PRAGMA synchronous = FULL; PRAGMA wal_checkpoint",
            Some(1034),
        ),
        (
            fault(Call::Truncate, Some(File::Wal), Fails::Io),
            "PRAGMA wal_checkpoint(TRUNCATE)",
            Some(1546),
        ),
    ] {
        let case = Case::new(&files, &[planned]);
        let connection = open(&case);
        connection.checkpoint_on_close(false);
        assert_eq!(run(&connection, sql), code, "{planned:?}");
        assert!(case.faults.failed() > 0, "{planned:?}");
        case.faults.plan(&[]);
        assert_eq!(run(&connection, "SELECT count(*) FROM tasks"), None, "{planned:?}");
    }
    // The same seed fails the same calls.
    let struck = |seed| {
        let at = At::Seeded { seed, percent: 30 };
        let case = Case::new(&files, &[]);
        let connection = open(&case);
        case.faults.plan(&[Fault { at, file: None, ..Fault::reads_of(File::Database) }]);
        let failures: Vec<_> =
            (0..20).map(|_| run(&connection, "SELECT count(*) FROM agentLogEntries")).collect();
        (failures, case.faults.failed())
    };
    for seed in 0..8 {
        assert_eq!(struck(seed), struck(seed));
    }
    assert!((0..8).any(|seed| struck(seed).1 > 0));
}
