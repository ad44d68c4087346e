//! What a salvage brings back of files that are damaged in ways that a person can picture.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use fusion_sqlite::engine::{self, Unwatched};
use fusion_sqlite::recovery::salvage::{
    Options, Salvage, SchemaEntry, SchemaSource, Snapshot, Source, salvage,
};
use rusqlite::Connection;

const SCHEMA: &str = "
    CREATE TABLE log(id INTEGER PRIMARY KEY, task TEXT NOT NULL, text TEXT NOT NULL, at REAL);
    CREATE INDEX log_task ON log(task);
    CREATE TABLE pairs(a TEXT, b INTEGER, c BLOB, PRIMARY KEY(a, b)) WITHOUT ROWID;
    CREATE TABLE big(id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
    CREATE VIEW tasks AS SELECT DISTINCT task FROM log;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000)
    INSERT INTO log SELECT i, 'task-' || i % 7, 'line ' || i || hex(randomblob(40)), i / 3.0 FROM n;
    INSERT INTO pairs SELECT task, id, randomblob(30) FROM log WHERE id % 3 = 0;
    INSERT INTO big(body) SELECT randomblob(100 * id) FROM log WHERE id < 200;
    DELETE FROM big WHERE id % 5 = 0;";

/// A database of `SCHEMA` as bytes, with what else to say before.
fn database(directory: &Path, before: &str) -> Vec<u8> {
    engine::init().unwrap();
    let path = directory.join("made");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(&format!("{before}; BEGIN; {SCHEMA}; COMMIT;")).unwrap();
    connection.close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    bytes
}

fn salvaged(directory: &Path, bytes: &[u8], options: &Options) -> (Salvage, Connection) {
    let storage = Bytes(bytes.to_vec());
    let path = directory.join("salvaged");
    let _ = std::fs::remove_file(&path);
    let source = Source { database: &storage, wal: None };
    let account = salvage(source, options, &path, &Unwatched).unwrap();
    let connection = Connection::open(&path).unwrap();
    let check: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    (account, connection)
}

struct Bytes(Vec<u8>);

impl engine::Storage for Bytes {
    fn size(&self) -> engine::Result<u64> {
        self.0.as_slice().size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> engine::Result<usize> {
        self.0.as_slice().read_at(buffer, offset)
    }
}

/// All rows of the tables, as text.
fn rows(connection: &Connection) -> Vec<String> {
    let mut rows = Vec::new();
    for (table, id) in [("log", "rowid"), ("pairs", "b"), ("big", "rowid")] {
        let columns = match table {
            "log" => "quote(task) || quote(text) || quote(at)",
            "pairs" => "quote(a) || quote(c)",
            _ => "quote(body)",
        };
        let sql =
            format!("SELECT '{table} ' || {id} || ' ' || {columns} FROM {table} ORDER BY {id}");
        let mut statement = connection.prepare(&sql).unwrap();
        let found = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.extend(found.map(Result::unwrap));
    }
    rows
}

fn original(directory: &Path, bytes: &[u8]) -> Vec<String> {
    let path = directory.join("original");
    std::fs::write(&path, bytes).unwrap();
    let found = rows(&Connection::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    found
}

#[test]
fn a_sound_file_comes_back_whole_whatever_its_format() {
    let directory = tempfile::tempdir().unwrap();
    for page_size in [512, 1024, 4096, 65_536] {
        for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
            let before = format!(
                "PRAGMA page_size = {page_size}; PRAGMA encoding = '{encoding}';
                 PRAGMA auto_vacuum = {}",
                page_size % 3
            );
            let bytes = database(directory.path(), &before);
            let (account, connection) = salvaged(directory.path(), &bytes, &Options::default());
            assert!(rows(&connection) == original(directory.path(), &bytes), "{before}");
            assert_eq!(account.page_size, page_size);
            assert_eq!(account.schema_from, SchemaSource::File);
            assert_eq!((account.pages_lost, account.lost_and_found), (0, 0), "{account:?}");
        }
    }
}
