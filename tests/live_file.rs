//! The bytes of a database in use, and locks on it, whatever its pages hold.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod second_process;

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fusion_sqlite::engine::{Class, Connection, NoProgress, PageSource, SqliteFile, Wal};
use rusqlite::OpenFlags;
use second_process::{SecondProcess, serve as serve_commands};

const BUSY: i32 = 5;

#[test]
fn serve() {
    serve_commands();
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.sqlite");
    (directory, path)
}

fn open(other: &mut SecondProcess, name: &str, path: &Path) {
    other.ask(&["open-hardened", name, path.to_str().unwrap()]).unwrap();
}

fn run(other: &mut SecondProcess, name: &str, statements: &[&str]) {
    for sql in statements {
        other.sql(name, sql).unwrap();
    }
}

fn now() -> Instant {
    Instant::now()
}

fn live(path: &Path) -> SqliteFile {
    SqliteFile::open(path, now(), &NoProgress).unwrap()
}

/// Writes zeroes over page 1.
fn destroy_header(path: &Path) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&[0; 4096]).unwrap();
}

fn bytes(storage: &impl PageSource) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(storage.size().unwrap()).unwrap()];
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + 1000).min(bytes.len());
        let count = storage.read_at(&mut bytes[at..end], at as u64).unwrap();
        assert_ne!(count, 0);
        at += count;
    }
    bytes
}

#[test]
fn file_and_wal_are_read_byte_for_byte_even_where_the_header_is_gone() {
    let (_directory, path) = directory();
    let mut other = SecondProcess::start();
    open(&mut other, "it", &path);
    run(&mut other, "it", &["CREATE TABLE t (a)", "INSERT INTO t VALUES (zeroblob(100000))"]);
    other.sql("it", "PRAGMA wal_checkpoint").unwrap();
    other.sql("it", "INSERT INTO t VALUES (randomblob(9000))").unwrap();
    destroy_header(&path);

    let live = live(&path);
    let (database, wal) = (bytes(live.database()), bytes(live.wal().unwrap()));
    let mut beyond = [1; 100];
    let end = live.database().size().unwrap() - 10;
    assert_eq!(live.database().read_at(&mut beyond, end).unwrap(), 10);
    assert_eq!(live.database().read_at(&mut beyond, end + 10).unwrap(), 0);
    drop(live);
    drop(other);
    assert_eq!(database, std::fs::read(&path).unwrap());
    assert_eq!(wal, std::fs::read(Wal::path(&path)).unwrap());
}

#[test]
fn while_it_is_held_nobody_commits_or_checkpoints_and_readers_go_on() {
    let (_directory, path) = directory();
    let mut other = SecondProcess::start();
    open(&mut other, "writer", &path);
    open(&mut other, "reader", &path);
    run(&mut other, "writer", &["CREATE TABLE t (a)", "INSERT INTO t VALUES (1)"]);
    run(&mut other, "reader", &["BEGIN", "SELECT count(*) FROM t"]);
    let here = Connection::open(&path, OpenFlags::default(), Duration::ZERO).unwrap();

    let live = live(&path);
    let hold = live.hold(now(), &NoProgress).unwrap();
    assert_eq!(other.refused("writer", "INSERT INTO t VALUES (2)"), BUSY);
    let insert = |sql: &Connection| sql.sql().unwrap().execute_batch("INSERT INTO t VALUES (3)");
    assert_eq!(
        insert(&here).unwrap_err().sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy)
    );
    // The answer's first column says whether it was kept from its work.
    assert_eq!(other.sql("writer", "PRAGMA wal_checkpoint").unwrap(), "1");
    assert_eq!(other.sql("reader", "SELECT count(*) FROM t").unwrap(), "1");
    other.sql("reader", "COMMIT").unwrap();
    assert_eq!(other.sql("reader", "SELECT count(*) FROM t").unwrap(), "1");

    drop(hold);
    other.sql("writer", "INSERT INTO t VALUES (2)").unwrap();
    insert(&here).unwrap();
    assert_eq!(other.sql("writer", "PRAGMA wal_checkpoint(TRUNCATE)").unwrap(), "0");
    assert_eq!(other.sql("reader", "SELECT count(*) FROM t").unwrap(), "3");
}

#[test]
fn a_file_with_a_rollback_journal_is_held_too() {
    let (_directory, path) = directory();
    let mut other = SecondProcess::start();
    other.open("it", &path);
    other.sql("it", "CREATE TABLE t (a)").unwrap();

    let live = live(&path);
    assert!(live.wal().is_none());
    let before = live.generation().unwrap();
    let hold = live.hold(now(), &NoProgress).unwrap();
    assert_eq!(other.refused("it", "INSERT INTO t VALUES (1)"), BUSY);
    assert_eq!(other.sql("it", "SELECT count(*) FROM t").unwrap(), "0");
    drop(hold);
    assert_eq!(live.generation().unwrap(), before);
    other.sql("it", "INSERT INTO t VALUES (1)").unwrap();
    assert_ne!(live.generation().unwrap(), before);
}

#[test]
fn a_writers_transaction_keeps_it_from_being_held_which_is_no_damage() {
    let (_directory, path) = directory();
    let mut other = SecondProcess::start();
    open(&mut other, "it", &path);
    run(&mut other, "it", &["CREATE TABLE t (a)", "BEGIN IMMEDIATE"]);
    let live = live(&path);
    let error = live.hold(now(), &NoProgress).unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert_eq!(error.path.as_deref(), Some(live.path()));
    other.sql("it", "COMMIT").unwrap();
    let hold = live.hold(now(), &NoProgress).unwrap();
    // Not twice: the one's end would be the other's.
    assert_eq!(live.hold(now(), &NoProgress).unwrap_err().class(), Class::Transient);
    drop(hold);
}

#[test]
fn its_generation_changes_with_commits_and_with_nothing_else() {
    let (_directory, path) = directory();
    let mut other = SecondProcess::start();
    open(&mut other, "it", &path);
    run(&mut other, "it", &["CREATE TABLE t (a)", "INSERT INTO t VALUES (1)"]);
    let live = live(&path);
    let first = live.generation().unwrap();
    other.sql("it", "SELECT count(*) FROM t").unwrap();
    run(&mut other, "it", &["BEGIN IMMEDIATE", "INSERT INTO t VALUES (2)", "ROLLBACK"]);
    assert_eq!(other.sql("it", "PRAGMA wal_checkpoint").unwrap(), "0");
    assert_eq!(live.generation().unwrap(), first);
    other.sql("it", "INSERT INTO t VALUES (2)").unwrap();
    let second = live.generation().unwrap();
    assert_ne!(second, first);
    other.sql("it", "DELETE FROM t WHERE a = 2").unwrap();
    let third = live.generation().unwrap();
    assert!(third != second && third != first);
}

#[test]
fn closing_it_leaves_the_wal_and_its_commits() {
    let (_directory, path) = directory();
    let mut other = SecondProcess::start();
    open(&mut other, "it", &path);
    run(&mut other, "it", &["CREATE TABLE t (a)", "INSERT INTO t VALUES (1)"]);
    let live = live(&path);
    // Hardened connections, as the other process's, leave the WAL when they are closed.
    drop(other);
    drop(live);
    assert!(std::fs::metadata(Wal::path(&path)).unwrap().len() > 0);
    let after = Connection::open(&path, OpenFlags::default(), Duration::ZERO).unwrap();
    let count = after.sql().unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    assert_eq!(count, Ok(1_i64));
}
