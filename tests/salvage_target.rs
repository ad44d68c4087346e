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

use fusion_sqlite::engine::{Result, Unwatched};
use fusion_sqlite::format::Value;
use fusion_sqlite::recovery::salvage::report::TableSalvage;
use fusion_sqlite::recovery::salvage::target::{Affinity, Finished, IndexSource, Inserted, Target};
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
    let from = open(&place.original);
    let header = snapshot(&from);
    let mut target = Target::create(&place.target, &header, &header.schema).unwrap();
    let mut tables = Vec::new();
    for (number, shape) in target.shapes().to_vec().into_iter().enumerate() {
        let mut fields: Vec<String> = shape.fields.iter().map(|it| it.name.clone()).collect();
        if shape.fields.is_empty() {
            fields.push("rowid".to_owned());
        }
        let mut table = TableSalvage { name: shape.table.clone(), ..TableSalvage::default() };
        for (rowid, mut record) in records(&from, &shape.table, shape.without_rowid, &fields) {
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
    let finished = target.finish(&Entries::default(), &mut tables, &Unwatched).unwrap();
    (finished, tables)
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
    let target = Target::create(&place.target, &header, &header.schema).unwrap();
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
    let mut target = Target::create(&place.target, &header, &header.schema).unwrap();
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
    target.finish(&Entries::default(), &mut [TableSalvage::default()], &Unwatched).unwrap();
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
         CREATE TABLE p(k TEXT PRIMARY KEY, v)",
    );
    let header = snapshot(&open(&place.original));
    let mut target = Target::create(&place.target, &header, &header.schema).unwrap();
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
    assert_eq!(insert(3, Some(2), &[text("k"), one]), "refused");

    let mut tables = vec![TableSalvage::default(); 4];
    target.finish(&Entries::default(), &mut tables, &Unwatched).unwrap();
    let target = open(&place.target);
    assert_eq!(strings(&target, "SELECT rowid, a, n FROM t").len(), 2);
    assert_eq!(strings(&target, "SELECT k FROM w"), ["key"]);
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
        let mut target = Target::create(&place.target, &header, &header.schema).unwrap();
        for (rowid, &text) in (1..).zip(&texts) {
            let text = Value::Text(text);
            assert_eq!(target.insert(0, Some(rowid), &[text]).unwrap(), Inserted::Yes);
            assert_eq!(
                target.insert(0, Some(rowid), &[text]).unwrap(),
                Inserted::Duplicate { same: true }
            );
            assert_eq!(target.insert(1, None, &[text, Value::Null]).unwrap(), Inserted::Yes);
            target.lost(2, 3, Some(rowid), &[text]).unwrap();
        }
        target
            .finish(&Entries::default(), &mut vec![TableSalvage::default(); 2], &Unwatched)
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
fn lost_rows_are_in_a_table_of_their_own_name() {
    let place =
        original("", "CREATE TABLE Lost_And_Found(a); CREATE VIEW lost_and_found_0 AS SELECT 1");
    let header = snapshot(&open(&place.original));
    let mut target = Target::create(&place.target, &header, &header.schema).unwrap();
    target.lost(2, 9, Some(-3), &[Value::Text(b"x"), Value::Real(0.5)]).unwrap();
    target.lost(0, 8, None, &[Value::Null, Value::Blob(b""), Value::Integer(5)]).unwrap();
    target.lost(0, 8, None, &vec![Value::Integer(7); 2_500]).unwrap();
    let finished =
        target.finish(&Entries::default(), &mut [TableSalvage::default()], &Unwatched).unwrap();
    assert_eq!(finished.lost_and_found, 3);
    let target = open(&place.target);
    assert_eq!(
        strings(
            &target,
            "SELECT rootpgno, pgno, nfield, id, c0, c1, c2, c1995 FROM lost_and_found_1"
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
    let error = Target::create(&place.target, &header, &header.schema).unwrap_err();
    assert_eq!(error.errcode, rusqlite::ffi::SQLITE_CANTOPEN);
    assert_eq!(std::fs::read(&place.target).unwrap(), b"mine");
}
