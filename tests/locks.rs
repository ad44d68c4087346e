//! Locks that nobody else in the process can drop, seen from a second process.
//!
//! Each promise is checked with open-file-description locks, and where it is what POSIX locks
//! break, with those, too: a test that passes with both would show nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![cfg(any(target_os = "linux", target_vendor = "apple"))]

mod second_process;

use std::path::{Path, PathBuf};

use fusion_sqlite::engine;
use rusqlite::ffi;
use second_process::SecondProcess;

const BUSY: i32 = 5;

#[test]
fn serve() {
    second_process::serve();
}

/// A database in the given journal mode, with one empty table.
fn database(journal_mode: &str) -> (tempfile::TempDir, PathBuf) {
    // Before anything is open: it replaces the locks.
    engine::init().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.sqlite");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(&format!("PRAGMA journal_mode = {journal_mode}; CREATE TABLE t (x)"))
        .unwrap();
    (directory, path)
}

fn sidecar_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether a second process is kept out while the first has a transaction open and has opened,
/// read and closed the database's files.
fn holds_through_a_foreign_close(mut first: SecondProcess, journal_mode: &str) -> bool {
    let (_directory, path) = database(journal_mode);
    first.open("a", &path);
    first.sql("a", "BEGIN IMMEDIATE").unwrap();
    first.sql("a", "INSERT INTO t VALUES (1)").unwrap();
    let mut second = SecondProcess::start();
    second.open("b", &path);
    assert_eq!(second.refused("b", "BEGIN IMMEDIATE"), BUSY);
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let file = sidecar_path(&path, suffix);
        if file.exists() {
            first.read_file(&file);
        }
    }
    match second.sql("b", "BEGIN IMMEDIATE") {
        Ok(_) => false,
        Err(refused) => {
            assert_eq!(refused.errcode, BUSY);
            first.sql("a", "COMMIT").unwrap();
            assert_eq!(second.sql("b", "SELECT count(*) FROM t").unwrap(), "1");
            true
        }
    }
}

#[test]
fn a_foreign_close_drops_no_lock() {
    for journal_mode in ["wal", "delete"] {
        let ofd = SecondProcess::start();
        assert!(holds_through_a_foreign_close(ofd, journal_mode));
        let posix = SecondProcess::with_posix_locks();
        assert!(!holds_through_a_foreign_close(posix, journal_mode));
    }
}

/// How many of the rows that a long-lived writer was told are stored can be read at the end, if
/// it copies its own files once and another process comes, writes and goes.
fn rows_kept(mut writer: SecondProcess) -> Result<u32, String> {
    let (_directory, path) = database("wal");
    let write = |process: &mut SecondProcess, name| {
        for _ in 0..50 {
            process.sql(name, "INSERT INTO t VALUES (randomblob(300))").unwrap();
        }
    };
    writer.open("long", &path);
    write(&mut writer, "long");
    for suffix in ["", "-wal", "-shm"] {
        writer.read_file(&sidecar_path(&path, suffix));
    }
    for _ in 0..2 {
        let mut short = SecondProcess::start();
        short.open("short", &path);
        write(&mut short, "short");
        short.ask(&["close", "short"]).unwrap();
        write(&mut writer, "long");
    }
    let mut reader = SecondProcess::start();
    reader.open("reader", &path);
    let mut ask = |sql| reader.sql("reader", sql).map_err(|refused| refused.message);
    let integrity = ask("PRAGMA integrity_check")?;
    if integrity != "ok" {
        return Err(integrity);
    }
    Ok(ask("SELECT count(*) FROM t")?.parse().unwrap())
}

#[test]
fn a_copy_of_the_live_files_loses_no_row() {
    assert_eq!(rows_kept(SecondProcess::start()), Ok(250));
    assert_ne!(rows_kept(SecondProcess::with_posix_locks()), Ok(250));
}

#[test]
fn threads_of_two_processes_that_read_the_live_files_lose_no_row() {
    for journal_mode in ["wal", "delete"] {
        let (_directory, path) = database(journal_mode);
        let mut processes = [SecondProcess::start(), SecondProcess::start()];
        for process in &mut processes {
            process.send(&["insert-from-threads", path.to_str().unwrap(), "3", "40"]);
        }
        for process in &mut processes {
            process.answer().unwrap();
        }
        let connection = rusqlite::Connection::open(&path).unwrap();
        let ask = |sql| connection.query_row(sql, [], |row| row.get::<_, String>(0));
        assert_eq!(ask("PRAGMA integrity_check").unwrap(), "ok");
        assert_eq!(ask("SELECT count(*) || '' FROM t").unwrap(), "240");
    }
}

#[test]
fn ten_thousand_files_leave_no_descriptor_behind() {
    let directory = tempfile::tempdir().unwrap();
    let counts = SecondProcess::start()
        .ask(&["open-and-close-many", directory.path().to_str().unwrap(), "10000"])
        .unwrap();
    let (before, after) = counts.split_once(' ').unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_writer_may_come_after_a_read_only_connection() {
    for journal_mode in ["delete", "wal"] {
        let (_directory, path) = database(journal_mode);
        let mut first = SecondProcess::start();
        let mut second = SecondProcess::start();
        second.open("b", &path);
        first.ask(&["open-read-only", "r", path.to_str().unwrap()]).unwrap();
        first.sql("r", "BEGIN").unwrap();
        first.sql("r", "SELECT count(*) FROM t").unwrap();
        first.open("w", &path);
        first.sql("w", "BEGIN IMMEDIATE").unwrap();
        first.sql("w", "INSERT INTO t VALUES (1)").unwrap();
        first.read_file(&path);
        assert_eq!(second.refused("b", "BEGIN IMMEDIATE"), BUSY);
        // The reader's lock moved with the writer's and is let go through the reader.
        first.sql("r", "COMMIT").unwrap();
        first.ask(&["close", "r"]).unwrap();
        first.sql("w", "COMMIT").unwrap();
        assert_eq!(second.sql("b", "SELECT count(*) FROM t").unwrap(), "1");
        second.sql("b", "INSERT INTO t VALUES (2)").unwrap();
        assert_eq!(first.sql("w", "SELECT count(*) FROM t").unwrap(), "2");
    }
}

#[test]
fn the_first_connections_close_leaves_the_seconds_locks() {
    for journal_mode in ["delete", "wal"] {
        let (_directory, path) = database(journal_mode);
        let mut first = SecondProcess::start();
        first.open("a", &path);
        first.sql("a", "SELECT * FROM t").unwrap();
        first.open("b", &path);
        first.sql("b", "BEGIN IMMEDIATE").unwrap();
        first.sql("b", "INSERT INTO t VALUES (1)").unwrap();
        first.ask(&["close", "a"]).unwrap();
        let mut second = SecondProcess::start();
        second.open("c", &path);
        assert_eq!(second.refused("c", "BEGIN IMMEDIATE"), BUSY);
        first.sql("b", "COMMIT").unwrap();
        second.sql("c", "INSERT INTO t VALUES (2)").unwrap();
        first.ask(&["close", "b"]).unwrap();
        assert_eq!(second.sql("c", "SELECT count(*) FROM t").unwrap(), "2");
    }
}

#[test]
fn processes_with_posix_locks_and_with_these_respect_each_other() {
    let (_directory, path) = database("wal");
    let mut posix = SecondProcess::with_posix_locks();
    let mut ofd = SecondProcess::start();
    posix.open("p", &path);
    ofd.open("o", &path);
    ofd.sql("o", "BEGIN IMMEDIATE").unwrap();
    assert_eq!(posix.refused("p", "BEGIN IMMEDIATE"), BUSY);
    ofd.sql("o", "COMMIT").unwrap();
    posix.sql("p", "BEGIN IMMEDIATE").unwrap();
    assert_eq!(ofd.refused("o", "BEGIN IMMEDIATE"), BUSY);
    posix.sql("p", "COMMIT").unwrap();
    ofd.sql("o", "BEGIN IMMEDIATE").unwrap();
}

#[test]
fn two_connections_of_a_process_respect_each_other() {
    for journal_mode in ["delete", "wal"] {
        let (_directory, path) = database(journal_mode);
        let mut first = SecondProcess::start();
        first.open("a", &path);
        first.open("b", &path);
        first.sql("a", "BEGIN IMMEDIATE").unwrap();
        assert_eq!(first.refused("b", "BEGIN IMMEDIATE"), BUSY);
        first.sql("a", "INSERT INTO t VALUES (1)").unwrap();
        first.sql("a", "COMMIT").unwrap();
        assert_eq!(first.sql("b", "SELECT count(*) FROM t").unwrap(), "1");
    }
}

#[test]
fn the_lock_kind_and_why_it_is_not_another_are_told() {
    assert_eq!(SecondProcess::start().ask(&["locks"]).unwrap(), "Ofd none");
    let told = SecondProcess::with_posix_locks().ask(&["locks"]).unwrap();
    assert!(told.starts_with("Posix FUSION_SQLITE_LOCKS=posix"), "{told}");
}

const QUERY: &str = "SELECT count(*) FROM t WHERE x = 'new'";

/// Rows for [`QUERY`], of which the WAL has newer pages than the file.
fn fill(process: &mut SecondProcess) {
    let fill = "INSERT INTO t WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n \
                LIMIT 500) SELECT randomblob(300) FROM n";
    process.sql("it", fill).unwrap();
    process.sql("it", "PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    process.sql("it", "UPDATE t SET x = 'new'").unwrap();
}

/// A writer and a reader, each a process of its own, with commits in the WAL that are not in the
/// file, and a third process that does something to the index.
fn index_is_built_anew(damage: impl Fn(&mut SecondProcess, &str)) {
    for asked_first in [0, 1] {
        let (_directory, path) = database("wal");
        let mut processes = [SecondProcess::start(), SecondProcess::start()];
        let query = QUERY;
        for process in &mut processes {
            process.open("it", &path);
            process.sql("it", "PRAGMA wal_autocheckpoint = 0").unwrap();
        }
        fill(&mut processes[0]);
        for process in &mut processes {
            assert_eq!(process.sql("it", query).unwrap(), "500");
        }
        let shm = sidecar_path(&path, "-shm");
        damage(&mut SecondProcess::start(), shm.to_str().unwrap());

        processes.rotate_left(asked_first);
        let [one, other] = &mut processes;
        // Nothing cached: all of it is looked for through the index.
        one.open("fresh", &path);
        assert_eq!(one.sql("fresh", query).unwrap(), "500");
        other.sql("it", "INSERT INTO t VALUES ('new')").unwrap();
        one.sql("it", "INSERT INTO t VALUES ('new')").unwrap();
        for process in [one, other] {
            assert_eq!(process.sql("it", query).unwrap(), "502");
            assert_eq!(process.sql("it", "PRAGMA integrity_check").unwrap(), "ok");
        }
    }
}

#[test]
fn an_index_whose_tables_are_zeroed_makes_nobody_read_old_pages() {
    // Page numbers and hash tables; hash tables alone.
    for (from, count) in [("136", "32632"), ("16384", "16384")] {
        index_is_built_anew(|third, shm| {
            third.ask(&["overwrite", shm, from, "0", count]).unwrap();
        });
        // SQLite by itself.
        let (_directory, path) = database("wal");
        let mut posix = SecondProcess::with_posix_locks();
        posix.open("it", &path);
        fill(&mut posix);
        let shm = sidecar_path(&path, "-shm");
        posix.ask(&["overwrite", shm.to_str().unwrap(), from, "0", count]).unwrap();
        posix.open("fresh", &path);
        assert_eq!(posix.sql("fresh", QUERY).unwrap(), "0");
    }
}

#[test]
fn an_index_that_is_cut_short_ends_no_process() {
    // As SQLite itself cuts it, within the header's page, behind it, and among the tables.
    for length in ["3", "100", "4096", "16384", "20000"] {
        index_is_built_anew(|third, shm| drop(third.ask(&["truncate", shm, length]).unwrap()));
    }
}

#[test]
fn an_index_of_several_blocks_that_is_cut_short_ends_no_process() {
    let (_directory, path) = database("wal");
    let mut process = SecondProcess::start();
    process.open("it", &path);
    process.sql("it", "PRAGMA wal_autocheckpoint = 0").unwrap();
    process.sql("it", "PRAGMA cache_size = 10").unwrap();
    let fill = "INSERT INTO t WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n \
                LIMIT 6000) SELECT randomblob(3000) FROM n";
    process.sql("it", fill).unwrap();
    let shm = sidecar_path(&path, "-shm");
    assert!(std::fs::metadata(&shm).unwrap().len() > 32_768);
    for length in ["3", "32768", "40000"] {
        SecondProcess::start().ask(&["truncate", shm.to_str().unwrap(), length]).unwrap();
        assert_eq!(
            process.sql("it", "SELECT count(*) FROM t WHERE length(x) = 3000").unwrap(),
            "6000"
        );
        assert_eq!(process.sql("it", "PRAGMA integrity_check").unwrap(), "ok");
    }
}

/// The WAL grows over several blocks of its index, and begins anew again and again.
#[test]
fn an_index_that_is_in_order_is_never_built_anew() {
    let (_directory, path) = database("wal");
    let mut other = SecondProcess::start();
    other.open("it", &path);
    let open = || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let timeout = std::time::Duration::from_secs(60);
        engine::Connection::open(&path, flags, timeout).unwrap()
    };
    let long = "INSERT INTO t WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n \
                LIMIT 9000) SELECT randomblob(4000) FROM n";
    let connection = open();
    connection.sql().unwrap().execute_batch("PRAGMA wal_autocheckpoint = 50").unwrap();
    connection.sql().unwrap().execute_batch(long).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || {
                let connection = open();
                let sql = connection.sql().unwrap();
                sql.execute_batch("PRAGMA wal_autocheckpoint = 20").unwrap();
                for row in 0..300 {
                    if thread == 0 {
                        sql.query_row("SELECT max(rowid) FROM t", [], |_| Ok(())).unwrap();
                    } else {
                        sql.execute("UPDATE t SET x = ?1 WHERE rowid = ?1", [row]).unwrap();
                    }
                }
            });
        }
        for row in 0..300 {
            // It may lose against the others.
            drop(other.sql("it", &format!("UPDATE t SET x = 0 WHERE rowid = {row}")));
        }
    });
    let recovered: Vec<_> = engine::error_log()
        .into_iter()
        .filter(|logged| logged.errcode == ffi::SQLITE_NOTICE_RECOVER_WAL)
        .filter(|logged| logged.message.contains(path.to_str().unwrap()))
        .collect();
    assert!(recovered.is_empty(), "{recovered:?}");
}
