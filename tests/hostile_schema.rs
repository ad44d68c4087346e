//! A schema whose statements compute without end, or far more than the file holds, costs what it
//! says it computes, and neither the salvage nor a row.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fusion_sqlite::engine::{NoProgress, PrivateFile};
use fusion_sqlite::recovery::salvage::{Salvage, SalvageOptions, Source, salvage};
use rusqlite::Connection;

/// What is salvaged of a database, and the salvaged one.
struct Salvaged {
    account: Salvage,
    connection: Connection,
    _folder: tempfile::TempDir,
}

impl Salvaged {
    fn number(&self, sql: &str) -> i64 {
        self.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The one error that is said.
    fn error(&self) -> &str {
        assert_eq!(self.account.schema_errors.len(), 1, "{:?}", self.account.schema_errors);
        self.account.schema_errors.first().unwrap()
    }
}

/// Salvages a database that `make` makes, and that has every statement of its schema in which
/// `harmless` is say `hostile` instead.
fn salvaged(make: &str, harmless: &str, hostile: &str) -> Salvaged {
    of(make, harmless, hostile, |_| ())
}

/// [`salvaged`] of a database of which a page's kind is damaged, in a table with rows: it cannot be
/// carried over as it is, but no row is lost.
fn damaged(make: &str, harmless: &str, hostile: &str) -> Salvaged {
    of(make, harmless, hostile, |bytes| {
        let leaf = bytes.chunks(4096).skip(1).position(|page| page[0] == 13).unwrap();
        bytes[(leaf + 1) * 4096] ^= 1;
    })
}

fn of(make: &str, harmless: &str, hostile: &str, damage: impl Fn(&mut Vec<u8>)) -> Salvaged {
    fusion_sqlite::engine::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(make).unwrap();
    connection.execute_batch("PRAGMA writable_schema = ON").unwrap();
    let replace = "UPDATE sqlite_schema SET sql = replace(sql, ?1, ?2)";
    connection.execute(replace, [harmless, hostile]).unwrap();
    connection.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let file = PrivateFile::open(&path).unwrap();
    let target = folder.path().join("salvaged.db");
    let source = Source { database: &file, wal: None };
    let account = salvage(source, &SalvageOptions::default(), &target, &NoProgress).unwrap();
    let connection = Connection::open(&target).unwrap();
    Salvaged { account, connection, _folder: folder }
}

const ROWS: &str = "
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100)
    INSERT INTO t(a) SELECT 'row ' || i FROM n;";

#[test]
fn a_full_text_index_over_a_view_without_end_is_not_waited_for() {
    let make = format!(
        "CREATE TABLE t(a); {ROWS}
         CREATE VIEW v AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
           SELECT i AS rowid, 'word' AS a FROM n;
         CREATE VIRTUAL TABLE f USING fts5(a, content = 'v')"
    );
    let salvaged = salvaged(&make, "", "");
    assert_eq!(salvaged.number("SELECT count(*) FROM t"), 100);
    assert!(salvaged.error().contains("steps"), "{}", salvaged.error());
    assert_eq!(salvaged.number("SELECT count(*) FROM sqlite_schema WHERE name = 'v'"), 1);
}

#[test]
fn rows_that_would_compute_more_than_was_ever_stored_are_lost_and_found() {
    let make = format!("CREATE TABLE t(a, b AS (zeroblob(1)) STORED); {ROWS}");
    let salvaged = damaged(&make, "zeroblob(1)", "zeroblob(900000000)");
    assert_eq!(salvaged.number("SELECT count(*) FROM lost_and_found WHERE c0 LIKE 'row %'"), 100);
}

#[test]
fn an_index_that_computes_too_much_is_left_out() {
    let make = format!("CREATE TABLE t(a); {ROWS} CREATE INDEX i ON t(length(zeroblob(1)))");
    let salvaged = damaged(&make, "zeroblob(1)", "hex(zeroblob(400000000))");
    assert_eq!(salvaged.number("SELECT count(*) FROM t"), 100);
    assert!(salvaged.error().starts_with("index i: "), "{}", salvaged.error());
}

#[test]
fn thousands_of_tables_that_cannot_be_made_do_not_multiply() {
    use std::fmt::Write;
    let mut make = format!("CREATE TABLE t(a); {ROWS} CREATE VIRTUAL TABLE f USING fts5(a);");
    for number in 0..2_000 {
        write!(make, "CREATE TABLE f_{number}(a CHECK (1));").unwrap();
    }
    let salvaged = salvaged(&make, "CHECK (1)", "CHECK (");
    assert_eq!(salvaged.number("SELECT count(*) FROM t"), 100);
    assert_eq!(salvaged.account.schema_errors.len(), 2_000);
}

#[test]
fn a_table_of_as_many_columns_and_indexes_as_there_may_be_is_salvaged() {
    use std::fmt::Write;
    let columns: Vec<String> = (0..1_999).map(|number| format!("c{number}")).collect();
    let mut make = format!("CREATE TABLE t(a, {}); {ROWS}", columns.join(", "));
    for number in 0..500 {
        write!(make, "CREATE INDEX i{number} ON t(c{number}, a DESC);").unwrap();
    }
    let salvaged = salvaged(&make, "", "");
    assert!(salvaged.account.schema_errors.is_empty(), "{:?}", salvaged.account.schema_errors);
    assert_eq!(salvaged.number("SELECT count(*) FROM t"), 100);
    assert_eq!(salvaged.number("SELECT count(*) FROM sqlite_schema WHERE type = 'index'"), 500);
}

#[test]
fn an_index_that_computes_without_an_end_costs_no_row() {
    use std::fmt::Write;
    let mut cases = String::new();
    for number in 0..20_000 {
        write!(cases, " WHEN -{number} THEN 2").unwrap();
    }
    let make = "
        CREATE TABLE t(a INTEGER PRIMARY KEY);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000)
          INSERT INTO t SELECT i FROM n;
        CREATE INDEX before ON t(a) WHERE a < 10;
        CREATE INDEX i ON t(CASE a WHEN 0 THEN 1 END);
        CREATE INDEX later ON t(a) WHERE a > 9990";
    let salvaged = damaged(make, " WHEN 0 THEN 1", &cases);
    assert_eq!(salvaged.number("SELECT count(*) FROM t"), 10_000);
    assert!(salvaged.error().starts_with("index i: it takes more"), "{}", salvaged.error());
    assert_eq!(salvaged.number("SELECT count(*) FROM sqlite_schema WHERE type = 'index'"), 2);
}

#[test]
fn what_a_sound_table_would_compute_is_not_computed() {
    let make = format!("CREATE TABLE t(a); {ROWS} CREATE INDEX i ON t(length(zeroblob(1)))");
    let salvaged = salvaged(&make, "zeroblob(1)", "hex(zeroblob(400000000))");
    assert_eq!(salvaged.number("SELECT count(*) FROM t"), 100);
    assert!(salvaged.account.schema_errors.is_empty(), "{:?}", salvaged.account.schema_errors);
    assert_eq!(salvaged.number("SELECT count(*) FROM sqlite_schema WHERE type = 'index'"), 1);
}
