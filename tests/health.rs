//! What checks find in real files that were really damaged, and what they leave alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fusion_sqlite::engine::{self, Connection, Error, NoProgress, Progress, Result, Stage};
use fusion_sqlite::health::{
    self, CheckKind, Finding, Health, check, deleted_wal, inspect, put_wal_aside, under_way,
};
use rusqlite::OpenFlags;
use second_process::SecondProcess;
use tempfile::TempDir;

mod second_process;

#[test]
fn serve() {
    second_process::serve();
}

const PAGE: u64 = 4096;

/// A database in WAL mode, closed cleanly: `logs` with an index, `words` about it.
fn database(directory: &TempDir) -> PathBuf {
    // Before anything is open: it replaces the locks.
    engine::init().unwrap();
    let path = directory.path().join("fusion.db");
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE logs (id INTEGER PRIMARY KEY, task TEXT NOT NULL, text TEXT);
         CREATE INDEX logs_by_task ON logs (task, id);
         CREATE TABLE notes (id INTEGER PRIMARY KEY, log INTEGER REFERENCES logs (id));
         CREATE VIRTUAL TABLE words USING fts5(text, content='logs', content_rowid='id');
         CREATE TRIGGER inserted AFTER INSERT ON logs BEGIN
           INSERT INTO words (rowid, text) VALUES (new.id, new.text);
         END;
         CREATE TRIGGER deleted AFTER DELETE ON logs BEGIN
           INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
         END;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO logs SELECT i, 'FN-' || i % 17, 'entry number ' || i || hex(zeroblob(60)) FROM n;",
    )
    .unwrap();
    drop(sql);
    assert!(!sidecar_path(&path, "-wal").exists(), "closed cleanly");
    path
}

fn sidecar_path(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn full(path: &Path) -> Health {
    check(path, CheckKind::Full, &NoProgress).unwrap()
}

fn quick(path: &Path) -> Health {
    check(path, CheckKind::Quick, &NoProgress).unwrap()
}

fn sql(path: &Path, statements: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(statements).unwrap();
}

/// Pages of the b-tree `name`, by SQLite's own account.
fn pages_of(path: &Path, name: &str) -> Vec<u32> {
    let sql = rusqlite::Connection::open(path).unwrap();
    let mut statement =
        sql.prepare("SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf'").unwrap();
    statement.query_map([name], |row| row.get(0)).unwrap().map(|row| row.unwrap()).collect()
}

fn overwrite(path: &Path, page: u32, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(u64::from(page - 1) * PAGE)).unwrap();
    file.write_all(bytes).unwrap();
}

fn page(path: &Path, page: u32) -> Vec<u8> {
    let mut bytes = vec![0; PAGE as usize];
    let mut file = File::open(path).unwrap();
    file.seek(SeekFrom::Start(u64::from(page - 1) * PAGE)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_sound_file_is_found_sound_and_left_as_it_was() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let before = fs::read(&path).unwrap();
    for health in [quick(&path), full(&path)] {
        assert!(health.ok, "{health:?}");
        assert_eq!(health.findings, []);
        assert_eq!((health.pages * PAGE, health.page_size), (before.len() as u64, 4096));
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no -wal, no -shm: {left:?}");
}

#[test]
fn a_file_that_is_not_there_is_not_made() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("none.db");
    let error = check(&path, CheckKind::Full, &NoProgress).unwrap_err();
    assert_eq!((error.code, error.errcode), ("ERR_SQLITE_ERROR", 14));
    assert!(!path.exists());
}

#[test]
fn a_table_that_lost_pages_is_named_with_them() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let lost = &pages_of(&path, "logs")[3..6];
    for number in lost {
        overwrite(&path, *number, &[0x5a; PAGE as usize]);
    }
    for health in [quick(&path), full(&path)] {
        assert!(!health.ok);
        // The index has more entries now than the table.
        let [Finding::TableDamage { table, pages, lines }, Finding::IndexDamage { .. }] =
            &health.findings[..]
        else {
            panic!("{health:?}");
        };
        assert_eq!((table.as_str(), &pages[..]), ("logs", lost));
        assert!(lines[0].contains("btreeInitPage() returns error code 11"), "{lines:?}");
    }
}

#[test]
fn an_index_out_of_step_is_named_and_its_table_is_not_blamed() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let leaves: Vec<_> =
        pages_of(&path, "logs_by_task").into_iter().map(|leaf| (leaf, page(&path, leaf))).collect();
    sql(&path, "DELETE FROM logs WHERE id = 2");
    let changed = leaves.iter().find(|(leaf, old)| page(&path, *leaf) != *old).unwrap();
    overwrite(&path, changed.0, &changed.1);
    let health = full(&path);
    let [Finding::IndexDamage { index, table, lines, .. }] = &health.findings[..] else {
        panic!("{health:?}");
    };
    assert_eq!((index.as_str(), table.as_str()), ("logs_by_task", "logs"));
    assert!(!lines.is_empty());
}

/// `statements` in a database whose application has a function and a collation of its own.
fn sql_of_an_application(path: &Path, statements: &str) {
    use rusqlite::functions::FunctionFlags;
    let sql = rusqlite::Connection::open(path).unwrap();
    let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    sql.create_scalar_function("grade", 1, flags, |call| Ok(call.get::<String>(0)?.len() as i64))
        .unwrap();
    sql.create_collation("backwards", |one, other| other.cmp(one)).unwrap();
    sql.execute_batch(statements).unwrap();
}

#[test]
fn what_only_the_application_knows_hides_no_damage_and_is_none() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    sql_of_an_application(
        &path,
        "CREATE TABLE graded (id INTEGER PRIMARY KEY, text TEXT COLLATE backwards CHECK (grade(text) > 3),
                              grade INT AS (grade(text)) STORED);
         CREATE INDEX graded_by_grade ON graded (grade(text), text);
         CREATE INDEX graded_by_text ON graded (text) WHERE grade(text) > 7;
         CREATE TABLE ordered (text TEXT COLLATE backwards PRIMARY KEY) WITHOUT ROWID;
         INSERT INTO graded (id, text) SELECT id, substr(text, 1, 60 + id % 7) FROM logs;
         INSERT INTO ordered SELECT text || id FROM graded",
    );
    for health in [quick(&path), full(&path)] {
        assert!(health.ok, "{health:?}");
    }
    for name in ["graded", "graded_by_text", "ordered"] {
        let pages = pages_of(&path, name);
        let leaf = pages[pages.len() / 2];
        let was = page(&path, leaf);
        overwrite(&path, leaf, &[0; PAGE as usize]);
        for health in [quick(&path), full(&path)] {
            let named = health.findings.iter().any(|finding| match finding {
                Finding::TableDamage { table, pages, .. } => table == name && pages.contains(&leaf),
                Finding::IndexDamage { index, pages, .. } => index == name && pages.contains(&leaf),
                _ => false,
            });
            assert!(named && health.findings.len() == 1, "{name} {leaf}: {health:?}");
        }
        overwrite(&path, leaf, &was);
    }
}

#[test]
fn a_full_text_index_that_its_table_outran_is_stale() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    assert!(full(&path).ok);
    sql(&path, "INSERT OR REPLACE INTO logs VALUES (7, 'FN-7', 'other words')");
    assert!(quick(&path).ok, "SQLite itself does not compare");
    let health = full(&path);
    assert!(health.ok, "its text is another's: {health:?}");
    assert!(is_stale(&health, "words", 0, 0), "{health:?}");
    sql(&path, "INSERT INTO words (words) VALUES ('rebuild')");
    assert!(full(&path).ok);
}

/// Whether nothing is found but that this full-text index is not up to date.
fn is_stale(health: &Health, name: &str, rows_gone: u64, rows_left_out: u64) -> bool {
    let [Finding::FtsStale { table, gone, left_out, lines }] = &health.findings[..] else {
        return false;
    };
    health.ok
        && table == name
        && (*gone, *left_out) == (rows_gone, Some(rows_left_out))
        && !lines.is_empty()
}

/// FTS5's own word for the index `words`.
fn fts5_agrees(path: &Path) -> bool {
    let sql = rusqlite::Connection::open(path).unwrap();
    sql.execute_batch("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)").is_ok()
}

#[test]
fn a_full_text_index_that_miscounts_is_stale() {
    for (change, agrees) in [
        ("DELETE FROM logs WHERE id > 2990", true),
        ("INSERT INTO logs VALUES (4000, 'FN-1', 'one more')", true),
        // The same words once more: no delete trigger fires for what is replaced.
        (
            "INSERT OR REPLACE INTO logs VALUES (7, 'FN-7', (SELECT text FROM logs WHERE id = 7))",
            false,
        ),
        ("UPDATE words_docsize SET sz = x'09' WHERE id = 7", false),
        ("DELETE FROM words_docsize WHERE id = 7", false),
        ("INSERT INTO words_docsize VALUES (5000, x'02')", false),
        ("UPDATE words_data SET block = x'01' WHERE id = 1", false),
    ] {
        let directory = TempDir::new().unwrap();
        let path = database(&directory);
        sql(&path, change);
        assert_eq!(fts5_agrees(&path), agrees, "{change}");
        let health = full(&path);
        let is_stale =
            matches!(&health.findings[..], [Finding::FtsStale { table, .. }] if table == "words");
        assert!(health.ok && is_stale != agrees, "{change}: {health:?}");
        sql(&path, "INSERT INTO words (words) VALUES ('rebuild')");
        assert!(full(&path).ok, "{change}");
    }
}

#[test]
fn rows_that_refer_to_none_are_no_damage() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    sql(&path, "PRAGMA foreign_keys = OFF; INSERT INTO notes VALUES (1, 1), (2, 9999), (3, 8888)");
    let health = full(&path);
    assert!(health.ok);
    assert_eq!(
        health.findings,
        [Finding::ForeignKeyViolations {
            table: "notes".to_owned(),
            parent: "logs".to_owned(),
            rows: 2,
            rowids: vec![2, 3],
        }]
    );
}

#[test]
fn a_first_page_of_something_else_is_not_a_database() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    overwrite(&path, 1, &[0x20; PAGE as usize]);
    let health = full(&path);
    assert!(matches!(&health.findings[..], [Finding::NotADatabase { .. }]), "{health:?}");
    assert!(!health.ok);
}

#[test]
fn a_file_that_was_cut_short_says_by_how_much() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let pages = fs::metadata(&path).unwrap().len() / PAGE;
    OpenOptions::new().write(true).open(&path).unwrap().set_len((pages - 5) * PAGE).unwrap();
    let health = full(&path);
    assert!(
        matches!(&health.findings[0], Finding::Truncated { missing_pages: 5, .. }),
        "{health:?}"
    );
}

/// Another process commits `statements` to the file and is killed: they are in the WAL.
fn left_in_wal(path: &Path, statements: &[&str]) {
    let mut other = SecondProcess::start();
    other.open("db", path);
    other.sql("db", "PRAGMA wal_autocheckpoint = 0").unwrap();
    for statement in statements {
        other.sql("db", statement).unwrap();
    }
    other.kill();
    assert!(fs::metadata(sidecar_path(path, "-wal")).unwrap().len() > 0);
}

/// A database whose WAL belongs to an older one: what a restore leaves behind that replaces the
/// file alone.
fn with_a_stale_wal(directory: &TempDir) -> PathBuf {
    let path = database(directory);
    left_in_wal(
        &path,
        &[
            "UPDATE logs SET text = text || ' again', task = 'FN-' || id % 5",
            "DELETE FROM logs WHERE id < 500",
        ],
    );
    let restored = directory.path().join("restored.db");
    let sql = rusqlite::Connection::open(&restored).unwrap();
    sql.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL;
         CREATE TABLE other (a, b); CREATE TABLE logs (id INTEGER PRIMARY KEY, text);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000)
         INSERT INTO other SELECT i, hex(randomblob(50)) FROM n;
         INSERT INTO logs SELECT a, b FROM other",
    )
    .unwrap();
    drop(sql);
    fs::rename(restored, &path).unwrap();
    fs::remove_file(sidecar_path(&path, "-shm")).unwrap();
    path
}

#[test]
fn a_wal_of_another_file_is_told_from_damage() {
    let directory = TempDir::new().unwrap();
    let path = with_a_stale_wal(&directory);
    let wal = fs::read(sidecar_path(&path, "-wal")).unwrap();
    let before = fs::read(&path).unwrap();
    for health in [quick(&path), full(&path)] {
        let [Finding::StaleWal { bytes, lines }] = &health.findings[..] else {
            panic!("{health:?}");
        };
        assert_eq!(*bytes, wal.len() as u64);
        assert!(!lines.is_empty() && !health.ok);
    }
    assert!(fs::read(&path).unwrap() == before, "nothing was applied");
    assert!(fs::read(sidecar_path(&path, "-wal")).unwrap() == wal);
}

#[test]
fn a_stale_wal_is_put_aside_whole_and_the_file_is_sound_then() {
    let directory = TempDir::new().unwrap();
    let path = with_a_stale_wal(&directory);
    let wal = fs::read(sidecar_path(&path, "-wal")).unwrap();
    let before = fs::read(&path).unwrap();
    let aside = put_wal_aside(&path, false).unwrap();
    let name = aside.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("fusion.db-wal.stale-2") && name.ends_with('Z'), "{name}");
    assert!(fs::read(&aside).unwrap() == wal, "kept as it was");
    assert!(fs::read(&path).unwrap() == before);
    assert!(full(&path).ok);
    assert_eq!(count(&path, "other"), 9000);
}

#[test]
fn a_stale_wal_stays_while_another_process_has_the_file_open() {
    let directory = TempDir::new().unwrap();
    let path = with_a_stale_wal(&directory);
    let mut other = SecondProcess::start();
    other.open("db", &path);
    // It has looked at the file, as any opener does.
    drop(other.sql("db", "PRAGMA schema_version"));
    let error = put_wal_aside(&path, false).unwrap_err();
    assert_eq!(error.errcode, 5, "{error}");
    // A plain close would apply it.
    other.kill();
    assert!(sidecar_path(&path, "-wal").exists());
}

/// The file was replaced under a process that has the old one open, and goes on writing to its WAL.
#[cfg(target_os = "linux")]
#[test]
fn a_wal_stays_while_another_process_has_the_file_open_that_it_belongs_to() {
    let directory = TempDir::new().unwrap();
    let path = with_a_stale_wal(&directory);
    let (new, wal) = (fs::read(&path).unwrap(), fs::read(sidecar_path(&path, "-wal")).unwrap());
    let other_directory = TempDir::new().unwrap();
    let old = database(&other_directory);
    fs::copy(&old, &path).unwrap();
    fs::remove_file(sidecar_path(&path, "-wal")).unwrap();
    let mut other = SecondProcess::start();
    other.open("db", &path);
    other.sql("db", "PRAGMA wal_autocheckpoint = 0").unwrap();
    other.sql("db", "INSERT INTO notes VALUES (1, 1)").unwrap();
    // As a checkout does it: another file, by the same name.
    let restored = directory.path().join("restored.db");
    fs::write(&restored, new).unwrap();
    fs::rename(&restored, &path).unwrap();
    let live = fs::read(sidecar_path(&path, "-wal")).unwrap();
    assert!(!live.is_empty());
    for asked in [false, true] {
        let error = put_wal_aside(&path, asked).unwrap_err();
        assert!([0, 5].contains(&error.errcode), "{error}");
    }
    // A WAL that is in the way without doubt, but is in use.
    File::options().write(true).open(sidecar_path(&path, "-wal")).unwrap().write_all(&wal).unwrap();
    assert_eq!(put_wal_aside(&path, true).unwrap_err().errcode, 5);
    assert!(fs::read(sidecar_path(&path, "-wal")).unwrap().starts_with(&wal));
    other.kill();
}

/// Each frame of a file's own WAL in turn: damaged in place, damaged before it was written, torn in
/// its middle; with a file that has nothing of the WAL, and one that has all of it.
#[test]
fn a_files_own_wal_with_a_damaged_frame_is_never_moved_unasked() {
    use fusion_sqlite::format::wal::{FRAME_HEADER, Frame, HEADER, WalHeader};
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    left_in_wal(
        &path,
        &[
            "UPDATE logs SET text = 'other ' || id, task = 'FN-' || id % 5 WHERE id > 2700",
            "DELETE FROM logs WHERE id < 30",
            "INSERT INTO notes SELECT id, id FROM logs",
        ],
    );
    let wal = fs::read(sidecar_path(&path, "-wal")).unwrap();
    let begun = fs::read(&path).unwrap();
    let whole = {
        let copy = directory.path().join("copy.db");
        fs::copy(&path, &copy).unwrap();
        fs::copy(sidecar_path(&path, "-wal"), sidecar_path(&copy, "-wal")).unwrap();
        sql(&copy, "PRAGMA wal_checkpoint(TRUNCATE)");
        fs::read(&copy).unwrap()
    };
    let header = WalHeader::parse(&wal).unwrap();
    let size = FRAME_HEADER + header.page_size as usize;
    let count = (wal.len() - HEADER) / size;
    assert!(count > 20);
    let (mut unclear, mut broken) = (0, 0);
    for frame in 0..count {
        for (way, file) in [(0, &begun), (0, &whole), (1, &begun), (2, &begun)] {
            let mut damaged = wal.clone();
            let mut sums = header.checksum;
            for (number, bytes) in damaged[HEADER..].chunks_exact_mut(size).enumerate() {
                let from = if way == 1 { FRAME_HEADER } else { FRAME_HEADER + size / 2 };
                if number == frame {
                    bytes[from..].fill(0x5a);
                }
                if way != 0 {
                    sums = Frame::sum(bytes, sums, header.big_endian).unwrap();
                    bytes[16..20].copy_from_slice(&sums.0.to_be_bytes());
                    bytes[20..24].copy_from_slice(&sums.1.to_be_bytes());
                }
            }
            drop(fs::remove_file(sidecar_path(&path, "-shm")));
            fs::write(&path, file).unwrap();
            fs::write(sidecar_path(&path, "-wal"), &damaged).unwrap();
            let health = quick(&path);
            let of = |name: fn(&Finding) -> bool| health.findings.iter().any(name);
            assert!(!of(|it| matches!(it, Finding::StaleWal { .. })), "{frame}, {way}: {health:?}");
            unclear += usize::from(of(|it| matches!(it, Finding::UnclearWal { .. })));
            broken += usize::from(!health.ok);
            assert_eq!(put_wal_aside(&path, false).unwrap_err().code, "ERR_INVALID_STATE");
            assert!(fs::read(sidecar_path(&path, "-wal")).unwrap() == damaged, "{frame}, {way}");
            assert!(fs::read(&path).unwrap() == *file, "{frame}, {way}");
        }
    }
    assert!(unclear > count && broken >= unclear, "{unclear} of {broken} and {count}");
}

#[test]
fn a_wal_that_makes_the_file_whole_is_kept_and_not_put_aside() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    // A checkpoint that a power cut interrupted: the file has some of the pages, the WAL has all.
    left_in_wal(&path, &["UPDATE logs SET task = task || hex(randomblob(20))"]);
    for number in pages_in_wal(&path).into_iter().filter(|number| *number > 1).take(3) {
        overwrite(&path, number, &[0; PAGE as usize]);
    }
    let health = full(&path);
    assert!(health.ok, "{health:?}");
    let error = put_wal_aside(&path, false).unwrap_err();
    assert_eq!(error.code, "ERR_INVALID_STATE");
    assert_eq!(count(&path, "logs"), 3000);
}

#[test]
fn damage_that_the_wal_has_no_part_in_is_no_stale_wal() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let lost = pages_of(&path, "logs")[5];
    left_in_wal(&path, &["INSERT INTO notes VALUES (1, 1)"]);
    overwrite(&path, lost, &[0x5a; PAGE as usize]);
    let health = full(&path);
    assert!(
        matches!(&health.findings[0], Finding::TableDamage { table, .. } if table == "logs"),
        "{health:?}"
    );
    assert_eq!(put_wal_aside(&path, false).unwrap_err().code, "ERR_INVALID_STATE");
}

#[test]
fn a_wal_that_was_deleted_is_missed_with_the_frames_that_it_had() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    left_in_wal(&path, &["INSERT INTO notes VALUES (1, 1)", "INSERT INTO notes VALUES (2, 2)"]);
    fs::remove_file(sidecar_path(&path, "-wal")).unwrap();
    assert_eq!(deleted_wal(&path), Some(Finding::WalDeleted { frames: Some(2) }));

    let other = TempDir::new().unwrap();
    let path = database(&other);
    left_in_wal(&path, &["INSERT INTO notes VALUES (1, 1)"]);
    fs::remove_file(sidecar_path(&path, "-wal")).unwrap();
    let health = full(&path);
    assert_eq!(health.findings, [Finding::WalDeleted { frames: Some(1) }]);
    assert!(health.ok, "what is left is in order");
}

#[test]
fn a_wal_that_was_deleted_after_its_checkpoint_is_not_missed() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    left_in_wal(&path, &["INSERT INTO notes VALUES (1, 1)", "PRAGMA wal_checkpoint"]);
    fs::remove_file(sidecar_path(&path, "-wal")).unwrap();
    assert_eq!(full(&path).findings, []);
    assert_eq!(count(&path, "notes"), 1);
}

#[test]
fn a_wal_that_was_deleted_under_another_process_is_missed_too() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let mut other = SecondProcess::start();
    other.open("db", &path);
    other.sql("db", "INSERT INTO notes VALUES (1, 1)").unwrap();
    fs::remove_file(sidecar_path(&path, "-wal")).unwrap();
    assert_eq!(deleted_wal(&path), Some(Finding::WalDeleted { frames: None }));
}

#[test]
fn a_file_that_somebody_holds_is_locked_and_not_damaged() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    sql(&path, "PRAGMA journal_mode = DELETE");
    let mut other = SecondProcess::start();
    other.open("db", &path);
    other.sql("db", "BEGIN EXCLUSIVE").unwrap();
    let health = quick(&path);
    assert!(matches!(&health.findings[..], [Finding::Locked { .. }]), "{health:?}");
    assert!(!health.ok && !health.findings[0].is_damage());
    other.sql("db", "ROLLBACK").unwrap();
    assert!(quick(&path).ok);
}

#[test]
fn a_file_that_was_replaced_under_this_process_is_told() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let open = Connection::open(&path, OpenFlags::default(), std::time::Duration::ZERO).unwrap();
    // The connection that reads has the -wal and the -shm open, which the new file would get.
    open.sql().unwrap().query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).unwrap();
    let copy = directory.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    let health = full(&path);
    assert!(matches!(&health.findings[..], [Finding::Replaced { .. }]), "{health:?}");
    drop(open);
    assert!(full(&path).ok);
}

fn count(path: &Path, table: &str) -> i64 {
    let sql = rusqlite::Connection::open(path).unwrap();
    sql.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Pages that the WAL holds, by the format's description: headers of 24 bytes before pages.
fn pages_in_wal(path: &Path) -> Vec<u32> {
    let wal = fs::read(sidecar_path(path, "-wal")).unwrap();
    let mut pages: Vec<u32> = wal[32..]
        .chunks_exact(24 + PAGE as usize)
        .map(|frame| u32::from_be_bytes(frame[..4].try_into().unwrap()))
        .collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// Notes what it is told, and can be told to end.
#[derive(Default)]
struct Observer {
    end: AtomicBool,
    asked: AtomicU64,
    stages: Mutex<Vec<Stage>>,
}

impl Progress for Observer {
    fn stage(&self, stage: Stage) {
        self.stages.lock().unwrap().push(stage);
    }

    fn check_cancelled(&self) -> Result<()> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.end.load(Ordering::SeqCst) { Err(Error::cancelled()) } else { Ok(()) }
    }
}

/// Large enough that a check of it takes a while.
fn large(directory: &TempDir) -> PathBuf {
    let path = database(directory);
    sql(
        &path,
        "CREATE TABLE bulk (id INTEGER PRIMARY KEY, text);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
         INSERT INTO bulk SELECT i, hex(randomblob(400)) FROM n;
         CREATE INDEX bulk_by_text ON bulk (text)",
    );
    path
}

#[test]
fn callers_share_a_check_and_each_may_leave_it() {
    let directory = TempDir::new().unwrap();
    let path = large(&directory);
    let (stays, leaves) = (Observer::default(), Observer::default());
    std::thread::scope(|scope| {
        let staying = scope.spawn(|| check(&path, CheckKind::Full, &stays));
        until(|| under_way(&path) == (1, 1));
        let leaving = scope.spawn(|| check(&path, CheckKind::Quick, &leaves));
        until(|| under_way(&path).1 == 2);
        assert_eq!(under_way(&path).0, 1, "the full check answers for a quick one");
        leaves.end.store(true, Ordering::SeqCst);
        assert_eq!(leaving.join().unwrap().unwrap_err().code, "ERR_FUSION_CANCELLED");
        let health = staying.join().unwrap().unwrap();
        assert!(health.ok && health.kind == CheckKind::Full);
    });
    let stages = stays.stages.lock().unwrap();
    assert!(stages.iter().all(|stage| stage.done <= stage.total), "{stages:?}");
    assert!(stages.len() > 1);
}

#[test]
fn a_check_ends_when_nobody_waits_for_it() {
    let directory = TempDir::new().unwrap();
    let path = large(&directory);
    let caller = Observer::default();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| check(&path, CheckKind::Full, &caller));
        until(|| !caller.stages.lock().unwrap().is_empty());
        caller.end.store(true, Ordering::SeqCst);
        assert_eq!(waiting.join().unwrap().unwrap_err().code, "ERR_FUSION_CANCELLED");
    });
    until(|| under_way(&path).0 == 0);
}

/// Gives way until it is so; a test that waits in vain is ended from outside.
fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

#[test]
fn an_inspection_sees_its_own_transaction_and_leaves_it_open() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let open = Connection::open(&path, OpenFlags::default(), std::time::Duration::ZERO).unwrap();
    let sql = open.sql().unwrap();
    sql.execute_batch("BEGIN IMMEDIATE; INSERT OR REPLACE INTO logs VALUES (9, 'FN-9', 'other')")
        .unwrap();
    let stale = inspect(&open, CheckKind::Full, &NoProgress).unwrap();
    assert!(is_stale(&stale, "words", 0, 0), "{stale:?}");
    sql.execute_batch("INSERT INTO words (words) VALUES ('rebuild')").unwrap();
    assert!(inspect(&open, CheckKind::Full, &NoProgress).unwrap().ok);
    assert!(!open.is_autocommit());
    sql.execute_batch("ROLLBACK").unwrap();
    assert!(inspect(&open, CheckKind::Full, &NoProgress).unwrap().ok);
    assert!(open.is_autocommit());
}

/// Everything that a schema may hold, each with rows.
const EVERYTHING: &str = "
    PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
    CREATE TABLE \"it's \"\"a\"\" table.name\" (id INTEGER PRIMARY KEY AUTOINCREMENT, \"a,b\" TEXT NOT NULL);
    CREATE TABLE keyed (k TEXT, v, PRIMARY KEY (k DESC)) WITHOUT ROWID;
    CREATE INDEX keyed_v ON keyed (v) WHERE v IS NOT NULL;
    CREATE TABLE made (a INT, b INT AS (a * 2) VIRTUAL, c INT AS (a * 3) STORED, CHECK (a > 0)) STRICT;
    CREATE UNIQUE INDEX made_b ON made (b, lower(c));
    CREATE VIEW seen AS SELECT id AS rowid, \"a,b\" AS text FROM \"it's \"\"a\"\" table.name\";
    CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, +note);
    CREATE VIRTUAL TABLE own5 USING fts5(text, tokenize = 'porter unicode61');
    CREATE VIRTUAL TABLE none5 USING fts5(text, content='');
    CREATE VIRTUAL TABLE gone5 USING fts5(text, content='', contentless_delete=1);
    CREATE VIRTUAL TABLE own4 USING fts4(text);
    CREATE VIRTUAL TABLE own3 USING fts3(text);
    INSERT INTO \"it's \"\"a\"\" table.name\" (\"a,b\") VALUES ('eins zwei'), ('drei'), (''), ('eins ünf');
    INSERT INTO keyed VALUES ('a', 1), ('b', NULL); INSERT INTO made (a) VALUES (1), (2);
    INSERT INTO box VALUES (1, 0, 1, 'n'), (2, 3, 4, 'm');
    INSERT INTO own5 VALUES ('running words'); INSERT INTO none5 (rowid, text) VALUES (1, 'x y');
    INSERT INTO gone5 (rowid, text) VALUES (1, 'x'), (2, 'y'); DELETE FROM gone5 WHERE rowid = 1;
    INSERT INTO own4 VALUES ('four'); INSERT INTO own3 VALUES ('three');
";

#[test]
fn whatever_a_sound_schema_holds_nothing_is_found_in_it() {
    engine::init().unwrap();
    let directory = TempDir::new().unwrap();
    for (number, encoding) in ["UTF-8", "UTF-16le", "UTF-16be"].iter().enumerate() {
        for page_size in [512, 4096, 65_536] {
            let path = directory.path().join(format!("{number}-{page_size}.db"));
            let settings =
                format!("PRAGMA encoding = '{encoding}'; PRAGMA page_size = {page_size};");
            sql(&path, &format!("{settings}{EVERYTHING}"));
            let health = full(&path);
            assert_eq!(health.findings, [], "{encoding}, {page_size}");
            assert!(health.ok && health.page_size == page_size);
        }
    }
}

#[test]
fn every_kind_of_external_full_text_index_is_compared_with_its_text() {
    engine::init().unwrap();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("fts.db");
    sql(&path, EVERYTHING);
    let table = "\"it's \"\"a\"\" table.name\"";
    let kinds = [
        "content='seen'",
        "content=seen, detail=none",
        "content=[seen], detail = column, columnsize=0",
        "content=\"seen\", prefix='1 2', tokenize='trigram'",
        "content=seen, content_rowid=rowid, tokenize=\"unicode61 tokenchars '()'\"",
    ];
    for kind in kinds {
        sql(
            &path,
            &format!(
                "CREATE VIRTUAL TABLE \"w, '1'\" USING fts5(text, {kind});
                 INSERT INTO \"w, '1'\" (rowid, text) SELECT rowid, text FROM seen"
            ),
        );
        let health = full(&path);
        assert_eq!(health.findings, [], "{kind}");
        sql(&path, &format!("UPDATE {table} SET \"a,b\" = 'other things' WHERE id = 2"));
        let health = full(&path);
        assert!(is_stale(&health, "w, '1'", 0, 0), "{kind}: {health:?}");
        sql(
            &path,
            &format!("DROP TABLE \"w, '1'\"; UPDATE {table} SET \"a,b\" = 'drei' WHERE id = 2"),
        );
    }
}

#[test]
fn a_full_text_index_of_fts4_is_compared_with_its_text_by_sqlite() {
    engine::init().unwrap();
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    sql(
        &path,
        "CREATE VIRTUAL TABLE four USING fts4(content='logs', text);
         INSERT INTO four (docid, text) SELECT id, text FROM logs",
    );
    assert!(full(&path).ok);
    sql(
        &path,
        "UPDATE logs SET text = 'other' WHERE id = 5; INSERT INTO words (words) VALUES ('rebuild')",
    );
    let health = full(&path);
    assert!(
        matches!(&health.findings[..], [Finding::FtsDamage { table, .. }] if table == "four"),
        "{health:?}"
    );
}

#[test]
fn damaged_pages_of_a_full_text_index_are_its_own() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    sql(
        &path,
        "UPDATE words_data SET block = zeroblob(length(block)) WHERE id = (SELECT max(id) FROM words_data)",
    );
    for health in [quick(&path), full(&path)] {
        assert!(
            matches!(&health.findings[..], [Finding::FtsDamage { table, lines, .. }] if table == "words" && !lines.is_empty()),
            "{health:?}"
        );
    }
}

/// A file that was refused is deleted, and a new one gets its inode.
#[test]
fn what_was_found_in_a_file_that_was_not_opened_is_not_said_of_the_next_one_with_its_inode() {
    for same_name in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = database(&directory);
        overwrite(&path, 40, &[0xa5; PAGE as usize]);
        let startup = health::Startup::AtOnce(CheckKind::Full);
        let look = health::before_open(&path, startup, |_| None, &NoProgress).unwrap();
        assert!(!look.health.unwrap().ok);

        // What a file system does that gives the inode away again.
        let away = directory.path().join("away");
        fs::rename(&path, &away).unwrap();
        File::options().write(true).open(&away).unwrap().set_len(0).unwrap();
        let new = if same_name { path } else { directory.path().join("new.db") };
        assert!(
            health::before_open(&new, startup, |_| None, &NoProgress).unwrap().health.is_none()
        );
        fs::rename(&away, &new).unwrap();
        let connection =
            Connection::open_hardened(&new, OpenFlags::default(), &engine::Profile::default())
                .unwrap();
        let file = connection.file().unwrap();
        health::opened(file);
        assert!(!file.is_unverified());
        assert_eq!(health::last(file.id), None);
    }
}
