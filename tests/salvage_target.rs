//! The database that salvaged rows are put into is the one that they came from: real databases
//! are copied through it, record by record, and compared with the original.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fusion_sqlite::engine::{Error, NoProgress, Progress, Result, Stage};
use fusion_sqlite::format::Value;
use fusion_sqlite::recovery::salvage::report::TableSalvage;
use fusion_sqlite::recovery::salvage::target::{
    Affinity, Finished, IndexSource, Inserted, Limits, Target,
};
use fusion_sqlite::recovery::salvage::{SchemaEntry, Snapshot};
use rusqlite::Connection;
use rusqlite::types::Value as Sql;

/// A value as it is stored: text in the database's encoding.
#[derive(Debug, Clone, PartialEq)]
enum Stored {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Stored {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(number) => Value::Integer(*number),
            Self::Real(number) => Value::Real(*number),
            Self::Text(text) => Value::Text(text),
            Self::Blob(blob) => Value::Blob(blob),
        }
    }
}

fn text(text: &str) -> Stored {
    Stored::Text(text.as_bytes().to_vec())
}

fn values(fields: &[Stored]) -> Vec<Value<'_>> {
    fields.iter().map(Stored::value).collect()
}

/// A directory with an original in it.
struct Place {
    _directory: tempfile::TempDir,
    original: PathBuf,
    target: PathBuf,
}

/// Makes an original; `before` is run outside a transaction, before anything is stored.
fn original(before: &str, sql: &str) -> Place {
    // Locks are taken the engine's way from the first connection of this process on.
    fusion_sqlite::engine::init().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = Place {
        original: directory.path().join("original.db"),
        target: directory.path().join("target.db"),
        _directory: directory,
    };
    let connection = Connection::open(&place.original).unwrap();
    connection.execute_batch(before).unwrap();
    connection.execute_batch(sql).unwrap();
    place
}

fn open(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn strings(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let width = statement.column_count();
    let rows = statement.query_map([], |row| {
        let fields: Vec<String> = (0..width)
            .map(|at| match row.get::<_, Sql>(at).unwrap() {
                Sql::Text(text) => text,
                other => format!("{other:?}"),
            })
            .collect();
        Ok(fields.join(" | "))
    });
    rows.unwrap().map(|row| row.unwrap()).collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Those of a file of a megabyte.
fn limits() -> Limits {
    Limits::of(1 << 20, 1 << 20)
}

fn snapshot(connection: &Connection) -> Snapshot {
    let encoding: String = connection.query_row("PRAGMA encoding", [], |row| row.get(0)).unwrap();
    let mut statement = connection
        .prepare("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid")
        .unwrap();
    let schema = statement
        .query_map([], |row| {
            Ok(SchemaEntry {
                kind: row.get(0)?,
                name: row.get(1)?,
                table: row.get(2)?,
                root: row.get(3)?,
                sql: row.get(4)?,
            })
        })
        .unwrap();
    Snapshot {
        page_size: number(connection, "PRAGMA page_size").try_into().unwrap(),
        reserved: 0,
        encoding: match encoding.as_str() {
            "UTF-16le" => 2,
            "UTF-16be" => 3,
            _ => 1,
        },
        auto_vacuum: number(connection, "PRAGMA auto_vacuum").try_into().unwrap(),
        user_version: number(connection, "PRAGMA user_version").try_into().unwrap(),
        application_id: number(connection, "PRAGMA application_id").try_into().unwrap(),
        schema_cookie: number(connection, "PRAGMA schema_version").try_into().unwrap(),
        schema: schema.map(|entry| entry.unwrap()).collect(),
        taken_ms: 0,
    }
}

/// The records of a table, as they are stored but for fields that a short record leaves to the
/// schema.
fn records(
    connection: &Connection,
    table: &str,
    without_rowid: bool,
    fields: &[String],
) -> Vec<(Option<i64>, Vec<Stored>)> {
    let columns: Vec<String> = fields
        .iter()
        .map(|name| {
            let name = quoted(name);
            format!("typeof({name}), {name}, CAST({name} AS BLOB)")
        })
        .collect();
    let rowid = if without_rowid { "NULL" } else { "rowid" };
    let sql = format!("SELECT {rowid}, {} FROM {}", columns.join(", "), quoted(table));
    let mut statement = connection.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| {
        let fields = (0..fields.len()).map(|at| {
            let kind: String = row.get(1 + 3 * at).unwrap();
            match kind.as_str() {
                "integer" => Stored::Integer(row.get(2 + 3 * at).unwrap()),
                "real" => Stored::Real(row.get(2 + 3 * at).unwrap()),
                "text" => Stored::Text(row.get(3 + 3 * at).unwrap()),
                "blob" => Stored::Blob(row.get(3 + 3 * at).unwrap()),
                _ => Stored::Null,
            }
        });
        Ok((row.get(0)?, fields.collect()))
    });
    rows.unwrap().map(|row| row.unwrap()).collect()
}

/// Index entries by root page.
#[derive(Default)]
struct Entries(RefCell<BTreeMap<u32, Vec<Vec<Stored>>>>);

impl IndexSource for Entries {
    fn entries(&self, root: u32, entry: &mut dyn FnMut(&[Value<'_>]) -> Result<()>) -> Result<()> {
        for fields in self.0.borrow().get(&root).into_iter().flatten() {
            entry(&values(fields))?;
        }
        Ok(())
    }
}

/// Copies the original through a target.
fn copy(place: &Place) -> (Finished, Vec<TableSalvage>) {
    copy_without(place, |_, _| false)
}

/// Copies the original but for the rows of a table that are lost.
fn copy_without(
    place: &Place,
    is_lost: impl Fn(&str, Option<i64>) -> bool,
) -> (Finished, Vec<TableSalvage>) {
    copy_with(place, |_| (), is_lost)
}

/// Copies the original but for what is changed of the schema, and rows that are lost.
fn copy_with(
    place: &Place,
    change: impl Fn(&mut Vec<SchemaEntry>),
    is_lost: impl Fn(&str, Option<i64>) -> bool,
) -> (Finished, Vec<TableSalvage>) {
    let _ = std::fs::remove_file(&place.target);
    let from = open(&place.original);
    let mut header = snapshot(&from);
    change(&mut header.schema);
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    let mut tables = Vec::new();
    for (number, shape) in target.shapes().to_vec().into_iter().enumerate() {
        let mut fields: Vec<String> = shape.fields.iter().map(|it| it.name.clone()).collect();
        if shape.fields.is_empty() {
            fields.push("rowid".to_owned());
        }
        let mut table = TableSalvage { name: shape.table.clone(), ..TableSalvage::default() };
        for (rowid, mut record) in records(&from, &shape.table, shape.without_rowid, &fields) {
            if is_lost(&shape.table, rowid) {
                continue;
            }
            for (value, field) in record.iter_mut().zip(&shape.fields) {
                if field.rowid_alias {
                    *value = Stored::Null;
                }
            }
            let inserted = target.insert(number, rowid, &values(&record)).unwrap();
            assert_eq!(inserted, Inserted::Yes, "{} {rowid:?} {record:?}", shape.table);
            table.rows += 1;
        }
        tables.push(table);
    }
    drop(from);
    let entries = entries(&place.original);
    let finished = target.finish(&entries, &mut tables, &NoProgress).unwrap();
    (finished, tables)
}

/// The entries of the original's indexes on rowid tables, whose keys are plain columns.
fn entries(path: &Path) -> Entries {
    let connection = open(path);
    let mut entries = BTreeMap::new();
    for entry in snapshot(&connection).schema.iter().filter(|entry| entry.kind == "index") {
        let mut columns: Vec<String> = connection
            .prepare("SELECT ifnull(name, 'NULL') FROM pragma_index_xinfo(?1) WHERE key")
            .unwrap()
            .query_map([&entry.name], |row| row.get(0))
            .unwrap()
            .map(|name| name.unwrap())
            .collect();
        columns.push("rowid".to_owned());
        let filter = entry.sql.as_deref().and_then(|sql| sql.split(" WHERE ").nth(1));
        let sql = format!(
            "SELECT {} FROM {} WHERE {}",
            columns.join(", "),
            quoted(&entry.table),
            filter.unwrap_or("1")
        );
        let Ok(mut statement) = connection.prepare(&sql) else {
            // A WITHOUT ROWID table's.
            continue;
        };
        let rows = statement.query_map([], |row| {
            let fields = (0..columns.len()).map(|at| match row.get(at).unwrap() {
                Sql::Null => Stored::Null,
                Sql::Integer(number) => Stored::Integer(number),
                Sql::Real(number) => Stored::Real(number),
                Sql::Text(it) => text(&it),
                Sql::Blob(blob) => Stored::Blob(blob),
            });
            Ok(fields.collect())
        });
        entries.insert(entry.root, rows.unwrap().map(|row| row.unwrap()).collect());
    }
    Entries(RefCell::new(entries))
}

/// Everything of a database that a user can ask for, table by table.
fn content(path: &Path) -> Vec<String> {
    let connection = open(path);
    let mut content = Vec::new();
    for pragma in ["page_size", "encoding", "auto_vacuum", "user_version", "application_id"] {
        content.extend(strings(&connection, &format!("SELECT '{pragma}', * FROM pragma_{pragma}")));
    }
    let names = strings(
        &connection,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name",
    );
    for table in names {
        // The index that is rebuilt need not have the same segments.
        let segments = ["_fts_data", "_fts_idx", "_fts_segments", "_fts_segdir"];
        if segments.iter().any(|segment| table.ends_with(segment)) {
            continue;
        }
        let columns: Vec<String> = connection
            .prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden <> 1")
            .unwrap()
            .query_map([&table], |row| row.get(0))
            .unwrap()
            .map(|name| name.map(|name: String| quoted(&name)).unwrap())
            .collect();
        let without_rowid: bool = connection
            .query_row(
                "SELECT wr FROM pragma_table_list(?1) WHERE schema = 'main'",
                [&table],
                |row| row.get(0),
            )
            .unwrap();
        let rowid = if without_rowid { "NULL" } else { "rowid" };
        let quotes: Vec<String> = columns
            .iter()
            .map(|name| format!("typeof({name}), quote({name}), hex(CAST({name} AS BLOB))"))
            .collect();
        let sql = format!(
            "SELECT '{}', {rowid}, {} FROM {} ORDER BY 2, {}",
            table.replace('\'', "''"),
            quotes.join(", "),
            quoted(&table),
            columns.first().unwrap()
        );
        content.extend(strings(&connection, &sql));
    }
    content
}

fn schema(path: &Path) -> Vec<String> {
    strings(
        &open(path),
        "SELECT type, name, tbl_name, rootpage > 0, sql FROM sqlite_schema ORDER BY type, name",
    )
}

fn assert_same(place: &Place) {
    assert_eq!(schema(&place.target), schema(&place.original));
    let (is, was) = (content(&place.target), content(&place.original));
    assert!(was.len() > 5);
    assert_eq!(is, was);
    assert_eq!(strings(&open(&place.target), "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(strings(&open(&place.target), "PRAGMA foreign_key_check"), [""; 0]);
}

const PLAIN: &str = "
    PRAGMA user_version = 57; PRAGMA application_id = -7;
    CREATE TABLE plain(a, b INTEGER, c TEXT, d REAL, e BLOB, f NUMERIC);
    INSERT INTO plain(rowid, a, b, c, d, e, f) VALUES
      (-5, 1, 2, 'text', 2.5, x'00ff', 1e300), (7, NULL, NULL, NULL, NULL, NULL, NULL),
      (9223372036854775807, 'ä€𐍈', -1, '', 3, x'', '2026-01-02'),
      (100, 0.1, 9223372036854775807, 'a' || char(0) || 'b', -0.5, zeroblob(5000), '12:30');
    CREATE TABLE keyed(k TEXT, n INTEGER, v, PRIMARY KEY(n, k)) WITHOUT ROWID;
    INSERT INTO keyed VALUES ('b', 1, 'x'), ('a', 1, 'y'), ('c', -1, NULL);
    CREATE TABLE alias(x TEXT, id INTEGER PRIMARY KEY, y);
    INSERT INTO alias VALUES ('one', 1, 1), ('two', -2, 2.0), ('big', 1 << 40, x'01')";

#[test]
fn rows_are_the_same_in_every_encoding_and_page_size() {
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        for page_size in [512, 1024, 4096, 65536] {
            for auto_vacuum in [0, 1, 2] {
                let before = format!(
                    "PRAGMA page_size = {page_size}; PRAGMA encoding = '{encoding}';
                     PRAGMA auto_vacuum = {auto_vacuum}"
                );
                let place = original(&before, PLAIN);
                let (finished, _) = copy(&place);
                assert_eq!(finished, Finished::default());
                assert_same(&place);
            }
        }
    }
}

#[test]
fn shapes_tell_the_stored_fields_in_their_order() {
    let place = original(
        "",
        "CREATE TABLE g(a INT PRIMARY KEY, v AS (a + 1), s TEXT AS (a * 2) STORED, z DATE NOT NULL);
         CREATE TABLE w(x CLOB, b FLOAT, a VARCHAR(3), y, PRIMARY KEY(a, b, a)) WITHOUT ROWID;
         CREATE TABLE i(z NOT NULL, id INTEGER PRIMARY KEY NOT NULL);
         CREATE TABLE j(id INTEGER PRIMARY KEY DESC)",
    );
    let header = snapshot(&open(&place.original));
    let target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    let told: Vec<String> = target
        .shapes()
        .iter()
        .map(|shape| {
            let fields: Vec<String> = shape
                .fields
                .iter()
                .map(|field| {
                    let not_null = if field.not_null { "!" } else { "" };
                    let alias = if field.rowid_alias { "=" } else { "" };
                    format!("{}{not_null}{alias}:{:?}", field.name, field.affinity)
                })
                .collect();
            format!("{} {} {}", shape.table, shape.least_fields, fields.join(" "))
        })
        .collect();
    assert_eq!(
        told,
        [
            "g 3 a:Integer s:Text z!:Numeric",
            "w 2 a!:Text b!:Real x:Text y:Blob",
            "i 2 z!:Blob id=:Integer",
            "j 1 id:Integer",
        ]
    );
    assert_eq!(target.shapes()[0].fields[1].affinity, Affinity::Text);
    assert_eq!(target.shapes()[0].root, header.schema[0].root);
}

#[test]
fn records_from_before_add_column_get_its_default() {
    let place = original(
        "",
        "CREATE TABLE t(a, b UNIQUE, c DEFAULT CURRENT_TIMESTAMP);
         ALTER TABLE t ADD COLUMN d TEXT NOT NULL DEFAULT 'new';
         ALTER TABLE t ADD COLUMN e;
         ALTER TABLE t ADD COLUMN f INT DEFAULT (-5)",
    );
    let header = snapshot(&open(&place.original));
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    assert_eq!(target.shapes()[0].least_fields, 3);
    let row = [text("a"), text("b"), Stored::Null, text("old"), Stored::Real(0.5), Stored::Null];
    for (rowid, fields) in [(3, 3), (4, 4), (6, 6)] {
        let mut row = row.clone();
        row[1] = Stored::Integer(rowid);
        let inserted = target.insert(0, Some(rowid), &values(&row[..fields])).unwrap();
        assert_eq!(inserted, Inserted::Yes);
    }
    for fields in [2, 7] {
        let row = vec![Stored::Null; fields];
        let inserted = target.insert(0, Some(99), &values(&row)).unwrap();
        assert!(matches!(inserted, Inserted::Refused(_)), "{inserted:?}");
    }
    target.finish(&Entries::default(), &mut [TableSalvage::default()], &NoProgress).unwrap();
    assert_eq!(
        strings(&open(&place.target), "SELECT rowid, quote(c), d, quote(e), f FROM t"),
        [
            "Integer(3) | NULL | new | NULL | Integer(-5)",
            "Integer(4) | NULL | old | NULL | Integer(-5)",
            "Integer(6) | NULL | old | 0.5 | Null",
        ]
    );
}

#[test]
fn duplicates_and_refusals_cost_one_row() {
    let place = original(
        "",
        "CREATE TABLE t(a TEXT, n INT UNIQUE ON CONFLICT REPLACE, z NOT NULL ON CONFLICT ROLLBACK);
         CREATE TABLE w(k TEXT COLLATE NOCASE PRIMARY KEY ON CONFLICT REPLACE, v REAL) WITHOUT ROWID;
         CREATE TABLE s(i INT, t TEXT) STRICT;
         CREATE TABLE p(k TEXT PRIMARY KEY, v);
         CREATE TABLE i(a, id INTEGER PRIMARY KEY, r REAL, u UNIQUE)",
    );
    let header = snapshot(&open(&place.original));
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    let mut insert = |table: usize, rowid: Option<i64>, fields: &[Stored]| match target
        .insert(table, rowid, &values(fields))
        .unwrap()
    {
        Inserted::Yes => "yes",
        Inserted::Duplicate { same: true } => "same",
        Inserted::Duplicate { same: false } => "other",
        Inserted::Refused(_) => "refused",
    };
    let one = Stored::Integer(1);
    let row = [text("a"), one.clone(), Stored::Blob(vec![1])];
    assert_eq!(insert(0, Some(1), &row), "yes");
    assert_eq!(insert(0, Some(1), &row), "same");
    assert_eq!(insert(0, Some(1), &[text("b"), one.clone(), Stored::Blob(vec![1])]), "other");
    assert_eq!(insert(0, Some(1), &[text("a"), one.clone(), Stored::Blob(vec![])]), "other");
    assert_eq!(insert(0, Some(2), &row), "refused");
    assert_eq!(insert(0, Some(3), &[text("a"), Stored::Null, Stored::Null]), "refused");
    assert_eq!(insert(0, None, &row), "refused");
    // A number in a TEXT column, and a text in a numeric one that SQLite would have stored as a
    // number, would not be the same afterwards.
    assert_eq!(insert(0, Some(4), &[one.clone(), Stored::Null, one.clone()]), "refused");
    assert_eq!(insert(0, Some(4), &[text("a"), text(" -1.5e3 "), one.clone()]), "refused");
    assert_eq!(insert(0, Some(4), &[text("a"), Stored::Real(5.0), one.clone()]), "refused");
    assert_eq!(insert(0, Some(4), &[text("a"), text("1.5e"), one.clone()]), "yes");

    assert_eq!(insert(1, None, &[text("key"), one.clone()]), "yes");
    assert_eq!(insert(1, None, &[text("key"), Stored::Real(1.0)]), "same");
    assert_eq!(insert(1, None, &[text("KEY"), one.clone()]), "other");
    assert_eq!(insert(1, None, &[Stored::Null, one.clone()]), "refused");

    assert_eq!(insert(2, Some(1), &[one.clone(), text("x")]), "yes");
    assert_eq!(insert(2, Some(2), &[text("x"), text("x")]), "refused");
    assert_eq!(insert(3, Some(1), &[text("k"), one.clone()]), "yes");
    assert_eq!(insert(3, Some(2), &[text("k"), one.clone()]), "refused");

    // A rowid alias is stored as NULL, and a REAL column's whole numbers as integers.
    let row = |a: i64, r: Stored, u: &str| [Stored::Integer(a), Stored::Null, r, text(u)];
    assert_eq!(insert(4, Some(9), &row(1, one.clone(), "u")), "yes");
    assert_eq!(insert(4, Some(9), &row(1, Stored::Real(1.0), "u")), "same");
    assert_eq!(insert(4, Some(9), &row(2, one.clone(), "u")), "other");
    assert_eq!(insert(4, Some(8), &row(1, one, "u")), "refused");

    let mut tables = vec![TableSalvage::default(); 5];
    target.finish(&Entries::default(), &mut tables, &NoProgress).unwrap();
    let target = open(&place.target);
    assert_eq!(strings(&target, "SELECT rowid, a, n FROM t").len(), 2);
    assert_eq!(strings(&target, "SELECT k FROM w"), ["key"]);
    assert_eq!(strings(&target, "SELECT * FROM i"), ["Integer(1) | Integer(9) | Real(1.0) | u"]);
}

#[test]
fn text_is_kept_byte_for_byte() {
    // A byte-order mark of either order, a lone surrogate, and bytes that are no UTF-8.
    let cases: [(&str, Vec<&[u8]>); 3] = [
        ("UTF-8", vec![b"\xff\xfe", b"\xef\xbb\xbfx", b"a\0b", b"\xc3"]),
        ("UTF-16le", vec![b"\xff\xfeA\0", b"\xfe\xff\0A", b"\x00\xd8A\0", b"\0\0A\0"]),
        ("UTF-16be", vec![b"\xff\xfeA\0", b"\xfe\xff\0A", b"\xd8\x00\0A", b"\0\0\0A"]),
    ];
    for (encoding, texts) in cases {
        let place = original(
            &format!("PRAGMA encoding = '{encoding}'"),
            "CREATE TABLE t(a TEXT); CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
        );
        let header = snapshot(&open(&place.original));
        let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
        for (rowid, &text) in (1..).zip(&texts) {
            let text = Value::Text(text);
            assert_eq!(target.insert(0, Some(rowid), &[text]).unwrap(), Inserted::Yes);
            assert_eq!(
                target.insert(0, Some(rowid), &[text]).unwrap(),
                Inserted::Duplicate { same: true }
            );
            assert_eq!(target.insert(1, None, &[text, Value::Null]).unwrap(), Inserted::Yes);
            target.lost(2, 3, Some(rowid), &[text], "why").unwrap();
        }
        target
            .finish(&Entries::default(), &mut vec![TableSalvage::default(); 2], &NoProgress)
            .unwrap();
        let connection = open(&place.target);
        let hex: Vec<String> = texts
            .iter()
            .map(|text| text.iter().map(|byte| format!("{byte:02X}")).collect())
            .collect();
        for sql in [
            "SELECT hex(CAST(a AS BLOB)) FROM t WHERE typeof(a) = 'text' ORDER BY rowid",
            "SELECT hex(CAST(c0 AS BLOB)) FROM lost_and_found WHERE typeof(c0) = 'text' ORDER BY id",
        ] {
            assert_eq!(strings(&connection, sql), hex, "{encoding} {sql}");
        }
        assert_eq!(number(&connection, "SELECT count(*) FROM w"), 4);
    }
}

#[test]
fn index_entries_are_compared_in_the_databases_encoding() {
    let place = original(
        "PRAGMA encoding = 'UTF-16be'",
        "CREATE TABLE t(a TEXT, n INTEGER); CREATE INDEX byA ON t(a, n)",
    );
    let header = snapshot(&open(&place.original));
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    let fields = [Value::Text(b"\0A\xd8\x00"), Value::Integer(1)];
    for rowid in [1, 2] {
        assert_eq!(target.insert(0, Some(rowid), &fields).unwrap(), Inserted::Yes);
    }
    let entry = |a: &[u8], rowid: i64| {
        vec![Stored::Text(a.to_vec()), Stored::Integer(1), Stored::Integer(rowid)]
    };
    let entries = Entries::default();
    let told = vec![
        entry(b"\0A\xd8\x00", 1),
        entry(b"\0A\0B", 2),
        entry(b"\0C", 3),
        // A number's text in a TEXT column is no evidence against it.
        entry(b"\x001", 4),
    ];
    entries.0.borrow_mut().insert(header.schema[1].root, told);
    let mut tables = [TableSalvage::default()];
    target.finish(&entries, &mut tables, &NoProgress).unwrap();
    assert_eq!(tables[0].missing, [3, 4]);
    assert_eq!(tables[0].suspects.len(), 1);
    assert_eq!(tables[0].suspects[0].rowid, 2);
}

#[test]
fn lost_rows_are_in_a_table_of_their_own_name() {
    let place =
        original("", "CREATE TABLE Lost_And_Found(a); CREATE VIEW lost_and_found_0 AS SELECT 1");
    let header = snapshot(&open(&place.original));
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    target.lost(2, 9, Some(-3), &[Value::Text(b"x"), Value::Real(0.5)], "why").unwrap();
    target.lost(0, 8, None, &[Value::Null, Value::Blob(b""), Value::Integer(5)], "why").unwrap();
    target.lost(0, 8, None, &vec![Value::Integer(7); 2_500], "why").unwrap();
    let finished =
        target.finish(&Entries::default(), &mut [TableSalvage::default()], &NoProgress).unwrap();
    assert_eq!(finished.lost_and_found, 3);
    let target = open(&place.target);
    assert_eq!(
        strings(
            &target,
            "SELECT rootpgno, pgno, nfield, id, c0, c1, c2, c1994 FROM lost_and_found_1"
        ),
        [
            "Integer(2) | Integer(9) | Integer(2) | Integer(-3) | x | Real(0.5) | Null | Null",
            "Integer(0) | Integer(8) | Integer(3) | Null | Null | Blob([]) | Integer(5) | Null",
            "Integer(0) | Integer(8) | Integer(2500) | Null | Integer(7) | Integer(7) | Integer(7) \
             | Integer(7)",
        ]
    );
}

#[test]
fn a_file_that_exists_is_not_touched() {
    let place = original("", "CREATE TABLE t(a)");
    std::fs::write(&place.target, "mine").unwrap();
    let header = snapshot(&open(&place.original));
    let error = Target::create(&place.target, &header, &header.schema, limits()).unwrap_err();
    assert_eq!(error.errcode, rusqlite::ffi::SQLITE_CANTOPEN);
    assert_eq!(std::fs::read(&place.target).unwrap(), b"mine");
}

fn insert_logs(connection: &Connection) {
    connection
        .execute_batch(
            "INSERT INTO tasks(id, title, description, createdAt, updatedAt)
               VALUES ('F-1', 'first', 'sails and ropes', '2026', '2026'),
                      ('F-2', 'second', 'nothing', '2026', '2026');
             DELETE FROM tasks WHERE id = 'F-2';
             INSERT INTO tasks(rowid, id, title, createdAt, updatedAt)
               VALUES (40, 'F-3', 'third ship', '2026', '2026');
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO agentLogEntries(taskId, timestamp, text, type)
               SELECT iif(i % 3, 'F-1', 'F-3'), '2026-' || i, 'line ' || i, 'text' FROM n;
             DELETE FROM agentLogEntries WHERE id > 2990 OR id = 5;
             INSERT INTO activityLog VALUES ('a', 't', 'x', NULL, '{}')",
        )
        .unwrap();
}

#[test]
fn a_fusion_database_is_the_same() {
    let place = original("", include_str!("../examples/fusion-schema.sql"));
    insert_logs(&open(&place.original));
    let (finished, tables) = copy(&place);
    assert_eq!(finished.schema_errors, [""; 0]);
    assert_eq!(finished.rebuilt, [""; 0], "its own tables are carried");
    assert_eq!(finished.lost_and_found, 0);
    assert_same(&place);
    for table in &tables {
        assert!(table.suspects.is_empty() && table.missing.is_empty(), "{table:?}");
    }
    let told = |name: &str| tables.iter().find(|it| it.name == name).unwrap().rows_missing;
    assert_eq!(told("agentLogEntries"), Some(0));
    assert_eq!(told("tasks_fts_docsize"), None);

    let target = open(&place.target);
    let found = "SELECT rowid FROM tasks_fts WHERE tasks_fts MATCH 'ship OR ropes' ORDER BY rowid";
    assert_eq!(strings(&target, found), ["Integer(1)", "Integer(40)"]);
    target
        .execute_batch("INSERT INTO tasks_fts(tasks_fts, rank) VALUES ('integrity-check', 1)")
        .unwrap();
    // The triggers work again, and the next id is one that was never used.
    target
        .execute_batch(
            "UPDATE tasks SET title = 'a whale' WHERE id = 'F-3';
             INSERT INTO agentLogEntries(taskId, timestamp, text, type) VALUES ('F-1', '', '', '')",
        )
        .unwrap();
    assert_eq!(number(&target, "SELECT rowid FROM tasks_fts('whale')"), 40);
    assert_eq!(number(&target, "SELECT max(id) FROM agentLogEntries"), 3001);
}

#[test]
fn everything_of_a_schema_comes_back() {
    let place = original(
        "",
        r#"CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT UNIQUE COLLATE NOCASE, c REAL,
                          v AS (b || c), s AS (c * 2) STORED, CHECK (c > -100));
           CREATE INDEX "by ""c" ON t(c DESC, a); CREATE INDEX partial ON t(b) WHERE c > 2;
           CREATE UNIQUE INDEX expression ON t(lower(b) || 'x', v); CREATE INDEX onV ON t(v, s);
           CREATE TABLE child(p REFERENCES t(a) ON DELETE CASCADE, q, PRIMARY KEY(q, p))
             WITHOUT ROWID;
           CREATE INDEX byP ON child(p);
           CREATE TABLE hidden(rowid, _rowid_, oid UNIQUE, x AS (oid + 1));
           CREATE INDEX hiddenIndex ON hidden(oid, _rowid_);
           CREATE VIEW seen AS SELECT b FROM t JOIN child ON p = a;
           CREATE TRIGGER seenInsert INSTEAD OF INSERT ON seen BEGIN
             INSERT INTO t(b) VALUES (new.b); SELECT "double"; END;
           CREATE TRIGGER noted AFTER INSERT ON t BEGIN INSERT INTO log(a) VALUES (new.a); END;
           CREATE TABLE log(a);
           CREATE TABLE "quoted '""name"("the ""a", [b c], `d`);
           CREATE TABLE strict(i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;
           CREATE TABLE numbers(id INTEGER PRIMARY KEY AUTOINCREMENT);
           CREATE TABLE empty(id INTEGER PRIMARY KEY AUTOINCREMENT);
           INSERT INTO t(b, c) VALUES ('one', 1), ('two', 2.5), ('Three', 3), (NULL, NULL);
           INSERT INTO child VALUES (1, 'x'), (2, 'x'), (1, 'a');
           INSERT INTO "quoted '""name" VALUES (1, 2, 3);
           INSERT INTO strict VALUES (1, 2, '3', x'04', '5'), (1, 2.5, '3', x'04', 5);
           INSERT INTO numbers VALUES (10), (50); DELETE FROM numbers WHERE id = 50;
           ANALYZE"#,
    );
    let (finished, tables) = copy(&place);
    assert_eq!(finished, Finished::default());
    assert_same(&place);
    assert!(tables.iter().all(|table| table.suspects.is_empty() && table.missing.is_empty()));
    let (target, was) = (open(&place.target), open(&place.original));
    assert_eq!(number(&target, "SELECT seq FROM sqlite_sequence WHERE name = 'numbers'"), 50);
    assert!(number(&was, "SELECT count(*) FROM sqlite_stat1") > 0);
    target.execute_batch("INSERT INTO seen VALUES ('four')").unwrap();
    assert_eq!(number(&target, "SELECT count(*) FROM log"), 5);
}

#[test]
fn a_table_whose_columns_have_taken_all_names_of_the_rowid_keeps_its_rowids() {
    let place = original("", "CREATE TABLE hidden(rowid, _rowid_, Oid UNIQUE, x AS (oid + 1))");
    let header = snapshot(&open(&place.original));
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    assert_eq!(target.shapes()[0].fields[2].name, "Oid");
    let fields = [Value::Integer(1), Value::Integer(2), Value::Integer(3)];
    assert_eq!(target.insert(0, Some(77), &fields).unwrap(), Inserted::Yes);
    assert_eq!(target.insert(0, Some(77), &fields).unwrap(), Inserted::Duplicate { same: true });
    target.finish(&Entries::default(), &mut [TableSalvage::default()], &NoProgress).unwrap();
    assert_eq!(schema(&place.target), schema(&place.original));
    let target = open(&place.target);
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
    // SQL cannot name the rowid before a column gives its name back.
    target
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, '(rowid', '(other');
             PRAGMA writable_schema = RESET",
        )
        .unwrap();
    assert_eq!(number(&target, "SELECT rowid FROM hidden WHERE oid = 3 AND x = 4"), 77);
}

#[test]
fn full_text_and_r_trees_answer_as_before() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE own_fts USING fts5(title, body, tokenize = 'porter');
         INSERT INTO own_fts VALUES ('one', 'sailing ships'), ('two', 'a ship');
         CREATE VIRTUAL TABLE none_fts USING fts5(body, content='');
         INSERT INTO none_fts(rowid, body) VALUES (3, 'ships'), (4, 'boats');
         CREATE VIRTUAL TABLE old_fts USING fts4(body, notindexed=body, x);
         INSERT INTO old_fts VALUES ('boats', 'ships');
         CREATE TABLE docs(id INTEGER PRIMARY KEY, t);
         INSERT INTO docs VALUES (7, 'ships of old');
         CREATE VIRTUAL TABLE ext_fts USING fts4(content=\"docs\", t);
         INSERT INTO ext_fts(docid, t) SELECT id, t FROM docs;
         CREATE VIRTUAL TABLE bare_fts USING fts4(content=\"\", t);
         INSERT INTO bare_fts(docid, t) VALUES (9, 'ships alone');
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, +name);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO boxes SELECT i, i, i + 0.5, 'box ' || i FROM n;
         CREATE VIRTUAL TABLE terms USING fts5vocab(own_fts, row)",
    );
    let (finished, _) = copy(&place);
    assert_eq!(finished.schema_errors, [""; 0]);
    assert_eq!(finished.rebuilt, [""; 0], "their own tables are carried");
    assert_same(&place);
    for sql in [
        "SELECT rowid, highlight(own_fts, 1, '<', '>') FROM own_fts
          WHERE own_fts MATCH 'ship' ORDER BY 1",
        "SELECT rowid FROM none_fts WHERE none_fts MATCH 'ships'",
        "SELECT * FROM old_fts WHERE old_fts MATCH 'ships'",
        "SELECT docid, snippet(ext_fts) FROM ext_fts WHERE ext_fts MATCH 'ships'",
        "SELECT docid FROM bare_fts WHERE bare_fts MATCH 'ships'",
        "SELECT id, name, x1 FROM boxes WHERE x0 > 100 AND x1 < 104",
        "SELECT * FROM terms",
        "SELECT rtreecheck('boxes')",
    ] {
        let (is, was) = (strings(&open(&place.target), sql), strings(&open(&place.original), sql));
        assert!(!was.is_empty());
        assert_eq!(is, was, "{sql}");
    }
}

#[test]
fn what_cannot_be_made_again_is_said_and_does_no_harm() {
    let place = original("", "CREATE TABLE good(a); CREATE TABLE other(b)");
    let mut header = snapshot(&open(&place.original));
    let entry = |kind: &str, name: &str, sql: &str| SchemaEntry {
        kind: kind.to_owned(),
        name: name.to_owned(),
        table: "good".to_owned(),
        root: 9,
        sql: Some(sql.to_owned()),
    };
    let bad = [
        entry("table", "cut", "CREATE TABLE cut(a, b"),
        entry("table", "dropper", "DROP TABLE good"),
        entry(
            "table",
            "endless",
            "CREATE TABLE endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n)
             SELECT * FROM n",
        ),
        entry("table", "two", "CREATE TABLE two(a); DROP TABLE good"),
        entry("table", "misnamed", "CREATE TABLE named(a)"),
        entry("table", "good", "CREATE TABLE good(a)"),
        entry("table", "sqlite_other", "CREATE TABLE sqlite_other(a)"),
        entry("index", "nowhere", "CREATE INDEX nowhere ON gone(a)"),
        entry("index", "noColumn", "CREATE INDEX noColumn ON good(gone)"),
        entry("view", "noView", "CREATE VIEW noView AS SELEC 1"),
        entry(
            "trigger",
            "noTable",
            "CREATE TRIGGER noTable AFTER INSERT ON gone BEGIN SELECT 1; END",
        ),
        entry("trigger", "pragma", "PRAGMA user_version = 9"),
        entry("table", "cutVirtual", "CREATE VIRTUAL TABLE cutVirtual USING fts5(a"),
        entry("table", "other", "CREATE VIRTUAL TABLE other USING no_such_module(a)"),
        entry("table", "noShadow", "CREATE VIRTUAL TABLE noShadow USING fts5(a)"),
    ];
    header.schema.extend(bad.iter().cloned());
    let unknown = "CREATE VIRTUAL TABLE unknown USING no_such_module(a)";
    header.schema.push(entry("table", "unknown", unknown));
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    assert_eq!(target.shapes().len(), 2);
    assert_eq!(target.insert(0, Some(1), &[Value::Integer(5)]).unwrap(), Inserted::Yes);
    let mut tables = vec![TableSalvage::default(); 2];
    let finished = target.finish(&Entries::default(), &mut tables, &NoProgress).unwrap();
    for entry in &bad {
        let begin = format!("{} {}: ", entry.kind, entry.name);
        assert!(
            finished.schema_errors.iter().any(|error| error.starts_with(&begin)),
            "{begin} {:?}",
            finished.schema_errors
        );
    }
    assert_eq!(finished.schema_errors.len(), bad.len(), "{:?}", finished.schema_errors);
    let target = open(&place.target);
    assert_eq!(strings(&target, "SELECT a FROM good"), ["Integer(5)"]);
    assert_eq!(
        strings(
            &target,
            "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'noShadow\\_%' ESCAPE '\\'
              ORDER BY name"
        ),
        ["good", "noShadow", "other", "unknown"]
    );
    assert_eq!(number(&target, "PRAGMA user_version"), 0);
    // Its own tables are made anew: it is empty, and takes rows.
    target.execute_batch("INSERT INTO noShadow VALUES ('new ship')").unwrap();
    assert_eq!(number(&target, "SELECT count(*) FROM noShadow WHERE noShadow MATCH 'ship'"), 1);
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn rows_in_the_way_of_a_unique_index_move_to_lost_and_found() {
    let place = original(
        "",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b, r REAL);
         CREATE UNIQUE INDEX plain ON t(a COLLATE NOCASE DESC, b);
         CREATE UNIQUE INDEX expression ON t(coalesce(b, 'x,('), 'a' || r) WHERE r > 0;
         CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID;
         CREATE UNIQUE INDEX byV ON w(v)",
    );
    let header = snapshot(&open(&place.original));
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    for (rowid, a, b, r) in [
        (9, "A", 1, 0.0),
        (2, "a", 1, 0.0),
        (3, "b", 1, 5.5),
        (5, "c", 1, 5.5),
        (6, "d", 1, -1.0),
        (7, "e", 1, -1.0),
    ] {
        let fields = [Value::Null, Value::Text(a.as_bytes()), Value::Integer(b), Value::Real(r)];
        assert_eq!(target.insert(0, Some(rowid), &fields).unwrap(), Inserted::Yes);
    }
    let seven = Value::Integer(7);
    for (key, value) in [(2, seven), (1, seven), (3, Value::Null), (4, Value::Null)] {
        let inserted = target.insert(1, None, &[Value::Integer(key), value]).unwrap();
        assert_eq!(inserted, Inserted::Yes);
    }
    let mut tables: Vec<TableSalvage> =
        [6, 4].map(|rows| TableSalvage { rows, ..TableSalvage::default() }).to_vec();
    let finished = target.finish(&Entries::default(), &mut tables, &NoProgress).unwrap();
    assert_eq!(finished.schema_errors, [""; 0]);
    assert_eq!(finished.lost_and_found, 3);
    assert_eq!([tables[0].rows, tables[1].rows], [4, 3]);
    let target = open(&place.target);
    assert_eq!(
        strings(&target, "SELECT group_concat(id) FROM (SELECT id FROM t ORDER BY id)"),
        ["2,3,6,7"]
    );
    assert_eq!(
        strings(&target, "SELECT group_concat(k) FROM (SELECT k FROM w ORDER BY k)"),
        ["1,3,4"]
    );
    let root = header.schema[0].root;
    let lost = format!("SELECT rootpgno = {root}, nfield, id, c0, c1, c2, c3 FROM lost_and_found");
    assert_eq!(
        strings(&target, &lost),
        [
            "Integer(1) | Integer(4) | Integer(9) | Null | A | Integer(1) | Real(0.0)",
            "Integer(1) | Integer(4) | Integer(5) | Null | c | Integer(1) | Real(5.5)",
            "Integer(0) | Integer(2) | Null | Integer(2) | Integer(7) | Null | Null",
        ]
    );
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn indexes_tell_which_rows_are_missing_and_which_were_changed() {
    let place = original(
        "",
        "CREATE TABLE t(a TEXT NOT NULL, b UNIQUE, r REAL, z AS (a || 'z'));
         CREATE INDEX byA ON t(a, r); CREATE INDEX byZ ON t(z, r);
         CREATE TABLE u(a); CREATE INDEX byU ON u(a);
         CREATE TABLE v(a)",
    );
    let header = snapshot(&open(&place.original));
    let root = |name: &str| header.schema.iter().find(|entry| entry.name == name).unwrap().root;
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    for rowid in 1..=100 {
        let a = format!("row {rowid}");
        let fields = [Value::Text(a.as_bytes()), Value::Integer(rowid * 10), Value::Integer(rowid)];
        assert_eq!(target.insert(0, Some(rowid), &fields).unwrap(), Inserted::Yes);
    }
    target.lost(root("t"), 5, Some(203), &[Value::Null], "why").unwrap();
    let by_a =
        |a: &str, r: i64, rowid: i64| vec![text(a), Stored::Integer(r), Stored::Integer(rowid)];
    let by_b = |b: i64, rowid: i64| vec![Stored::Integer(b), Stored::Integer(rowid)];
    let entries = Entries::default();
    entries.0.borrow_mut().extend([
        (
            root("byA"),
            vec![
                by_a("row 1", 1, 1),
                by_a("row 2", 3, 2),
                by_a("Row 3", 3, 3),
                by_a("row 201", 201, 201),
                by_a("row 202", 202, 202),
                by_a("row 203", 203, 203),
                // None of these can be an entry of this index.
                vec![Stored::Null, Stored::Integer(1), Stored::Integer(301)],
                vec![Stored::Integer(5), Stored::Integer(1), Stored::Integer(302)],
                vec![text("row 303"), Stored::Integer(303)],
                vec![text("row 304"), Stored::Integer(1), text("304")],
                vec![],
            ],
        ),
        // Of key 30 there is row 3; 201 is missing here, too.
        (root("sqlite_autoindex_t_1"), vec![by_b(30, 401), by_b(2010, 201), by_b(41, 4)]),
        // A computed part is not compared.
        (root("byZ"), vec![by_a("other", 5, 5), by_a("other", 7, 6)]),
    ]);
    let mut tables = vec![TableSalvage::default(); 3];
    target.finish(&entries, &mut tables, &NoProgress).unwrap();
    assert_eq!(tables[0].rows_missing, Some(2));
    assert_eq!(tables[0].missing, [201, 202]);
    let suspects: Vec<(i64, &str)> =
        tables[0].suspects.iter().map(|it| (it.rowid, it.index.as_str())).collect();
    assert_eq!(suspects, [(4, "sqlite_autoindex_t_1"), (2, "byA"), (3, "byA"), (6, "byZ")]);
    assert_eq!([tables[1].rows_missing, tables[2].rows_missing], [None, None]);
}

#[test]
fn a_full_text_index_whose_own_rows_are_lost_is_rebuilt() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE five USING fts5(title, body);
         INSERT INTO five VALUES ('one', 'sailing ships'), ('two', 'a ship');
         CREATE VIRTUAL TABLE four USING fts4(title, body);
         INSERT INTO four VALUES ('one', 'sailing ships'), ('two', 'a ship');
         CREATE VIRTUAL TABLE broken USING fts5(title, body);
         INSERT INTO broken VALUES ('one', 'sailing ships'), ('two', 'a ship');
         UPDATE broken_data SET block = x'00ff'; UPDATE broken_config SET v = 'x'",
    );
    let (finished, _) = copy_without(&place, |table, rowid| match table {
        "five_content" | "four_content" | "broken_content" => rowid == Some(1),
        _ => !table.starts_with("broken"),
    });
    assert_eq!(finished.schema_errors, [""; 0]);
    assert_eq!(finished.rebuilt, ["five", "four", "broken"]);
    let target = open(&place.target);
    for table in ["five", "four", "broken"] {
        let found = format!("SELECT title FROM {table} WHERE {table} MATCH 'ship OR ships'");
        assert_eq!(strings(&target, &found), ["two"]);
        let check = format!("INSERT INTO {table}({table}) VALUES ('integrity-check')");
        target.execute_batch(&check).unwrap();
        target.execute_batch(&format!("INSERT INTO {table} VALUES ('x', 'new ship')")).unwrap();
        assert_eq!(strings(&target, &found).len(), 2);
    }
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn a_virtual_table_is_usable_whichever_of_its_own_tables_the_schema_has_lost() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE five USING fts5(title, body);
         INSERT INTO five VALUES ('one', 'sailing ships'), ('two', 'a ship');
         CREATE VIRTUAL TABLE four USING fts4(title, body);
         INSERT INTO four VALUES ('one', 'sailing ships'), ('two', 'a ship');
         CREATE VIRTUAL TABLE bare USING fts5(body, content='');
         INSERT INTO bare(rowid, body) VALUES (3, 'a ship');
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1);
         INSERT INTO boxes VALUES (1, 0, 1), (2, 5, 7)",
    );
    let own: Vec<String> = snapshot(&open(&place.original))
        .schema
        .into_iter()
        .filter(|entry| entry.kind == "table" && entry.root > 0)
        .map(|entry| entry.name)
        .collect();
    assert_eq!(own.len(), 5 + 5 + 4 + 3);
    for lost in &own {
        let (finished, _) =
            copy_with(&place, |schema| schema.retain(|it| it.name != *lost), |_, _| false);
        let target = open(&place.target);
        assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"], "{lost}");
        // What is lost for good is said; an index that follows from content is not.
        let derived =
            (lost.starts_with("five") || lost.starts_with("four")) && !lost.ends_with("_content");
        assert_eq!(finished.schema_errors.is_empty(), derived, "{lost} {finished:?}");
        for table in ["five", "four"] {
            let found = format!("SELECT title FROM {table} WHERE {table} MATCH 'ship' ORDER BY 1");
            let gone = *lost == format!("{table}_content");
            assert_eq!(strings(&target, &found), if gone { vec![] } else { vec!["two"] }, "{lost}");
            target.execute_batch(&format!("INSERT INTO {table} VALUES ('x', 'ship')")).unwrap();
            assert!(strings(&target, &found).contains(&"x".to_owned()), "{lost}");
        }
        target.execute_batch("INSERT INTO bare(rowid, body) VALUES (9, 'new')").unwrap();
        target.execute_batch("INSERT INTO boxes VALUES (9, 2, 3)").unwrap();
        assert_eq!(number(&target, "SELECT id FROM boxes WHERE x0 = 2"), 9, "{lost}");
        assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"], "{lost}");
    }
}

#[test]
fn a_full_text_index_is_rebuilt_though_its_own_tables_statements_are_damaged() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE five USING fts5(title, body);
         INSERT INTO five VALUES ('one', 'sailing ships'), ('two', 'a ship');
         CREATE VIRTUAL TABLE four USING fts4(title, body);
         INSERT INTO four VALUES ('one', 'sailing ships'), ('two', 'a ship')",
    );
    let change = |schema: &mut Vec<SchemaEntry>| {
        for (name, is, becomes) in [
            ("five_idx", "segid", "segie"),
            ("five_config", "k PRIMARY", "j PRIMARY"),
            ("four_segdir", "start_block", "start_blocj"),
        ] {
            let entry = schema.iter_mut().find(|entry| entry.name == name).unwrap();
            let sql = entry.sql.as_mut().unwrap();
            assert!(sql.contains(is), "{sql}");
            *sql = sql.replace(is, becomes);
        }
    };
    let (finished, _) = copy_with(&place, change, |_, _| false);
    assert_eq!(finished.rebuilt, ["five", "four"], "{finished:?}");
    let target = open(&place.target);
    for table in ["five", "four"] {
        let found = format!("SELECT title FROM {table} WHERE {table} MATCH 'ship'");
        assert_eq!(strings(&target, &found), ["two"]);
    }
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn a_virtual_table_that_can_never_be_opened_is_left_out_and_its_rows_stay() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE five USING fts5(body, tokenize = 'porter');
         INSERT INTO five VALUES ('sailing ships');
         CREATE VIRTUAL TABLE four USING fts4(body, tokenize=porter);
         INSERT INTO four VALUES ('sailing ships')",
    );
    let change = |schema: &mut Vec<SchemaEntry>| {
        for entry in schema.iter_mut() {
            entry.sql = entry.sql.take().map(|sql| sql.replace("porter", "portes"));
        }
    };
    let (finished, _) = copy_with(&place, change, |_, _| false);
    let target = open(&place.target);
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
    for (table, column) in [("five", "c0"), ("four", "c0body")] {
        let said = format!("table {table}: ");
        let error = finished.schema_errors.iter().find(|error| error.starts_with(&said)).unwrap();
        assert!(error.contains(&format!("CREATE VIRTUAL TABLE {table}")), "{error}");
        let rows = strings(&target, &format!("SELECT {column} FROM {table}_content"));
        assert_eq!(rows, ["sailing ships"]);
    }
}

#[test]
fn a_damaged_index_without_content_is_empty_and_its_rows_are_lost_and_found() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE bare USING fts5(body, content='');
         INSERT INTO bare(rowid, body) VALUES (3, 'a ship')",
    );
    let (finished, _) = copy_without(&place, |table, id| table == "bare_data" && id == Some(10));
    assert!(finished.schema_errors[0].starts_with("table bare: "), "{finished:?}");
    assert!(finished.lost_and_found > 0);
    let target = open(&place.target);
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
    target.execute_batch("INSERT INTO bare(rowid, body) VALUES (9, 'new ship')").unwrap();
    assert_eq!(number(&target, "SELECT rowid FROM bare WHERE bare MATCH 'ship'"), 9);
}

#[test]
fn a_damaged_polygon_index_is_made_anew_of_its_shapes() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE fields USING geopoly(name);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO fields(_shape, name)
           SELECT geopoly_regular(i, i, 1, 4), 'field ' || i FROM n",
    );
    let (finished, _) = copy_without(&place, |table, _| table == "fields_node");
    assert_eq!(finished.rebuilt, ["fields"], "{finished:?}");
    let (target, was) = (open(&place.target), open(&place.original));
    for sql in [
        "SELECT rowid, name, geopoly_json(_shape) FROM fields ORDER BY rowid",
        "SELECT name FROM fields WHERE geopoly_overlap(_shape, geopoly_bbox(
           geopoly_regular(50, 50, 3, 4))) ORDER BY rowid",
    ] {
        assert_eq!(strings(&target, sql), strings(&was, sql));
    }
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn a_damaged_r_tree_of_many_entries_is_made_anew_within_its_limits() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
         INSERT INTO boxes SELECT i, i * 7919 % 10007, i * 7919 % 10007 + 1, i, i FROM n",
    );
    let leaf = number(&open(&place.original), "SELECT nodeno FROM boxes_rowid WHERE rowid = 1000");
    let (finished, _) =
        copy_without(&place, |table, rowid| table == "boxes_node" && rowid == Some(leaf));
    assert_eq!(finished.rebuilt, ["boxes"]);
    assert!(number(&open(&place.target), "SELECT count(*) FROM boxes") > 29_900);
}

#[test]
fn a_damaged_r_tree_is_made_anew_of_what_is_certain() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1);
         CREATE VIRTUAL TABLE named USING rtree_i32(id, x0, x1, +name, +more);
         CREATE VIRTUAL TABLE whole USING rtree(id, x0, x1);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO boxes SELECT i, i, i + 0.5, -i, 0.1 FROM n;
         INSERT INTO named SELECT id, id, id + 7, 'name ' || id, NULL FROM boxes;
         INSERT INTO whole SELECT id, x0, x1 FROM boxes",
    );
    let was = open(&place.original);
    let root = number(&was, "SELECT rootpage FROM sqlite_schema WHERE name = 'named_rowid'");
    // The root, a leaf, and for boxes some of what tells where the entries are.
    let leaf = number(&was, "SELECT nodeno FROM boxes_rowid WHERE rowid = 1000");
    let named_leaf = number(&was, "SELECT nodeno FROM named_rowid WHERE rowid = 1000");
    let (finished, _) = copy_without(&place, |table, rowid| match table {
        "boxes_node" => rowid == Some(leaf) || rowid == Some(1),
        "boxes_rowid" => rowid.unwrap() % 10 == 3,
        "boxes_parent" => rowid == Some(5),
        "named_node" => rowid == Some(named_leaf),
        _ => false,
    });
    assert_eq!(finished.rebuilt, ["boxes", "named"]);
    let target = open(&place.target);
    for (table, leaf) in [("boxes", leaf), ("named", named_leaf)] {
        let gone = format!("id IN (SELECT rowid FROM {table}_rowid WHERE nodeno = {leaf})");
        let kept = strings(&was, &format!("SELECT * FROM {table} WHERE NOT {gone} ORDER BY id"));
        assert!(kept.len() > 2_900 && kept.len() < 3_000);
        assert_eq!(strings(&target, &format!("SELECT * FROM {table} ORDER BY id")), kept);
        assert_eq!(strings(&target, &format!("SELECT rtreecheck('{table}')")), ["ok"]);
        assert!(
            finished.schema_errors.iter().any(|it| it.starts_with(&format!("table {table}: ")))
        );
    }
    assert_eq!(finished.schema_errors.len(), 2);
    // What the table's other columns held is not lost.
    let gone = format!("SELECT rowid, a0 FROM named_rowid WHERE nodeno = {named_leaf} ORDER BY 1");
    let kept = format!("SELECT id, c2 FROM lost_and_found WHERE rootpgno = {root} ORDER BY 1");
    assert_eq!(strings(&target, &kept), strings(&was, &gone));
    let all = number(&target, "SELECT count(*) FROM lost_and_found");
    assert_eq!(finished.lost_and_found, all.unsigned_abs());
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn zeroed_ends_of_r_tree_nodes_are_no_entries() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
         INSERT INTO boxes SELECT i, 100 + i, 101 + i, 300 - i, 301 - i FROM n",
    );
    let was = open(&place.original);
    let whole = strings(&was, "SELECT * FROM boxes ORDER BY id");
    let leaf = number(&was, "SELECT nodeno FROM boxes_rowid WHERE rowid = 0");
    let other =
        number(&was, &format!("SELECT max(nodeno) FROM boxes_rowid WHERE nodeno <> {leaf}"));
    let zero = |connection: &Connection, node: i64| {
        let cells =
            number(connection, &format!("SELECT count(*) FROM boxes_rowid WHERE nodeno = {node}"));
        // The last three of the node's cells.
        let kept = 4 + 24 * (cells - 3);
        connection
            .execute(
                "UPDATE boxes_node SET data = CAST(substr(data, 1, ?2) || zeroblob(length(data) - ?2) AS BLOB)
                  WHERE nodeno = ?1",
                [node, kept],
            )
            .unwrap();
    };
    // Another node's end is zeroed: the entry of id 0 is where it was.
    zero(&was, other);
    copy(&place);
    let found = strings(&open(&place.target), "SELECT * FROM boxes ORDER BY id");
    assert_eq!(found.len(), whole.len() - 3);
    assert!(found.iter().all(|row| whole.contains(row)), "{found:?}");
    assert!(found.contains(&whole[0]));
    // And where its own cell is gone, no such cell is taken for it.
    let first: Vec<u8> = was
        .query_row("SELECT data FROM boxes_node WHERE nodeno = ?1", [leaf], |row| row.get(0))
        .unwrap();
    let at = first[4..].chunks(24).position(|cell| cell[..8] == [0; 8]).unwrap();
    let mut without = first.clone();
    without[4 + 24 * at..][..24].fill(0);
    was.execute("UPDATE boxes_node SET data = ?2 WHERE nodeno = ?1", (leaf, without)).unwrap();
    std::fs::remove_file(&place.target).unwrap();
    copy(&place);
    let found = strings(&open(&place.target), "SELECT * FROM boxes ORDER BY id");
    assert_eq!(found.len(), whole.len() - 4);
    assert!(found.iter().all(|row| whole.contains(row)), "{found:?}");
}

/// A task that is cancelled when it is asked for the nth time, and notes its stages.
struct Cancelled {
    left: std::sync::atomic::AtomicI64,
    stages: std::sync::Mutex<Vec<&'static str>>,
}

impl Cancelled {
    fn after(questions: i64) -> Self {
        Self { left: questions.into(), stages: std::sync::Mutex::default() }
    }
}

impl Progress for Cancelled {
    fn stage(&self, stage: Stage) {
        assert!(stage.done <= stage.total, "{stage:?}");
        let mut stages = self.stages.lock().unwrap();
        if stages.last() != Some(&stage.name) {
            stages.push(stage.name);
        }
    }

    fn check_cancelled(&self) -> Result<()> {
        match self.left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) {
            ..=0 => Err(Error::cancelled()),
            _ => Ok(()),
        }
    }
}

#[test]
fn an_r_tree_without_a_node_is_empty_and_its_entries_are_lost_and_found() {
    let place = original(
        "",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, +name);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO boxes SELECT i, i, i + 0.5, 'box ' || i FROM n",
    );
    let (finished, _) = copy_without(&place, |table, _| table == "boxes_node");
    assert_eq!(finished.rebuilt, ["boxes"]);
    assert_eq!(finished.lost_and_found, 500);
    assert!(finished.schema_errors[0].starts_with("table boxes: "), "{:?}", finished.schema_errors);
    let target = open(&place.target);
    assert_eq!(number(&target, "SELECT count(*) FROM boxes"), 0);
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
}

/// That no connection was left behind.
fn assert_closed(path: &Path) {
    #[cfg(target_os = "linux")]
    for descriptor in std::fs::read_dir("/proc/self/fd").unwrap() {
        let file = std::fs::read_link(descriptor.unwrap().path()).unwrap_or_default();
        assert_ne!(file, path.canonicalize().unwrap());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
}

#[test]
fn a_task_ends_it_at_any_step() {
    let place = original(
        "",
        "CREATE TABLE t(a, b); CREATE VIRTUAL TABLE f USING fts5(a, content='t');
         CREATE INDEX byAll ON t(a, b)",
    );
    let header = snapshot(&open(&place.original));
    let mut asked = 0;
    loop {
        let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
        for rowid in 1..=20_000 {
            let fields = [Value::Integer(rowid * 7919 % 20_011), Value::Text(b"words and words")];
            assert_eq!(target.insert(0, Some(rowid), &fields).unwrap(), Inserted::Yes);
        }
        target.lost(1, 1, None, &[Value::Null], "why").unwrap();
        let task = Cancelled::after(asked);
        let mut tables = vec![TableSalvage::default(); target.shapes().len()];
        let finished = target.finish(&Entries::default(), &mut tables, &task);
        let names: Vec<_> = std::fs::read_dir(place.target.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_closed(&place.target);
        std::fs::remove_file(&place.target).unwrap();
        match finished {
            Err(error) => assert_eq!(error.code, "ERR_FUSION_CANCELLED"),
            Ok(finished) => {
                assert_eq!(finished.rebuilt, ["f"]);
                let stages = task.stages.lock().unwrap();
                assert_eq!(*stages, ["indexes", "comparing", "full-text"]);
                break;
            }
        }
        asked += 1;
    }
    // Before and within each step: long statements are interrupted.
    assert!(asked > 8, "{asked}");
}

#[test]
fn what_is_dropped_leaves_its_file_alone() {
    let place = original("", "CREATE TABLE t(a)");
    let header = snapshot(&open(&place.original));
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    target.insert(0, Some(1), &[Value::Null]).unwrap();
    target.lost(1, 1, None, &[Value::Null], "why").unwrap();
    drop(target);
    assert_closed(&place.target);
    let names: Vec<_> = std::fs::read_dir(place.target.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    std::fs::remove_file(&place.target).unwrap();
    Target::create(&place.target, &header, &header.schema, limits()).unwrap();
}

#[test]
fn reserved_bytes_and_a_file_without_tables_are_kept() {
    let place = original("PRAGMA user_version = 3", "CREATE TABLE t(a)");
    let mut header = snapshot(&open(&place.original));
    header.reserved = 12;
    let target = Target::create(&place.target, &header, &[], limits()).unwrap();
    target.finish(&Entries::default(), &mut [], &NoProgress).unwrap();
    // The header's byte 20 is the size of the reserved region.
    assert_eq!(std::fs::read(&place.target).unwrap()[20], 12);
    assert_eq!(number(&open(&place.target), "PRAGMA user_version"), 3);
    assert_eq!(schema(&place.target), [""; 0]);
}

#[test]
fn tables_that_need_the_applications_functions_keep_their_rows() {
    let place = original(
        "",
        "CREATE TABLE checked(id, a TEXT COLLATE NOCASE, b VARCHAR(9) DEFAULT (abs(1)), CHECK (abs(b) < 9));
         CREATE INDEX byA ON checked(a); CREATE INDEX byB ON checked(b);
         INSERT INTO checked VALUES (1, 'x', 2), (2, 'Y', 3);
         CREATE TABLE computed(a, b AS (abs(a)) STORED);
         INSERT INTO computed VALUES (-4);
         CREATE TABLE keyed(k TEXT COLLATE NOCASE UNIQUE);
         INSERT INTO keyed VALUES ('k')",
    );
    open(&place.original)
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(replace(sql, 'abs(', 'app_f('), 'NOCASE', 'app_c')",
        )
        .unwrap();
    let header = snapshot(&open(&place.original));
    let mut target = Target::create(&place.target, &header, &header.schema, limits()).unwrap();
    let names: Vec<&str> = target.shapes().iter().map(|shape| shape.table.as_str()).collect();
    assert_eq!(names, ["checked", "computed", "keyed"]);
    let row = [Value::Integer(1), Value::Text(b"x"), Value::Text(b"y")];
    assert_eq!(target.insert(0, Some(1), &row).unwrap(), Inserted::Yes);
    // What was computed is kept as it was; what cannot be ordered as the application does is not.
    let row = [Value::Integer(-4), Value::Integer(4)];
    assert_eq!(target.insert(1, Some(1), &row).unwrap(), Inserted::Yes);
    let inserted = target.insert(2, Some(1), &[Value::Text(b"k")]).unwrap();
    assert!(matches!(inserted, Inserted::Refused(_)), "{inserted:?}");
    let mut tables = vec![TableSalvage::default(); 3];
    let finished = target.finish(&Entries::default(), &mut tables, &NoProgress).unwrap();
    let errors: Vec<&str> =
        finished.schema_errors.iter().filter_map(|error| error.split(':').next()).collect();
    assert_eq!(errors, ["table keyed", "index byA"], "{:?}", finished.schema_errors);
    let target = open(&place.target);
    assert_eq!(strings(&target, "SELECT * FROM checked"), ["Integer(1) | x | y"]);
    assert_eq!(strings(&target, "SELECT b FROM computed"), ["Integer(4)"]);
    assert!(!target.table_exists(None, "keyed").unwrap());
}
