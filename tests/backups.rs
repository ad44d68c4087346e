//! Backups and restores of databases that are in use, and the schema kept beside them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod second_process;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fusion_sqlite::agent_log::{self, Entries, Event, Listener};
use fusion_sqlite::engine::{Connection, Error, NoProgress, Profile, Progress, Stage};
use fusion_sqlite::health::{Finding, Health};
use fusion_sqlite::recovery::backup_file::{self, MadeBackup, backup};
use fusion_sqlite::recovery::backup_schedule::BackupDue;
use fusion_sqlite::recovery::restore::{self, Restored, restore};
use fusion_sqlite::recovery::rotation::{default_path, generations, newest_backups};
use fusion_sqlite::recovery::snapshot_file;
use rusqlite::OpenFlags;
use second_process::SecondProcess;

#[test]
fn serve() {
    second_process::serve();
}

fn sidecar_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn open(path: &Path) -> Connection {
    Connection::open_hardened(path, OpenFlags::default(), &Profile::default()).unwrap()
}

fn plain(path: &Path) -> Connection {
    Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO).unwrap()
}

fn run(connection: &Connection, sql: &str) {
    connection.sql().unwrap().execute_batch(sql).unwrap();
}

fn value<T: rusqlite::types::FromSql>(connection: &Connection, sql: &str) -> T {
    connection.sql().unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// What the database at `path` says of itself to a fresh connection, which leaves nothing behind.
fn content(path: &Path) -> (i64, i64, String) {
    let connection = plain(path);
    (
        value(&connection, "SELECT count(*) FROM t"),
        value(&connection, "SELECT n FROM total"),
        value(&connection, "PRAGMA integrity_check"),
    )
}

/// A database in a folder of its own, in WAL mode and open, with `rows` rows of about a page and a
/// count that each commit keeps equal to them.
struct Fixture {
    folder: tempfile::TempDir,
    path: PathBuf,
    connection: Connection,
}

impl Fixture {
    fn new(rows: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap().join("live.sqlite");
        let connection = open(&path);
        run(
            &connection,
            "CREATE TABLE t (x); CREATE TABLE total (n); INSERT INTO total VALUES (0);
             CREATE TRIGGER counts AFTER INSERT ON t BEGIN UPDATE total SET n = n + 1; END;
             CREATE INDEX by_x ON t (x)",
        );
        let fixture = Self { folder, path, connection };
        fixture.add(rows);
        fixture
    }

    fn add(&self, rows: u32) {
        run(
            &self.connection,
            &format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows})
                 INSERT INTO t SELECT randomblob(3000) FROM n"
            ),
        );
    }

    fn target(&self) -> PathBuf {
        default_path(&self.path)
    }

    fn backup(&self) -> Result<backup_file::BackupOutcome, Error> {
        backup(&self.path, &self.target(), &backup_file::BackupOptions::default(), &NoProgress)
    }

    fn made(&self) -> MadeBackup {
        made(self.backup())
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Overwrites the table's pages in the file, whose WAL is empty.
    fn damage(&self) {
        run(&self.connection, "PRAGMA wal_checkpoint(TRUNCATE)");
        let page: i64 =
            value(&self.connection, "SELECT rootpage FROM sqlite_schema WHERE name = 't'");
        scribble(&self.path, u64::try_from(page - 1).unwrap() * 4096, &[0x5a; 4096]);
    }
}

fn scribble(path: &Path, at: u64, bytes: &[u8]) {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[track_caller]
fn made(outcome: Result<backup_file::BackupOutcome, Error>) -> MadeBackup {
    match outcome.unwrap() {
        backup_file::BackupOutcome::Made(made) => made,
        backup_file::BackupOutcome::Damaged(health) => panic!("{health:?}"),
    }
}

#[track_caller]
fn refused(outcome: Result<backup_file::BackupOutcome, Error>) -> Health {
    match outcome.unwrap() {
        backup_file::BackupOutcome::Damaged(health) => health,
        backup_file::BackupOutcome::Made(made) => panic!("{made:?}"),
    }
}

fn put_back(path: &Path, from: &Path) -> Result<restore::RestoreOutcome, Error> {
    let options = restore::RestoreOptions { patience: Duration::ZERO, ..Default::default() };
    restore(path, from, &options, &NoProgress)
}

#[track_caller]
fn restored(outcome: Result<restore::RestoreOutcome, Error>) -> Restored {
    match outcome.unwrap() {
        restore::RestoreOutcome::Restored(restored) => restored,
        restore::RestoreOutcome::Damaged(health) => panic!("{health:?}"),
    }
}

/// Does something when a stage is under way, and may cancel it.
struct During<F>(&'static str, F);

impl<F: Fn(Stage) -> bool + Send + Sync> During<F> {
    fn new(stage: &'static str, goes_on: F) -> (Self, AtomicU64) {
        (Self(stage, goes_on), AtomicU64::new(0))
    }
}

struct Watch<F> {
    during: During<F>,
    cancelled: AtomicU64,
}

fn watch<F: Fn(Stage) -> bool + Send + Sync>(stage: &'static str, goes_on: F) -> Watch<F> {
    let (during, cancelled) = During::new(stage, goes_on);
    Watch { during, cancelled }
}

impl<F: Fn(Stage) -> bool + Send + Sync> Progress for Watch<F> {
    fn stage(&self, stage: Stage) {
        if stage.name == self.during.0 && !(self.during.1)(stage) {
            self.cancelled.store(1, Ordering::SeqCst);
        }
    }

    fn check_cancelled(&self) -> Result<(), Error> {
        match self.cancelled.load(Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(Error::cancelled()),
        }
    }
}

#[test]
fn a_backup_is_one_file_with_what_was_committed() {
    let fixture = Fixture::new(100);
    let result = fixture.made();
    assert!(result.verified);
    assert_eq!(result.path, fixture.target());
    assert_eq!(result.bytes, result.pages * 4096);
    assert_eq!(content(&fixture.target()), (100, 100, "ok".into()));
    let mode: String = value(&plain(&fixture.target()), "PRAGMA journal_mode");
    assert_eq!(mode, "delete");
    assert_eq!(
        fixture.names(),
        [
            "live.sqlite",
            "live.sqlite-schema",
            "live.sqlite-shm",
            "live.sqlite-wal",
            "live.sqlite.backup"
        ]
    );
}

#[test]
fn a_writer_neither_waits_for_a_backup_nor_starves_it() {
    let fixture = Fixture::new(300);
    let before = content(&fixture.path).0;
    let mut writer = SecondProcess::start();
    writer.open("w", &fixture.path);
    // Its timeout is 0: a commit that had to wait would fail.
    let writer = std::sync::Mutex::new(writer);
    let task = watch("copying", |_| {
        for _ in 0..3 {
            writer.lock().unwrap().sql("w", "INSERT INTO t VALUES (randomblob(300))").unwrap();
        }
        true
    });
    let options = backup_file::BackupOptions { rate: 10, ..Default::default() };
    let result = made(backup(&fixture.path, &fixture.target(), &options, &task));
    assert!(result.pages >= 300);
    let (rows, total, check) = content(&fixture.target());
    assert_eq!((rows, total, check.as_str()), (before, before, "ok"));
    let (rows, total, _) = content(&fixture.path);
    assert_eq!(rows, total);
    // Three for each step of ten pages, of which there was one pass and no second.
    let steps = i64::try_from(result.pages.div_ceil(10)).unwrap();
    assert!((before + 3 * (steps - 1)..=before + 3 * steps).contains(&rows), "{rows}");
}

#[test]
fn a_backup_of_a_database_that_another_process_hammers_is_consistent() {
    let fixture = Fixture::new(50);
    let mut writer = SecondProcess::start();
    let path = fixture.path.to_str().unwrap().to_owned();
    writer.send(&["insert-from-threads", &path, "2", "400"]);
    while content(&fixture.path).0 == 50 {
        std::thread::yield_now();
    }
    for _ in 0..3 {
        fixture.made();
        let (rows, total, check) = content(&fixture.target());
        assert_eq!((rows, check.as_str()), (total, "ok"));
        assert!(rows > 50);
    }
    writer.answer().unwrap();
    assert_eq!(content(&fixture.path), (850, 850, "ok".into()));
}

#[test]
fn generations_rotate_and_are_found_newest_first() {
    let fixture = Fixture::new(1);
    for rows in 2..6 {
        let result = fixture.made();
        assert!(result.kept.len() <= 1);
        fixture.add(1);
        assert_eq!(content(&fixture.target()).0, rows - 1);
    }
    let found = newest_backups(&fixture.path);
    assert_eq!(found, [fixture.target(), sidecar_path(&fixture.target(), ".1")]);
    assert_eq!(found.iter().map(|path| content(path).0).collect::<Vec<_>>(), [4, 3]);
}

#[test]
fn a_backup_is_due_when_the_newest_is_old_and_something_was_committed_since() {
    let fixture = Fixture::new(5);
    let long = Duration::from_secs(3600);
    let ask =
        |interval| BackupDue::ask(&fixture.path, &fixture.target(), interval, &NoProgress).unwrap();
    let is_due = |interval| matches!(ask(interval), BackupDue::Now(_));
    let BackupDue::Now(claim) = ask(long) else { panic!("there is none") };
    assert!(!is_due(long), "one at a time");
    drop(claim);
    let BackupDue::Now(claim) = ask(long) else { panic!("that one failed") };
    fixture.made();
    claim.made();
    assert!(!is_due(long) && !is_due(Duration::ZERO));
    // A checkpoint changes both files, and nothing in the database.
    run(&fixture.connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    assert!(!is_due(Duration::ZERO));
    let mut other = SecondProcess::start();
    other.open("o", &fixture.path);
    other.sql("o", "INSERT INTO t VALUES (1)").unwrap();
    assert!(!is_due(long) && is_due(Duration::ZERO));
    // A clock that was set back does not stop the backups.
    let future = std::time::SystemTime::now() + long;
    fs::File::options().write(true).open(fixture.target()).unwrap().set_modified(future).unwrap();
    assert!(is_due(long));
}

#[test]
fn a_process_killed_in_mid_backup_leaves_the_older_ones_and_no_half_one() {
    let fixture = Fixture::new(200);
    fixture.made();
    fixture.add(1);
    fixture.made();
    fixture.add(1);
    let path = fixture.path.to_str().unwrap().to_owned();
    let target = fixture.target().to_str().unwrap().to_owned();
    let partial = || fixture.names().iter().filter(|name| name.contains(".partial-")).count();
    let mut process = SecondProcess::start();
    process.ask(&["backup-until-killed", &path, &target, "copying"]).unwrap();
    assert_eq!(partial(), 1);
    process.kill();
    let found = newest_backups(&fixture.path);
    assert_eq!(found.iter().map(|path| content(path).0).collect::<Vec<_>>(), [201, 200]);
    assert_eq!(partial(), 1);
    fixture.made();
    assert_eq!(partial(), 0);
    let found = newest_backups(&fixture.path);
    assert_eq!(found.iter().map(|path| content(path).0).collect::<Vec<_>>(), [202, 201]);
}

#[test]
fn a_backup_under_way_is_not_swept_by_another() {
    let fixture = Fixture::new(50);
    let mut process = SecondProcess::start();
    let path = fixture.path.to_str().unwrap().to_owned();
    let target = fixture.target().to_str().unwrap().to_owned();
    process.ask(&["backup-until-killed", &path, &target, "copying"]).unwrap();
    fixture.made();
    assert_eq!(fixture.names().iter().filter(|name| name.contains(".partial-")).count(), 1);
    process.kill();
}

#[test]
fn a_damaged_source_is_told_and_costs_no_older_backup() {
    let fixture = Fixture::new(200);
    fixture.made();
    let good = fs::read(fixture.target()).unwrap();
    fixture.damage();
    let health = refused(fixture.backup());
    assert!(!health.ok && health.findings.iter().any(|finding| finding.is_damage()));
    assert_eq!(health.path, fixture.path);
    assert_eq!(fs::read(fixture.target()).unwrap(), good);
    assert_eq!(generations(&fixture.target()), [fixture.target()]);
    assert!(!fixture.names().iter().any(|name| name.contains(".partial-")));
    // Whoever checkpoints next looks first.
    assert!(fixture.connection.file().unwrap().is_unverified());
}

#[test]
fn a_damaged_full_text_index_is_reported_and_does_not_prevent_a_backup() {
    let fixture = Fixture::new(5);
    run(
        &fixture.connection,
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);
         CREATE VIRTUAL TABLE found USING fts5(body, content = 'notes', content_rowid = 'id');
         INSERT INTO notes (body) VALUES ('indexed');
         INSERT INTO found (rowid, body) VALUES (1, 'indexed');",
    );
    // The fixture's connection keeps shadow tables from being written to.
    rusqlite::Connection::open(&fixture.path)
        .unwrap()
        .execute_batch("UPDATE found_data SET block = zeroblob(length(block)) WHERE id > 10")
        .unwrap();
    let result = fixture.made();
    let health = result.health.unwrap();
    assert!(result.verified && !health.ok);
    assert!(
        health
            .findings
            .iter()
            .all(|finding| matches!(finding, Finding::FtsDamage { table, .. } if table == "found")),
        "{health:?}"
    );
    let (rows, indexed, _) = content(&fixture.target());
    assert_eq!((rows, indexed), (5, 5));
    restored(put_back(&fixture.path, &fixture.target()));
}

#[test]
fn a_source_without_a_header_is_damaged_and_one_that_is_missing_is_missing() {
    let fixture = Fixture::new(20);
    fixture.made();
    run(&fixture.connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    scribble(&fixture.path, 0, &[0xff; 4096]);
    refused(fixture.backup());
    assert_eq!(content(&fixture.target()).0, 20);

    let missing = fixture.folder.path().join("missing");
    let error =
        backup(&missing, &fixture.target(), &backup_file::BackupOptions::default(), &NoProgress);
    assert_eq!(error.unwrap_err().errcode & 0xff, 14);
    assert!(!missing.exists());
}

#[test]
fn a_target_that_must_not_be_replaced_is_not() {
    let fixture = Fixture::new(5);
    let to = |target: &Path| {
        backup(&fixture.path, target, &backup_file::BackupOptions::default(), &NoProgress)
            .unwrap_err()
            .code
    };
    assert_eq!(to(&fixture.path), "ERR_FUSION_SAME_FILE");
    #[cfg(unix)]
    {
        let link = fixture.folder.path().join("link");
        std::os::unix::fs::symlink(&fixture.path, &link).unwrap();
        assert_eq!(to(&link), "ERR_FUSION_SAME_FILE");
    }
    let letter = fixture.folder.path().join("letter");
    let text = "This is a letter and not a database. ".repeat(50);
    fs::write(&letter, &text).unwrap();
    assert_eq!(to(&letter), "ERR_FUSION_BACKUP_TARGET");
    assert_eq!(fs::read_to_string(&letter).unwrap(), text);

    let other = fixture.folder.path().join("other.sqlite");
    let opened = open(&other);
    run(&opened, "CREATE TABLE kept (x)");
    assert_eq!(to(&other), "ERR_FUSION_BACKUP_IN_USE");
    drop(opened);
    // Its WAL is there still, and belongs to it.
    assert_eq!(to(&other), "ERR_FUSION_BACKUP_IN_USE");
    assert_eq!(value::<i64>(&plain(&other), "SELECT count(*) FROM kept"), 0);
}

#[test]
fn a_cancelled_backup_leaves_everything_as_it_was() {
    let fixture = Fixture::new(300);
    fixture.made();
    let names = fixture.names();
    let task = watch("copying", |stage| stage.done < 100);
    let options = backup_file::BackupOptions { rate: 20, ..Default::default() };
    let error = backup(&fixture.path, &fixture.target(), &options, &task).unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_CANCELLED");
    assert_eq!(fixture.names(), names);
}

#[cfg(unix)]
#[test]
fn a_backup_is_as_private_as_its_database() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new(1);
    fs::set_permissions(&fixture.path, fs::Permissions::from_mode(0o600)).unwrap();
    fixture.made();
    for file in [fixture.target(), snapshot_file::path(&fixture.path)] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_restore_reaches_a_second_process_that_has_the_file_open() {
    let fixture = Fixture::new(100);
    let mut other = SecondProcess::start();
    other.open("reads", &fixture.path);
    other.open("waits", &fixture.path);
    fixture.made();
    fixture.add(11);
    run(&fixture.connection, "CREATE TABLE since (x); PRAGMA user_version = 7");
    assert_eq!(other.sql("waits", "SELECT count(*) FROM t").unwrap(), "111");
    other.sql("reads", "BEGIN").unwrap();
    assert_eq!(other.sql("reads", "SELECT count(*) FROM t").unwrap(), "111");

    let result = restored(put_back(&fixture.path, &fixture.target()));

    assert_eq!(other.sql("reads", "SELECT count(*) FROM t").unwrap(), "111");
    other.sql("reads", "COMMIT").unwrap();
    for (name, rows) in [("reads", "100"), ("waits", "101")] {
        assert_eq!(other.sql(name, "SELECT count(*) FROM t").unwrap(), rows);
        assert_eq!(other.sql(name, "PRAGMA user_version").unwrap(), "0");
        assert!(other.sql(name, "SELECT * FROM since").is_err());
        other.sql(name, "INSERT INTO t VALUES ('after')").unwrap();
    }
    assert_eq!(value::<i64>(&fixture.connection, "SELECT n FROM total"), 102);
    assert_eq!(content(&fixture.path), (102, 102, "ok".into()));
    assert_eq!(content(&fixture.target()), (100, 100, "ok".into()));

    let preserved = result.preserved.unwrap();
    let name = preserved.database.to_string_lossy().into_owned();
    assert!(name.contains("live.sqlite.before-restore-2"), "{name}");
    assert_eq!(content(&preserved.database), (111, 111, "ok".into()));
    assert_eq!(preserved.wal, None);
}

#[test]
fn a_restore_waits_for_a_writer_and_then_changes_nothing() {
    let fixture = Fixture::new(10);
    fixture.made();
    fixture.add(1);
    let names = fixture.names();
    let mut other = SecondProcess::start();
    other.open("w", &fixture.path);
    other.sql("w", "BEGIN IMMEDIATE").unwrap();
    let error = put_back(&fixture.path, &fixture.target()).unwrap_err();
    assert_eq!(error.errcode & 0xff, 5);
    assert!(error.message.contains("Nothing was changed"), "{error}");
    other.sql("w", "COMMIT").unwrap();
    assert_eq!(content(&fixture.path).0, 11);
    assert_eq!(fixture.names(), names);
}

#[test]
fn a_restore_that_is_cancelled_is_rolled_back() {
    for stage in ["preserving", "restoring"] {
        let fixture = Fixture::new(2500);
        fixture.made();
        fixture.add(1);
        let names = fixture.names();
        let task = watch(stage, |stage| stage.done == stage.total);
        let options = restore::RestoreOptions::default();
        let error = restore(&fixture.path, &fixture.target(), &options, &task).unwrap_err();
        assert_eq!(error.code, "ERR_FUSION_CANCELLED", "{stage}");
        assert_eq!(content(&fixture.path), (2501, 2501, "ok".into()));
        assert_eq!(fixture.names(), names);
    }
}

struct Deaf;

impl Listener for Deaf {
    fn event(&self, _: &Event) {}
}

#[test]
fn a_log_that_damage_had_stopped_goes_on_after_a_restore() {
    let fixture = Fixture::new(50);
    run(
        &fixture.connection,
        "CREATE TABLE agentLogEntries (id INTEGER PRIMARY KEY AUTOINCREMENT, taskId TEXT,
           timestamp TEXT, text TEXT, type TEXT, detail TEXT, agent TEXT)",
    );
    fixture.made();
    let file = fixture.connection.file().unwrap();
    let options =
        agent_log::LogOptions { change_counter: None, repair: false, ..Default::default() };
    let log = agent_log::open(file, options, false, Arc::new(Deaf)).unwrap();
    let mut row = Entries::default();
    row.push([Some(b"T"), Some(b"2026"), Some(b"kept"), Some(b"text"), None, None]);

    fixture.damage();
    file.suspect();
    log.append_one(&row).unwrap();
    let minute = Duration::from_secs(60);
    let error = log.flush(minute).unwrap_err();
    assert_eq!(error.errcode & 0xff, 11, "{error}");
    assert_eq!(log.stats().1, 1);

    restored(put_back(&fixture.path, &fixture.target()));
    agent_log::resume(file.id);
    log.flush(minute).unwrap();
    let kept: String = value(&fixture.connection, "SELECT text FROM agentLogEntries");
    assert_eq!(kept, "kept");
    assert_eq!(content(&fixture.path), (50, 50, "ok".into()));
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let fixture = Fixture::new(200);
    fixture.made();
    scribble(&fixture.target(), 4096 * 20, &[0x5a; 4096 * 20]);
    match put_back(&fixture.path, &fixture.target()).unwrap() {
        restore::RestoreOutcome::Damaged(health) => assert!(!health.ok),
        restore::RestoreOutcome::Restored(restored) => panic!("{restored:?}"),
    }
    scribble(&fixture.target(), 0, &[0xff; 4096]);
    assert!(matches!(
        put_back(&fixture.path, &fixture.target()),
        Ok(restore::RestoreOutcome::Damaged(_))
    ));
    assert_eq!(content(&fixture.path), (200, 200, "ok".into()));

    let empty = fixture.folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    assert_eq!(put_back(&fixture.path, &empty).unwrap_err().code, "ERR_FUSION_RESTORE_EMPTY");
    assert_eq!(put_back(&fixture.path, &fixture.path).unwrap_err().code, "ERR_FUSION_SAME_FILE");
    assert_eq!(content(&fixture.path), (200, 200, "ok".into()));
}

/// A database of its own kind to be restored from, with 40 rows.
fn foreign(folder: &Path, pragmas: &str) -> PathBuf {
    let path = folder.join("foreign.sqlite");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open(&path, flags, Duration::ZERO).unwrap();
    run(&connection, pragmas);
    run(
        &connection,
        "CREATE TABLE t (x); CREATE TABLE total (n); INSERT INTO total VALUES (40);
         CREATE TABLE gone (x); PRAGMA user_version = 9; PRAGMA application_id = 77;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40)
         INSERT INTO t (rowid, x) SELECT i * 1000, 'größer ' || i FROM n",
    );
    path
}

#[test]
fn a_backup_with_another_page_size_is_restored() {
    for size in [512, 65_536] {
        let fixture = Fixture::new(30);
        let mut other = SecondProcess::start();
        other.open("o", &fixture.path);
        assert_eq!(other.sql("o", "SELECT count(*) FROM t").unwrap(), "30");
        let from = foreign(fixture.folder.path(), &format!("PRAGMA page_size = {size}"));
        restored(put_back(&fixture.path, &from));
        assert_eq!(content(&fixture.path), (40, 40, "ok".into()));
        for (question, answer) in [
            ("SELECT x FROM t WHERE rowid = 7000", "größer 7"),
            ("PRAGMA user_version", "9"),
            ("PRAGMA application_id", "77"),
            ("PRAGMA page_size", "4096"),
            ("PRAGMA integrity_check", "ok"),
        ] {
            assert_eq!(other.sql("o", question).unwrap(), answer, "{question}");
        }
    }
}

#[test]
fn a_backup_in_wal_mode_is_restored_with_its_wal_and_left_as_it_is() {
    let fixture = Fixture::new(30);
    let from = foreign(fixture.folder.path(), "PRAGMA journal_mode = WAL");
    let user = open(&from);
    run(&user, "UPDATE total SET n = 41; INSERT INTO t VALUES ('in the WAL')");
    let wal = fs::metadata(sidecar_path(&from, "-wal")).unwrap().len();
    assert!(wal > 0);
    restored(put_back(&fixture.path, &from));
    assert_eq!(content(&fixture.path), (41, 41, "ok".into()));
    assert_eq!(fs::metadata(sidecar_path(&from, "-wal")).unwrap().len(), wal);
    user.checkpoint_on_close(true);
    drop(user);
    assert!(!sidecar_path(&from, "-wal").exists());
    restored(put_back(&fixture.path, &from));
    assert!(!sidecar_path(&from, "-wal").exists() && !sidecar_path(&from, "-shm").exists());
}

#[test]
fn another_encoding_is_restored_where_nobody_has_the_file_open_and_refused_where_it_is() {
    let fixture = Fixture::new(30);
    let from = foreign(fixture.folder.path(), "PRAGMA encoding = 'UTF-16le'");
    let error = put_back(&fixture.path, &from).unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_RESTORE_ENCODING");
    assert_eq!(content(&fixture.path), (30, 30, "ok".into()));

    let new = fixture.folder.path().join("new.sqlite");
    let result = restored(put_back(&new, &from));
    assert_eq!(result.preserved, None);
    assert_eq!(content(&new), (40, 40, "ok".into()));
    let encoding: String = value(&open(&new), "PRAGMA encoding");
    assert_eq!(encoding, "UTF-16le");
    // Both are UTF-16 now.
    run(&open(&new), "DELETE FROM t");
    restored(put_back(&new, &from));
    assert_eq!(content(&new), (40, 40, "ok".into()));
}

#[test]
fn a_database_that_is_gone_is_made_anew_and_a_wal_without_it_put_aside() {
    let fixture = Fixture::new(30);
    fixture.made();
    let new = fixture.folder.path().join("new.sqlite");
    let stale = b"frames of a database that is gone".repeat(100);
    fs::write(sidecar_path(&new, "-wal"), &stale).unwrap();
    restored(put_back(&new, &fixture.target()));
    assert_eq!(content(&new), (30, 30, "ok".into()));
    let aside = fixture
        .names()
        .into_iter()
        .find(|name| name.starts_with("new.sqlite.before-restore-") && name.ends_with("-wal"));
    let aside = fixture.folder.path().join(aside.unwrap());
    assert_eq!(fs::read(aside).unwrap(), stale);
}

#[test]
fn a_database_with_damaged_tables_or_schema_gets_the_backups_content() {
    for schema in [false, true] {
        let fixture = Fixture::new(200);
        fixture.made();
        let mut other = SecondProcess::start();
        other.open("o", &fixture.path);
        assert_eq!(other.sql("o", "SELECT n FROM total").unwrap(), "200");
        fixture.damage();
        if schema {
            scribble(&fixture.path, 100, &[0x5a; 1000]);
        }
        let result = restored(put_back(&fixture.path, &fixture.target()));
        assert_eq!(content(&fixture.path), (200, 200, "ok".into()));
        assert_eq!(other.sql("o", "SELECT count(*) FROM t").unwrap(), "200");
        assert!(result.preserved.unwrap().database.exists());
    }
}

#[test]
fn a_database_whose_first_page_is_gone_gets_the_backups_content() {
    for page_size in [4096, 1024] {
        let fixture = Fixture::new(50);
        let from = foreign(fixture.folder.path(), &format!("PRAGMA page_size = {page_size}"));
        let mut other = SecondProcess::start();
        other.open("o", &fixture.path);
        assert_eq!(other.sql("o", "SELECT n FROM total").unwrap(), "50");
        // The commit is in the WAL, and changes no first page there.
        run(&fixture.connection, "PRAGMA wal_checkpoint(TRUNCATE); UPDATE total SET n = 51");
        scribble(&fixture.path, 0, &[0xff; 4096]);
        let destroyed = fs::read(&fixture.path).unwrap();
        let options = restore::RestoreOptions::default();
        let result = restored(restore(&fixture.path, &from, &options, &NoProgress));
        assert_eq!(content(&fixture.path), (40, 40, "ok".into()));
        assert_eq!(other.sql("o", "SELECT n FROM total").unwrap(), "40");
        let preserved = result.preserved.unwrap();
        assert!(fs::read(preserved.database).unwrap() == destroyed);
    }
}

#[test]
fn the_schema_is_kept_with_each_backup_and_cut_in_half_it_is_no_snapshot() {
    let fixture = Fixture::new(3);
    fixture.made();
    let kept = snapshot_file::load(&fixture.path).unwrap();
    let names: Vec<_> = kept.schema.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["t", "total", "counts", "by_x"]);
    assert_eq!((kept.page_size, kept.encoding, kept.reserved), (4096, 1, 0));
    let cookie: u32 = value(&fixture.connection, "PRAGMA schema_version");
    assert_eq!(kept.schema_cookie, cookie);
    for entry in &kept.schema {
        let root: u32 = value(
            &fixture.connection,
            &format!("SELECT rootpage FROM sqlite_schema WHERE name = '{}'", entry.name),
        );
        assert_eq!(entry.root, root);
    }

    let file = snapshot_file::path(&fixture.path);
    let whole = fs::read(&file).unwrap();
    for cut in [0, 10, 40, whole.len() / 2, whole.len() - 2] {
        fs::write(&file, &whole[..cut]).unwrap();
        assert_eq!(snapshot_file::load(&fixture.path), None, "{cut}");
    }
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    fs::write(&file, changed).unwrap();
    assert_eq!(snapshot_file::load(&fixture.path), None);
    fs::remove_file(&file).unwrap();
    assert_eq!(snapshot_file::load(&fixture.path), None);
    fs::write(&file, whole).unwrap();
    assert_eq!(snapshot_file::load(&fixture.path), Some(kept));
}

#[test]
fn the_kept_schema_follows_the_database_and_outlives_what_is_lost_of_it() {
    let fixture = Fixture::new(3);
    let mut keeper = snapshot_file::Keeper::default();
    let names = || {
        let kept = snapshot_file::load(&fixture.path).unwrap();
        kept.schema.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert!(keeper.is_stale(0));
    keeper.look(&fixture.connection, 0);
    assert!(!keeper.is_stale(0) && keeper.is_stale(1));
    assert_eq!(names(), ["t", "total", "counts", "by_x"]);
    run(&fixture.connection, "CREATE VIEW v AS SELECT 1; PRAGMA user_version = 3");
    keeper.look(&fixture.connection, 1);
    assert_eq!(names(), ["t", "total", "counts", "by_x", "v"]);
    assert_eq!(snapshot_file::load(&fixture.path).unwrap().user_version, 3);

    // Dropped, an entry goes; lost, without the cookie's telling, it stays.
    run(&fixture.connection, "DROP VIEW v");
    keeper.look(&fixture.connection, 2);
    assert_eq!(names(), ["t", "total", "counts", "by_x"]);
    let unsafe_connection = plain(&fixture.path);
    let cookie: i64 = value(&unsafe_connection, "PRAGMA schema_version");
    run(
        &unsafe_connection,
        &format!(
            "PRAGMA writable_schema = 1; DELETE FROM sqlite_schema WHERE name = 'by_x';
             PRAGMA schema_version = {cookie}"
        ),
    );
    let fresh = plain(&fixture.path);
    snapshot_file::Keeper::default().look(&fresh, 0);
    assert_eq!(value::<i64>(&fresh, "SELECT count(*) FROM sqlite_schema"), 3);
    assert_eq!(names(), ["t", "total", "counts", "by_x"]);
}
