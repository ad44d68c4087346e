//! The limit of what a row can cost: one prepared statement, transactions of 1,000 rows, the
//! package's PRAGMAs, no Node. The benchmark runs it beside the other contenders.
//!
//! Usage: `limit <database> <schema> <entries.jsonl> <rows>`. Prints one line of JSON: rows a second
//! until the last row is committed, WAL bytes and syncs a row until the database is closed (when
//! `BENCH_IO_COUNTERS` names the counters' file; see `bench/count_io.c`).
#![allow(clippy::print_stdout, reason = "a command-line program that prints its result")]

use std::collections::BTreeSet;
use std::error::Error;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use rusqlite::{Connection, params};
use serde::Deserialize;

const ROWS_PER_TRANSACTION: usize = 1_000;
const CHECKPOINT_PAGES: i64 = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    task_id: String,
    timestamp: String,
    text: String,
    #[serde(rename = "type")]
    kind: String,
    detail: Option<String>,
    agent: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let [database, schema, input, rows] = arguments.as_slice() else {
        return Err("usage: limit <database> <schema> <entries.jsonl> <rows>".into());
    };
    let rows: usize = rows.parse()?;
    let entries = read_entries(input)?;

    let mut connection = open(database)?;
    set_up(&mut connection, &fs::read_to_string(schema)?, &entries)?;

    let before = counters()?;
    let started = Instant::now();
    append(&mut connection, entries.iter().cycle().take(rows))?;
    let seconds = started.elapsed().as_secs_f64();

    let stored: i64 =
        connection.query_row("SELECT count(*) FROM agentLogEntries", [], |row| row.get(0))?;
    if usize::try_from(stored)? != rows {
        return Err(format!("{stored} of {rows} rows are stored").into());
    }
    connection.close().map_err(|(_, error)| error)?;

    let per_row = |word: usize| match (&before, &counters()?) {
        (Some(before), Some(after)) => {
            let counted = after.get(word).zip(before.get(word)).map(|(a, b)| a - b);
            Ok(counted.map(|count| count as f64 / rows as f64))
        }
        _ => Ok::<_, Box<dyn Error>>(None),
    };
    println!(
        "{}",
        serde_json::json!({
            "rows": rows,
            "rowsPerSecond": rows as f64 / seconds,
            "walBytesPerRow": per_row(3)?,
            "syncsPerRow": per_row(0)?,
        })
    );
    Ok(())
}

fn read_entries(file: &str) -> Result<Vec<Entry>, Box<dyn Error>> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = serde_json::from_str(line)
            .map_err(|error| format!("{file}:{}: {error}", index.saturating_add(1)))?;
        entries.push(entry);
    }
    Ok(entries)
}

/// Opens with the settings that the package's writer uses; checkpoints are made by [`append`].
fn open(database: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(database)?;
    connection.execute_batch(
        "PRAGMA busy_timeout = 5000;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA journal_size_limit = 4194304;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA foreign_keys = ON;
         PRAGMA cell_size_check = ON;
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY;",
    )?;
    Ok(connection)
}

fn set_up(connection: &mut Connection, schema: &str, entries: &[Entry]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(schema)?;
    let tasks: BTreeSet<&str> = entries.iter().map(|entry| entry.task_id.as_str()).collect();
    for task in tasks {
        transaction.execute(
            "INSERT INTO tasks(id, title, createdAt, updatedAt) VALUES (?1, ?1, '2026-01-01', '2026-01-01')",
            [task],
        )?;
    }
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

fn append<'a>(
    connection: &mut Connection,
    mut entries: impl Iterator<Item = &'a Entry>,
) -> Result<(), Box<dyn Error>> {
    let mut insert = connection.prepare(
        "INSERT INTO agentLogEntries(taskId, timestamp, text, type, detail, agent) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    let mut bump = connection.prepare(
        "UPDATE __meta SET value = CAST(max(CAST(value AS INTEGER) + 1, ?) AS TEXT) WHERE key = 'lastModified'",
    )?;
    let mut next = entries.next();
    while next.is_some() {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..ROWS_PER_TRANSACTION {
            let Some(entry) = next else { break };
            insert.execute(params![
                entry.task_id,
                entry.timestamp,
                entry.text,
                entry.kind,
                entry.detail,
                entry.agent
            ])?;
            next = entries.next();
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        bump.execute([i64::try_from(now)?])?;
        connection.execute_batch("COMMIT")?;
        if wal_pages(connection)? >= CHECKPOINT_PAGES {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
    }
    Ok(())
}

/// Pages in the WAL. A transaction of 1,000 rows always writes more than are due.
fn wal_pages(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))
}

/// The words that `count_io.c` keeps; `None` when nothing counts.
fn counters() -> Result<Option<Vec<u64>>, Box<dyn Error>> {
    let Some(file) = env::var_os("BENCH_IO_COUNTERS") else {
        return Ok(None);
    };
    let bytes = fs::read(file)?;
    let words = bytes.chunks_exact(8).map(|word| {
        let mut array = [0; 8];
        array.copy_from_slice(word);
        u64::from_ne_bytes(array)
    });
    Ok(Some(words.collect()))
}
