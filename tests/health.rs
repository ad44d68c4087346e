//! What checks find in real files that were really damaged, and what they leave alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fusion_sqlite::engine::{self, Unwatched};
use fusion_sqlite::health::{Finding, Health, Kind, check};
use tempfile::TempDir;

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
    assert!(!beside(&path, "-wal").exists(), "closed cleanly");
    path
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn full(path: &Path) -> Health {
    check(path, Kind::Full, &Unwatched).unwrap()
}

fn quick(path: &Path) -> Health {
    check(path, Kind::Quick, &Unwatched).unwrap()
}

fn sql(path: &Path, statements: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(statements).unwrap();
}

/// Pages of the b-tree `name`, by SQLite's own account.
fn pages_of(path: &Path, name: &str) -> Vec<u32> {
    let sql = rusqlite::Connection::open(path).unwrap();
    let mut statement =
        sql.prepare("SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf'").unwrap();
    statement.query_map([name], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
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
    let error = check(&path, Kind::Full, &Unwatched).unwrap_err();
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

#[test]
fn a_full_text_index_that_its_table_outran_is_stale() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    assert!(full(&path).ok);
    sql(&path, "INSERT OR REPLACE INTO logs VALUES (7, 'FN-7', 'other words')");
    assert!(quick(&path).ok, "SQLite itself does not compare");
    let health = full(&path);
    assert!(
        matches!(&health.findings[..], [Finding::FtsDamage { table, .. }] if table == "words"),
        "{health:?}"
    );
    sql(&path, "INSERT INTO words (words) VALUES ('rebuild')");
    assert!(full(&path).ok);
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
