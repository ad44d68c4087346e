//! Databases whose last transaction was cut off and left its rollback journal: what is said of
//! them, that looking changes nothing, and that a repair goes on from where it was killed.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and a child tells its parent by printing"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fusion_sqlite::engine::{
    self, Access, Class, Error, HotJournal, NoProgress, PageSource, Progress, Reader, RolledBack,
    Stage,
};
use fusion_sqlite::health::page_map::{self, page_map};
use fusion_sqlite::health::{self, CheckKind, Finding, Health, Startup, file_info};
use fusion_sqlite::recovery::repair::{self, RepairOptions, recover_to};
use fusion_sqlite::recovery::{RepairOutcome, StepKind, backup_file, restore};
use rusqlite::Connection;
use tempfile::TempDir;

/// A folder with `x.db`, as a process leaves it that is killed in a transaction.
struct CutOff {
    folder: TempDir,
    path: PathBuf,
}

/// `pragmas`, a table `t` with 3,000 rows, and then `transaction` up to some point, at which the
/// files are as they are copied.
fn cut_off(pragmas: &str, transaction: &str) -> CutOff {
    engine::init().unwrap();
    let (live, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let sql = Connection::open(live.path().join("x.db")).unwrap();
    sql.execute_batch(&format!(
        "{pragmas};
         CREATE TABLE t (id INTEGER PRIMARY KEY, a); CREATE INDEX t_a ON t (a);
         WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 3000)
         INSERT INTO t SELECT i, i || hex(zeroblob(150)) FROM n;
         PRAGMA cache_size = 10; BEGIN; {transaction}"
    ))
    .unwrap();
    for name in ["x.db", "x.db-journal"] {
        std::fs::copy(live.path().join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("x.db");
    CutOff { folder, path }
}

const UPDATE: &str = "UPDATE t SET a = a || 'y'";

impl CutOff {
    fn new() -> Self {
        cut_off("", UPDATE)
    }

    /// Every file, by name, but for the copy of the schema that a backup makes.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap);
        entries
            .filter(|entry| !entry.path().ends_with("x.db-schema"))
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    fn check(&self) -> Health {
        health::check(&self.path, CheckKind::Full, &NoProgress).unwrap()
    }

    /// The bytes that it is read as.
    fn rolled_back(&self) -> Vec<u8> {
        let it = RolledBack::open(&self.path).unwrap().unwrap();
        let mut bytes = vec![0; usize::try_from(it.size().unwrap()).unwrap()];
        // In pieces that begin and end anywhere.
        for (number, piece) in bytes.chunks_mut(777).enumerate() {
            let length = piece.len();
            assert_eq!(it.read_at(piece, number as u64 * 777).unwrap(), length);
        }
        assert!(it.is_current());
        bytes
    }

    fn overwrite(&self, page: u64, byte: u8) {
        let file = std::fs::OpenOptions::new().write(true).open(&self.path).unwrap();
        file.write_all_at(&[byte; 4096], (page - 1) * 4096).unwrap();
    }
}

fn rows(path: &Path) -> i64 {
    let sql = Connection::open(path).unwrap();
    let updated = "SELECT count(*) FROM t WHERE a LIKE '%y'";
    assert_eq!(sql.query_row(updated, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    sql.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn is_hot(finding: &Finding) -> bool {
    matches!(finding, Finding::HotJournal { bytes: 1.., changed_pages: 1.. })
}

#[test]
fn what_is_read_through_a_journal_is_what_sqlite_rolls_back_to() {
    let cases = [
        ("", UPDATE),
        ("PRAGMA page_size = 512", UPDATE),
        ("PRAGMA page_size = 65536", UPDATE),
        // No syncs: the header says that the records go on to the end.
        ("PRAGMA synchronous = OFF", UPDATE),
        // The file grows, then shrinks.
        ("", "INSERT INTO t (a) SELECT a || 'y' FROM t"),
        ("PRAGMA auto_vacuum = FULL", "DELETE FROM t WHERE id > 100; UPDATE t SET a = a || 'y'"),
        (
            "PRAGMA auto_vacuum = INCREMENTAL",
            "DELETE FROM t WHERE id > 100; UPDATE t SET a = a || 'y'; PRAGMA incremental_vacuum",
        ),
        // Spilled in several portions, each behind a header of its own.
        (
            "PRAGMA journal_mode = TRUNCATE",
            "UPDATE t SET a = a || 'y'; DELETE FROM t; DROP TABLE t",
        ),
        ("PRAGMA journal_mode = PERSIST", UPDATE),
    ];
    for (pragmas, transaction) in cases {
        let it = cut_off(pragmas, transaction);
        let read = it.rolled_back();
        assert_ne!(read, std::fs::read(&it.path).unwrap(), "{pragmas}: nothing was spilled");
        assert_eq!(rows(&it.path), 3000);
        assert!(read == std::fs::read(&it.path).unwrap(), "{pragmas} {transaction}");
    }
}

#[test]
fn a_journal_that_was_cut_anywhere_is_read_as_sqlite_reads_it() {
    let it = CutOff::new();
    let journal = it.folder.path().join("x.db-journal");
    let (database, whole) = (std::fs::read(&it.path).unwrap(), std::fs::read(&journal).unwrap());
    let lengths = [1, 27, 28, 511, 512, 513, 600, 512 + 4104, 512 + 4105, whole.len() / 2];
    for length in lengths.into_iter().chain((1..8).map(|part| whole.len() * part / 8)) {
        std::fs::write(&it.path, &database).unwrap();
        std::fs::write(&journal, &whole[..length]).unwrap();
        let read = it.rolled_back();
        drop(Connection::open(&it.path).unwrap().query_row("SELECT 1 FROM t", [], |_| Ok(())));
        assert!(read == std::fs::read(&it.path).unwrap(), "{length} of {}", whole.len());
    }
    // A record that was not written whole ends it.
    for at in [512, 520, 512 + 4104 + 6, whole.len() / 2] {
        let mut torn = whole.clone();
        torn[at..at + 400].fill(0xa5);
        std::fs::write(&it.path, &database).unwrap();
        std::fs::write(&journal, torn).unwrap();
        let read = it.rolled_back();
        drop(Connection::open(&it.path).unwrap().query_row("SELECT 1 FROM t", [], |_| Ok(())));
        assert!(read == std::fs::read(&it.path).unwrap(), "torn at {at}");
    }
}

/// A transaction over two databases that is cut off between the two: the journals name a
/// super-journal, which decides.
#[test]
fn a_transaction_over_two_databases_is_rolled_back_or_not_as_its_super_journal_says() {
    for is_committed in [false, true] {
        let it = CutOff::new();
        let journal = it.folder.path().join("x.db-journal");
        let name = it.folder.path().join("x.db-mj012345900");
        let name = name.to_str().unwrap();
        // What SQLite writes at the end of a journal: behind the number of a page that is never
        // used the name, its length, its checksum and the magic.
        let mut bytes = std::fs::read(&journal).unwrap();
        let magic = bytes[..8].to_vec();
        let lock_page = u32::try_from((1_u64 << 30) / 4096 + 1).unwrap();
        bytes.extend(lock_page.to_be_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
        bytes.extend(name.bytes().map(u32::from).sum::<u32>().to_be_bytes());
        bytes.extend(magic);
        std::fs::write(&journal, bytes).unwrap();
        if !is_committed {
            std::fs::write(name, b"whatever\0").unwrap();
        }
        let before = std::fs::read(&it.path).unwrap();
        let read = it.rolled_back();
        assert_eq!(read == before, is_committed);
        drop(Connection::open(&it.path).unwrap().query_row("SELECT 1 FROM t", [], |_| Ok(())));
        assert!(read == std::fs::read(&it.path).unwrap(), "{is_committed}");
    }
}

#[test]
fn looking_at_a_file_with_a_hot_journal_sees_what_was_committed_and_changes_nothing() {
    let it = CutOff::new();
    let before = it.files();
    let elsewhere = TempDir::new().unwrap();
    let at = |name: &str| elsewhere.path().join(name);

    for kind in [CheckKind::Quick, CheckKind::Full] {
        let health = health::check(&it.path, kind, &NoProgress).unwrap();
        assert!(health.ok, "{health:?}");
        assert!(matches!(&health.findings[..], [one] if is_hot(one)), "{health:?}");
        assert!(health.pages > 0 && health.summary().contains("rolls it back"));
    }
    let info = file_info(&it.path, 3).unwrap();
    assert_eq!(info.error, None);
    assert_eq!(info.database.unwrap().pages, it.check().pages);
    let map = page_map(&it.path, &page_map::MapOptions::default(), &NoProgress).unwrap();
    assert_eq!((map.pages, map.damaged_pages), (it.check().pages, 0));
    backup_file::backup(
        &it.path,
        &at("backup"),
        &backup_file::BackupOptions::default(),
        &NoProgress,
    )
    .unwrap();
    assert_eq!(rows(&at("backup")), 3000);
    restore::restore(&at("restored"), &it.path, &restore::RestoreOptions::default(), &NoProgress)
        .unwrap();
    assert_eq!(rows(&at("restored")), 3000);
    let report =
        recover_to(&it.path, &at("rescued"), &RepairOptions::default(), &NoProgress).unwrap();
    assert_eq!(report.outcome, RepairOutcome::Salvaged);
    assert_eq!(rows(&at("rescued")), 3000);
    let look =
        health::before_open(&it.path, Startup::AtOnce(CheckKind::Full), |_| None, &NoProgress)
            .unwrap();
    assert!(look.health.is_some_and(|health| health.ok));
    assert!(before == it.files(), "{:?}", it.files().keys());
    assert_eq!(rows(&it.path), 3000);
}

#[test]
fn damage_below_a_hot_journal_is_found_and_repaired() {
    let it = CutOff::new();
    let sound = it.rolled_back();
    // A leaf that the journal does not hold is damaged for good; one that it holds is not.
    let leaf = |number: &u64| {
        let at = usize::try_from((number - 1) * 4096).unwrap();
        sound[at] == 13
    };
    let pages = sound.len() as u64 / 4096;
    let damaged = (2..=pages).rev().find(|number| {
        let byte = usize::try_from((number - 1) * 4096).unwrap();
        leaf(number)
            && std::fs::read(&it.path).unwrap()[byte..byte + 4096] == sound[byte..byte + 4096]
    });
    let damaged = damaged.expect("a leaf that was not changed yet");
    it.overwrite(damaged, 0xa5);
    let before = it.files();
    let health = it.check();
    assert!(!health.ok && is_hot(&health.findings[0]), "{health:?}");
    assert!(before == it.files());

    let report =
        repair::repair(&it.path, &RepairOptions::default(), &mut |_| (), &NoProgress).unwrap();
    assert_eq!(report.outcome, RepairOutcome::Salvaged, "{}", report.text);
    assert_eq!(report.steps[0].step, StepKind::HotJournal);
    assert!(it.check().ok && it.check().findings.is_empty());
    assert!(rows(&it.path) > 2900);
}

#[test]
fn a_repair_rolls_a_transaction_back_that_was_cut_off() {
    let it = CutOff::new();
    let report =
        repair::repair(&it.path, &RepairOptions::default(), &mut |_| (), &NoProgress).unwrap();
    assert_eq!(report.outcome, RepairOutcome::Healthy);
    assert!(matches!(&report.steps[..], [one] if one.step == StepKind::HotJournal && one.ok));
    assert!(report.text.contains("rolled back"), "{}", report.text);
    assert_eq!(it.files().into_keys().collect::<Vec<_>>(), ["x.db"]);
    assert_eq!(rows(&it.path), 3000);
}

#[test]
fn a_journal_that_is_not_hot_is_no_finding() {
    // One that ended transactions keep.
    engine::init().unwrap();
    for mode in ["PERSIST", "TRUNCATE"] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.db");
        let sql = Connection::open(&path).unwrap();
        sql.execute_batch(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (a)")).unwrap();
        assert!(folder.path().join("x.db-journal").exists());
        let health = health::check(&path, CheckKind::Full, &NoProgress).unwrap();
        assert!(health.ok && health.findings.is_empty(), "{health:?}");
        // One of a transaction under way, which has not changed the file yet.
        sql.execute_batch("BEGIN; INSERT INTO t VALUES (1)").unwrap();
        assert!(!matches!(Access::of(&path).unwrap(), Access::ThroughJournal(_)));
        let health = health::check(&path, CheckKind::Full, &NoProgress).unwrap();
        assert!(health.ok && health.findings.is_empty(), "{health:?}");
        sql.execute_batch("COMMIT").unwrap();
    }
}

#[test]
fn who_begins_to_write_ends_a_look_through_the_journal() {
    let it = CutOff::new();
    let reader = Reader::open(&it.path, Duration::ZERO).unwrap();
    assert!(matches!(reader.hot_journal(), Some(HotJournal { pages: 1.., .. })));
    assert!(reader.is_current());
    // A rollback alone makes the file what is read.
    assert_eq!(rows(&it.path), 3000);
    assert!(reader.is_current());
    Connection::open(&it.path).unwrap().execute_batch("DELETE FROM t WHERE id < 9").unwrap();
    assert!(!reader.is_current());
}

#[test]
fn a_rollback_waits_for_others_and_says_who_may_not_write() {
    let it = CutOff::new();
    // Somebody else is about to.
    let file = std::fs::File::options().read(true).write(true).open(&it.path).unwrap();
    let lock = libc::flock {
        l_type: libc::F_RDLCK as _,
        l_whence: libc::SEEK_SET as _,
        l_start: 0x4000_0002,
        l_len: 510,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the structure is complete.
    let locked = unsafe {
        libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&file), libc::F_OFD_SETLK, &raw const lock)
    };
    assert_eq!(locked, 0);
    let error = engine::roll_back(&it.path, Instant::now(), &NoProgress).unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    drop(file);
    let until = Instant::now() + Duration::from_secs(60);
    assert!(engine::roll_back(&it.path, until, &NoProgress).unwrap().is_some());
    assert_eq!(engine::roll_back(&it.path, until, &NoProgress).unwrap(), None);
}

#[test]
fn permissions_are_blamed_only_where_they_are_in_the_way() {
    let it = CutOff::new();
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let profile = engine::Profile::default();
    let error = engine::Connection::open_hardened(&it.path, flags, &profile).unwrap_err();
    assert_eq!(error.errcode, rusqlite::ffi::SQLITE_READONLY_ROLLBACK);
    assert!(error.message.contains("transaction was cut off"), "{error}");
    assert!(!error.message.contains("permission"), "{error}");

    // A user who may only read sees what was committed, and cannot repair.
    let readable = |path: &Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    readable(it.folder.path(), 0o755);
    readable(&it.path, 0o644);
    readable(&it.folder.path().join("x.db-journal"), 0o644);
    let before = it.files();
    let Some(lines) = as_nobody(&it.path) else { return };
    assert!(before == it.files());
    assert_eq!(lines[0], "checked true");
    assert!(lines[1].contains("has no permission to write"), "{lines:?}");
}

/// What [`child`] says of a file that it checks and repairs as a user whom permissions bind; none
/// where there is no such user, or it may not run this test.
fn as_nobody(path: &Path) -> Option<Vec<String>> {
    use std::os::unix::process::CommandExt;
    // SAFETY: no arguments, no memory.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, path)
        .env(MAY_ONLY_READ, "1")
        .uid(65_534)
        .gid(65_534)
        .output()
        .ok()?;
    let lines = String::from_utf8(child.stdout).unwrap();
    let told = lines.lines().filter_map(|line| line.split_once(MARK));
    Some(told.map(|(_, told)| told.to_owned()).collect())
}

const MAY_ONLY_READ: &str = "FUSION_TEST_HOT_JOURNAL_READS";
const ROLE: &str = "FUSION_TEST_HOT_JOURNAL_CHILD";
/// Begins a line for the parent among those of the test harness.
const MARK: char = '\u{1}';

struct Tells;

impl Progress for Tells {
    fn stage(&self, stage: Stage) {
        println!("{MARK}{}", stage.name);
        std::io::stdout().flush().unwrap();
    }

    fn check_cancelled(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn child() {
    let Some(path) = std::env::var_os(ROLE) else { return };
    let path = Path::new(&path);
    if std::env::var_os(MAY_ONLY_READ).is_some() {
        let health = health::check(path, CheckKind::Full, &NoProgress);
        println!("{MARK}checked {}", health.is_ok_and(|health| health.ok));
        let error =
            repair::repair(path, &RepairOptions::default(), &mut |_| (), &NoProgress).unwrap_err();
        println!("{MARK}{error}");
        return;
    }
    drop(repair::repair(path, &RepairOptions::default(), &mut |_| (), &Tells));
}

/// Repairs in another process, which is killed once it has said so often that it writes back. The
/// number of times that it did.
fn repair_and_kill(path: &Path, after: usize) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let lines = output.lines().map_while(Result::ok);
    let count = lines.filter(|line| line.ends_with("\u{1}writing back")).take(after).count();
    child.kill().unwrap();
    child.wait().unwrap();
    count
}

#[test]
fn a_repair_that_is_killed_while_it_writes_back_is_done_by_the_next_one() {
    let make = |mode: &str| {
        engine::init().unwrap();
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.db");
        let sql = Connection::open(&path).unwrap();
        sql.execute_batch(&format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE t (id INTEGER PRIMARY KEY, a);
             WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 6000)
             INSERT INTO t SELECT i, i || hex(zeroblob(1000)) FROM n;"
        ))
        .unwrap();
        drop(sql);
        // For what the first page says.
        let connection =
            engine::Connection::open(&path, rusqlite::OpenFlags::default(), Duration::ZERO)
                .unwrap();
        let snapshot = fusion_sqlite::recovery::snapshot_file::take(&connection).unwrap();
        drop(connection);
        fusion_sqlite::recovery::snapshot_file::write(&path, &snapshot).unwrap();
        let it = CutOff { folder, path };
        it.overwrite(1, 0x5a);
        it
    };
    let stages = repair_and_kill(&make("DELETE").path, usize::MAX);
    assert!(stages > 4, "{stages}");
    let mut hot = 0;
    for mode in ["DELETE", "WAL"] {
        for after in (1..=stages).step_by((stages / 4).max(1)) {
            let it = make(mode);
            repair_and_kill(&it.path, after);
            let before = it.files();
            let health = it.check();
            assert!(
                health.ok || health.findings.iter().any(Finding::is_damage),
                "{after}: {health:?}"
            );
            let is_hot = health.findings.iter().any(|it| matches!(it, Finding::HotJournal { .. }));
            hot += usize::from(is_hot);
            if is_hot {
                assert!(before == it.files());
            }
            let report =
                repair::repair(&it.path, &RepairOptions::default(), &mut |_| (), &NoProgress)
                    .unwrap();
            assert!(
                matches!(report.outcome, RepairOutcome::Healthy | RepairOutcome::Salvaged),
                "{after}: {}",
                report.text
            );
            assert_eq!(rows(&it.path), 6000, "{mode} {after}");
            assert!(it.check().ok);
        }
    }
    assert!(hot > 0, "no kill left a hot journal");
}
