//! One bit of a database's header, flipped: whatever it is, a check answers with findings, and a
//! repair with a sound database or with an error that says why not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fusion_sqlite::engine::{self, Error, NoProgress};
use fusion_sqlite::health::{self, CheckKind, Finding, Health};
use fusion_sqlite::recovery::Reason;
use fusion_sqlite::recovery::repair::{self, RepairOptions};
use tempfile::TempDir;

/// A small database; its bytes.
fn bytes(pragmas: &str) -> Vec<u8> {
    engine::init().unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.db");
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.execute_batch(&format!(
        "{pragmas};
         CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); CREATE INDEX t_a ON t (a);
         CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE VIEW v AS SELECT a FROM t;
         WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 60)
         INSERT INTO t SELECT i, 'text number ' || i FROM n;
         INSERT INTO w SELECT 'key ' || id, a FROM t; DELETE FROM t WHERE id > 55"
    ))
    .unwrap();
    drop(sql);
    std::fs::read(&path).unwrap()
}

/// Whether an error may answer a request for a repair: it is this package's own and says why.
fn is_typed(error: &Error) -> bool {
    error.code.starts_with("ERR_FUSION_") && !error.message.is_empty()
}

fn check(path: &Path, kind: CheckKind) -> Health {
    health::check(path, kind, &NoProgress)
        .unwrap_or_else(|error| panic!("{}: {} {error}", path.display(), error.errcode))
}

/// Checks and repairs a file that has these bytes.
fn try_out(folder: &Path, name: &str, bytes: &[u8]) -> Result<(PathBuf, Health), String> {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    for kind in [CheckKind::Quick, CheckKind::Full] {
        match health::check(&path, kind, &NoProgress) {
            Ok(health) if health.is_locked() => return Err(format!("locked: {health:?}")),
            Ok(_) => {}
            Err(error) => return Err(format!("check: {} {} {error}", error.code, error.errcode)),
        }
    }
    match repair::repair(&path, &RepairOptions::default(), &mut |_| (), &NoProgress) {
        Ok(report) if report.after.ok => Ok((path, report.after)),
        Ok(report) => Err(format!("not sound afterwards: {:?}", report.after)),
        // A repair that would lose an entry of the schema is written where that is allowed.
        Err(error) if error.code == "ERR_FUSION_LOSS" => {
            if std::fs::read(&path).unwrap() != bytes {
                return Err(format!("a refused repair changed the file: {error}"));
            }
            let options = RepairOptions { allow_loss: true, ..RepairOptions::default() };
            match repair::repair(&path, &options, &mut |_| (), &NoProgress) {
                Ok(report) if report.after.ok => Ok((path, report.after)),
                outcome => Err(format!("not repaired although it is allowed: {outcome:?}")),
            }
        }
        // A full-text index that cannot be rebuilt is left as it is, unless a repair is asked for.
        Err(error) if error.errcode == rusqlite::ffi::SQLITE_CORRUPT_VTAB => {
            let options = RepairOptions { reason: Reason::Asked, ..RepairOptions::default() };
            match repair::repair(&path, &options, &mut |_| (), &NoProgress) {
                Ok(report) if report.after.ok => Ok((path, report.after)),
                outcome => Err(format!("not repaired although it is asked for: {outcome:?}")),
            }
        }
        Err(error) if is_typed(&error) => Ok((path, check(&folder.join(name), CheckKind::Quick))),
        Err(error) => Err(format!("repair: {} {} {error}", error.code, error.errcode)),
    }
}

#[test]
fn whatever_bit_of_the_header_is_flipped_is_a_finding_and_can_be_repaired() {
    let folder = TempDir::new().unwrap();
    for (number, pragmas) in [
        "PRAGMA page_size = 512",
        "PRAGMA page_size = 1024; PRAGMA encoding = 'UTF-16le'; PRAGMA auto_vacuum = FULL",
    ]
    .into_iter()
    .enumerate()
    {
        let sound = bytes(pragmas);
        let mut failed = BTreeMap::new();
        for bit in 0..800 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Err(reason) = try_out(folder.path(), &format!("{number}-{bit}.db"), &bytes) {
                failed.insert(bit, reason);
            }
        }
        assert!(failed.is_empty(), "{pragmas}: {failed:#?}");
    }
}

#[test]
fn what_cannot_be_opened_is_a_finding_of_its_header() {
    let folder = TempDir::new().unwrap();
    let sound = bytes("PRAGMA page_size = 4096");
    // A schema format that no SQLite knows; an encoding that there is none of.
    for (at, byte) in [(47, 5), (47, 0xff), (59, 0), (59, 4)] {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        let path = folder.path().join(format!("{at}-{byte}.db"));
        std::fs::write(&path, bytes).unwrap();
        let health = check(&path, CheckKind::Full);
        if !health.ok {
            let is_header = |it: &Finding| matches!(it, Finding::Header { .. });
            assert!(health.findings.iter().any(is_header), "{health:?}");
        }
    }
}

/// A schema that SQLite can read and not make sense of.
#[test]
fn a_schema_that_makes_no_sense_is_a_finding_and_is_repaired() {
    engine::init().unwrap();
    let folder = TempDir::new().unwrap();
    for (number, change) in [
        // An index of SQLite's own that belongs to nothing.
        "UPDATE sqlite_schema SET tbl_name = 'nothing', name = 'sqlite_autoindex_nothing_1', sql = NULL \
         WHERE name = 't_a'",
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, ' WHERE name = 't'",
        "UPDATE sqlite_schema SET rootpage = 4000 WHERE name = 't'",
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE t_a (x)', type = 'table' WHERE name = 't'",
        "UPDATE sqlite_schema SET sql = 'DROP TABLE t' WHERE name = 't'",
        "UPDATE sqlite_schema SET sql = x'ff00ff' WHERE name = 'v'",
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(format!("{number}.db"));
        std::fs::write(&path, bytes("PRAGMA page_size = 1024")).unwrap();
        let sql = rusqlite::Connection::open(&path).unwrap();
        sql.execute_batch(&format!("PRAGMA writable_schema = ON; {change}")).unwrap();
        drop(sql);
        let bytes = std::fs::read(&path).unwrap();
        let health = check(&path, CheckKind::Full);
        assert!(!health.ok, "{change}: {health:?}");
        let tried = try_out(folder.path(), &format!("{number}.db"), &bytes);
        let (_, after) = tried.unwrap_or_else(|reason| panic!("{change}: {reason}"));
        assert!(after.ok, "{change}: {after:?}");
    }
}

/// Bytes of a full-text index that hold sizes: SQLite asks for memory by them before it finds out
/// that they make no sense.
#[test]
fn sizes_that_no_memory_suffices_for_are_damage() {
    engine::init().unwrap();
    let folder = TempDir::new().unwrap();
    let sound = folder.path().join("sound.db");
    let sql = rusqlite::Connection::open(&sound).unwrap();
    sql.execute_batch(
        "CREATE VIRTUAL TABLE words USING fts5(a, b, c); CREATE TABLE plain (a);
         WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 40)
         INSERT INTO words SELECT 'word ' || i, 'other ' || i, 'more' FROM n;
         INSERT INTO plain SELECT a FROM words",
    )
    .unwrap();
    drop(sql);
    // The structure record, id 10 of the index's data: a cookie of four bytes, then varints.
    let (mut found, mut unmet) = (0, 0);
    for (number, varint) in
        ["ffffffff7f", "8fffffff7f", "ffffffffffffffff7f", "80ffff7f"].iter().enumerate()
    {
        for at in 5..10 {
            let path = folder.path().join(format!("{number}-{at}.db"));
            std::fs::copy(&sound, &path).unwrap();
            let sql = rusqlite::Connection::open(&path).unwrap();
            sql.execute_batch(&format!(
                "UPDATE words_data SET block = unhex(hex(substr(block, 1, {at} - 1)) || '{varint}') || substr(block, {at} + 1)
                 WHERE id = 10"
            ))
            .unwrap();
            drop(sql);
            let health = check(&path, CheckKind::Full);
            found += usize::from(!health.ok);
            unmet += usize::from(health.summary().contains("as much memory"));
            let bytes = std::fs::read(&path).unwrap();
            let (path, after) =
                try_out(folder.path(), &format!("{number}-{at}.db"), &bytes).unwrap();
            assert!(after.ok, "{after:?}");
            let sql = rusqlite::Connection::open(&path).unwrap();
            let rows = |table: &str| -> i64 {
                sql.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
                    .unwrap()
            };
            assert_eq!((rows("plain"), rows("words_content")), (40, 40));
        }
    }
    assert!(found > 6 && unmet > 0, "{found} {unmet}");
}
