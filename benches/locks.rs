//! What a lock costs: read and write transactions on a small table, with open-file-description locks and,
//! in a second process, with POSIX locks. `cargo bench --bench locks`.
//!
//! A read in WAL mode is two lock requests, in rollback mode four; the rest of a transaction is
//! the same, so the difference is theirs.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use fusion_sqlite::engine::{self, Connection};
use rusqlite::OpenFlags;

const KIND: &str = "FUSION_SQLITE_LOCKS";
const READS: u32 = 20_000;
const WRITES: u32 = 2_000;
const ROUNDS: usize = 25;

/// Nanoseconds of a read transaction, the median of the rounds; `others` connections of this
/// process have the file open, too.
fn read(journal_mode: &str, others: usize) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bench.sqlite");
    let open = || Connection::open(&path, OpenFlags::default(), Duration::ZERO).unwrap();
    let connection = open();
    let sql = connection.sql().unwrap();
    sql.execute_batch(&format!(
        "PRAGMA journal_mode = {journal_mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1)"
    ))
    .unwrap();
    let others: Vec<Connection> = (0..others).map(|_| open()).collect();
    for other in &others {
        other.sql().unwrap().execute_batch("SELECT * FROM t").unwrap();
    }
    let mut statement = sql.prepare("SELECT x FROM t").unwrap();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..READS {
                statement.query_row([], |row| row.get::<_, i64>(0)).unwrap();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(READS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Nanoseconds of a write transaction of one row that waits for no disk, likewise.
fn write() -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bench.sqlite");
    let connection = Connection::open(&path, OpenFlags::default(), Duration::ZERO).unwrap();
    let sql = connection.sql().unwrap();
    sql.execute_batch(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = OFF; CREATE TABLE t (x); \
         INSERT INTO t VALUES (1)",
    )
    .unwrap();
    let mut statement = sql.prepare("UPDATE t SET x = x + 1").unwrap();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..WRITES {
                statement.execute([]).unwrap();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(WRITES)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn main() {
    engine::init().unwrap();
    for (journal_mode, others) in [("wal", 0), ("wal", 60), ("delete", 0)] {
        println!(
            "{:?} locks, {journal_mode}, {others} other connections: {:.0} ns a read transaction",
            engine::lock_kind(),
            read(journal_mode, others),
        );
    }
    println!("{:?} locks, wal: {:.0} ns a write transaction", engine::lock_kind(), write());
    if std::env::var_os(KIND).is_none() {
        Command::new(std::env::current_exe().unwrap()).env(KIND, "posix").status().unwrap();
    }
}
